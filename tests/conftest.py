"""Fixtures: real MNIST, loaded once, and a thousandth of it for training in seconds."""

from pathlib import Path

import pytest

from DataPipeline import MNIST, load_mnist

pytest.register_assert_rewrite("tests.victims")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mnist() -> MNIST:
    """All 70,000 images, fetched into the project's data/ if they are not there."""
    return load_mnist(PROJECT / "data")


@pytest.fixture(scope="session")
def small(mnist: MNIST) -> MNIST:
    """The first 320 training and 100 test images."""
    return MNIST(
        mnist.train_images[:320],
        mnist.train_labels[:320],
        mnist.test_images[:100],
        mnist.test_labels[:100],
    )
