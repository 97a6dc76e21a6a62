"""What several tests need: networks and histories to try, their bits, and faults."""

import contextlib
import os
import resource
import signal
import time
from dataclasses import asdict
from pathlib import Path

import torch

from helpers.config import TrainingConfig
from helpers.history import History
from models import NETWORKS

PROJECT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@contextlib.contextmanager
def full_disk():
    """No file may get more than 4 KB long."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_rights():
    """Root may write everywhere: be somebody else."""
    os.seteuid((user := os.geteuid()) or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def wait_for(condition, seconds=300, every=0.05):
    """The value of condition() once it is true; it is asked every so many seconds."""
    for _ in range(round(seconds / every)):
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError("it took too long")


class TorchTo:
    """Tensor.to without a GPU: moves lists, per call for one, the device and non_blocking."""

    def __init__(self, monkeypatch):
        self.moves, real = [], torch.Tensor.to

        def to(tensor, *args, non_blocking=False, **options):
            if isinstance(args[0], torch.device) and args[0].type in ("cuda", "mps"):
                self.moves.append((args[0], non_blocking))
                args = (CPU,)
            return real(tensor, *args, **options)

        monkeypatch.setattr(torch.Tensor, "to", to)


def build(name="final", seed=42):
    """A network of models.NETWORKS with the weights of a seed."""
    torch.manual_seed(seed)
    return NETWORKS[name].build()


def bits(model):
    """A copy of everything a network holds."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def without_seconds(history):
    """The epochs of a history, but for what differs between two runs of the same bits."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]


def history(accuracies=(98.0, 99.5), network="v1", seed=42, *, config=None, **fields):
    """A run with these test accuracies, by epoch; its train accuracies lie 1 point below."""
    common = {"train_loss": 0.1, "test_loss": 0.05, "learning_rate": 0.001, "seconds": 1.0}
    epochs = [common | {"train_accuracy": a - 1, "test_accuracy": a} for a in accuracies]
    config = asdict(TrainingConfig(seed, **(config or {})))
    environment = {"python": "3", "device": "cpu", "threads": 1}
    known = {"status": "finished", "config": config, "environment": environment, "epochs": epochs}
    return History(network, seed, **(known | fields))


def interruptible():
    """For a child process: heed SIGINT even if this one is in the background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
