"""Fixtures: MNIST; 320 training and 100 test images of it; a folder that all users can reach."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from DataPipeline import MNIST, load_mnist
from tests.helpers import PROJECT

torch.set_num_threads(1)  # as every run has it: more of them wait for each other


@pytest.fixture(scope="session")
def mnist() -> MNIST:
    return load_mnist(PROJECT / "data")


@pytest.fixture(scope="session")
def small(mnist: MNIST) -> MNIST:
    return MNIST(*(tensor[:320] for tensor in mnist[:2]), *(tensor[:100] for tensor in mnist[2:]))


@pytest.fixture
def public_folder():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
        os.chmod(name, 0o755)
