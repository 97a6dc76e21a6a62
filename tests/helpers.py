"""What several tests need: where things are, networks and histories to try, and their bits.

Import it as tests.helpers.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from helpers.history import History
from models import VARIANTS
from TrainingHelper import TrainingConfig, set_seed

PROJECT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def build(name="final", seed=42):
    """A variant's network with the weights of a seed."""
    set_seed(seed)
    return VARIANTS[name].network()


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
        "config": asdict(TrainingConfig(seed, **(config or {}))),
        "environment": {"python": "3", "device": "cpu", "threads": 1},
        "epochs": epochs,
        **fields,
    }
    return History(variant, seed, **fields)
