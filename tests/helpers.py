"""What several tests need: networks and histories to try, their bits, and faults.

Import it as tests.helpers.
"""

import contextlib
import functools
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DataPipeline import load_mnist
from helpers.config import PROTOCOLS
from helpers.history import History
from models import SETTINGS
from TrainingHelper import TrainingConfig, set_seed

PROJECT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
# FAULT_SEED=<the printed seed> draws the same faults again; processes of their own inherit it.
SEED = int(os.environ.setdefault("FAULT_SEED", str(secrets.randbits(32))))
DRAWN = f"(FAULT_SEED={SEED})"


def counts(normal, torture):
    """Parametrizes a test with the number of faults to inflict."""
    more = pytest.param(torture, marks=pytest.mark.torture)
    return pytest.mark.parametrize("count", [normal, more])


@contextlib.contextmanager
def full_disk():
    """No file may get more than 4 KB long."""
    import resource  # which Windows has not

    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_rights():
    """Root may write everywhere: be somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def wait_for(condition, seconds=300, every=0.05):
    """Wait until condition() is true, which is asked every so many seconds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(every)
    return value


class TorchTo:
    """Tensor.to, which leaves alone what goes to a device that is not here, and remembers it.

    moves: of each such call the device and whether it was non-blocking.
    """

    def __init__(self, monkeypatch):
        self.moves, real = [], torch.Tensor.to

        def to(tensor, *args, non_blocking=False, **options):
            if isinstance(args[0], torch.device) and args[0].type in ("cuda", "mps"):
                self.moves.append((args[0], non_blocking))
                args = (CPU,)
            return real(tensor, *args, **options)

        monkeypatch.setattr(torch.Tensor, "to", to)


def build(name="final", seed=42, setting="from the page"):
    """A variant's network with the weights of a seed."""
    set_seed(seed)
    return SETTINGS[setting][name].network()


def bits(model):
    """A copy of everything a network holds."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def without_seconds(history):
    """The epochs of a history, but for what differs between two runs of the same bits."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]


def history(accuracies=(98.0, 99.5), variant="v1", seed=42, *, config=None, **fields):
    """A run with these test accuracies, by epoch; its train accuracies lie 1 point below.

    config: the TrainingConfig's values, where they are not the defaults.
    """
    epochs = [
        {
            "train_loss": 0.1,
            "test_loss": 0.05,
            "train_accuracy": accuracy - 1,
            "test_accuracy": accuracy,
            "learning_rate": 0.001,
            "seconds": 1.0,
        }
        for accuracy in accuracies
    ]
    fields = {
        "status": "finished",
        "config": TrainingConfig(seed, **(config or {})).as_dict(),
        "environment": {"python": "3", "device": "cpu", "threads": 1},
        "epochs": epochs,
        **fields,
    }
    return History(variant, seed, **fields)


@functools.cache
def labels_of_test_images():
    """The digits of MNIST's test images."""
    return load_mnist(PROJECT / "data").test_labels.tolist()


def made_up_study(
    seeds=range(47, 57),
    shifts=None,
    spread=None,
    draw=0,
    mistakes=True,
    setting="from the page",
):
    """The runs of a study that never was, by (variant, seed), with all that its report reads.

    shifts: per variant what is added to ln(test error in %); 0 for those not named.
    spread: per variant the standard deviation over seeds of ln(test error); 0.1 for the others.
    draw: the seed of what is random.
    mistakes: whether to make them up, too; each network gets wrong what is hard for all, about.
    """
    generator = np.random.default_rng(draw)
    difficulty = generator.gumbel(size=10_000)
    runs = {}
    for seed in seeds:
        for variant in SETTINGS[setting]:
            shift = (shifts or {}).get(variant, 0)
            shift += generator.normal(0, (spread or {}).get(variant, 0.1))
            epoch = np.arange(20)
            errors = np.exp(2 - 0.5 * np.log1p(epoch) - 0.35 * (epoch // 7) + shift)
            errors *= np.exp(generator.normal(0, 0.05, 20))
            run = history((100 - errors.clip(0.05, 90)).round(2).tolist(), variant, seed)
            for number, record in enumerate(run.epochs):
                record["learning_rate"] = 0.001 * 0.1 ** (number // 7)
                record["train_loss"] = generator.uniform(1, 1.1) / (1 + number)
                record["test_loss"] = 1 / (1 + number)
            if mistakes:
                wrong = round(10_000 - 100 * run.final_accuracy)
                order = (difficulty + generator.gumbel(0, 0.3, 10_000)).argsort()[::-1]
                indices, labels = sorted(order[:wrong].tolist()), labels_of_test_images()
                run.mistakes = [(i, (labels[i] + 1 + i % 7) % 10) for i in indices]
            run.config = replace(PROTOCOLS[setting], seed=seed).as_dict()
            run.train_images = 60_000
            run.clean_train = {"loss": 0.01, "accuracy": 50 + run.final_accuracy / 2}
            run.environment |= {"processor": "a processor", "commit": 40 * "c"}
            runs[variant, seed] = run
    return runs
