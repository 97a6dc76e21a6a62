"""Fixtures: MNIST, loaded once, a thousandth of it, a study that never was, a public folder."""

import tempfile
from pathlib import Path

import pytest
import torch

from DataPipeline import MNIST, load_mnist
from tests.helpers import DRAWN, PROJECT, made_up_study

pytest.register_assert_rewrite("tests.victims")
torch.set_num_threads(1)  # as every run has it: more of them wait for each other


@pytest.fixture(scope="session")
def mnist() -> MNIST:
    """All 70,000 images, fetched into the project's data/ if they are not there."""
    return load_mnist(PROJECT / "data")


@pytest.fixture(scope="session")
def small(mnist: MNIST) -> MNIST:
    """The first 320 training and 100 test images."""
    return mnist.first(320)._replace(
        test_images=mnist.test_images[:100], test_labels=mnist.test_labels[:100]
    )


@pytest.fixture(scope="session")
def runs():
    """A made-up study's; modules with runs of their own have a fixture of this name."""
    return made_up_study(shifts={"v1": 0.3, "final": -0.5}, draw=1)


@pytest.fixture(scope="session")
def table(runs):
    """Their table."""
    from study.claims import measured  # not at the top: few tests need all that it imports

    return measured(runs)


@pytest.fixture
def public_folder():
    """A folder that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def pytest_terminal_summary(terminalreporter):
    """After a failure, what draws the same faults again."""
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"Random faults were drawn by {DRAWN}")


@pytest.fixture
def tell(capsys):
    """Says how many faults were inflicted, in pytest's own output; pytest-xdist keeps it back."""

    def tell(text):
        with capsys.disabled():
            print(f"\n{text}")

    return tell
