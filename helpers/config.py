"""TrainingConfig, which describes a run; and the seeds that are derived from its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

VALID_SEEDS = range(2**32)  # NumPy's


@dataclass(frozen=True)
class TrainingConfig:
    """How to train, by default as the publication's page does; ValueError for a senseless value."""

    seed: int = 42
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.001  # of "one-cycle" the highest
    weight_decay: float = 0.0
    step_size: int = 7  # "step": epochs between two drops of the learning rate ...
    gamma: float = 0.1  # ... by this factor
    patience: int = 10  # epochs without improvement before early stopping
    min_delta: float = 0.001  # the monitored value has to improve by more than this
    schedule: str = "step"  # or "one-cycle"
    pct_start: float = 0.3  # "one-cycle": the part of the run's steps until the rate is highest
    cycle_momentum: bool = False  # "one-cycle": Adam's beta1 goes from 0.95 to 0.85 and back
    monitor: str = "test_loss"  # what early stopping monitors; or "test_accuracy", in percent
    beta2: float = 0.999  # Adam's
    augmentation: str = "page"  # a name in DataPipeline.AUGMENTATIONS
    plain_epochs: int = 0  # the last so many epochs are trained without augmentation
    label_smoothing: float = 0.0  # of the cross-entropy that is trained on
    bfloat16: bool = False  # convolutions train in it: sooner where the processor computes in it

    def __post_init__(self) -> None:
        require_seed(self.seed)
        for names, holds, expected in RULES:
            for name in names.split():
                value = getattr(self, name)
                _require(holds(value), name, value, expected)


def is_int(value: object) -> bool:
    """Whether a value is an integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


RULES = (
    ("epochs batch_size step_size patience", lambda v: is_int(v) and v > 0, "an integer from 1 on"),
    ("plain_epochs", lambda v: is_int(v) and v >= 0, "an integer from 0 on"),
    ("learning_rate", lambda v: _is_number(v) and v > 0, "a finite number above 0"),
    ("weight_decay min_delta", lambda v: _is_number(v) and v >= 0, "a finite number from 0 on"),
    ("gamma", lambda v: _is_number(v) and 0 < v <= 1, "a number above 0, 1 at most"),
    ("pct_start beta2", lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    ("label_smoothing", lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 on, under 1"),
    ("cycle_momentum bfloat16", lambda v: isinstance(v, bool), "True or False"),
    ("schedule", lambda v: v in ("step", "one-cycle"), "'step' or 'one-cycle'"),
    ("monitor", lambda v: v in ("test_loss", "test_accuracy"), "'test_loss' or 'test_accuracy'"),
)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; expected {expected}.")


def require_seed(seed: object) -> None:
    """Raise ValueError unless this is a seed that NumPy takes."""
    _require(is_int(seed) and seed in VALID_SEEDS, "seed", seed, "an integer from 0 to 2**32 - 1")


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed from integers >= 0 such as (seed, epoch); zeros at the end do not count."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
