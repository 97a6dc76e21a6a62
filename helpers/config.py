"""What a run is told: TrainingConfig, from seed to setting; its seeds; its device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
from dataclasses import asdict, dataclass

import numpy as np
import torch

from models import SETTINGS

VALID_SEEDS = range(2**32)  # NumPy's
WATCHED = ("test_loss", "test_accuracy")
# Per schedule, what means nothing to it. Files of "step" are older than the field, and lack it.
UNUSED = {"step": ("schedule", "warm_up"), "one-cycle": ("step_size", "gamma")}
# Most files are older than these, too: they lack them where they have these values.
LATER = {"beta2": 0.999, "augmentation": "", "plain_from": 0, "distillation": 0.0}


def is_int(value: object) -> bool:
    """Whether a value is an integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; expected {expected}.")


def _require_seed(seed: object) -> None:
    _require(is_int(seed) and seed in VALID_SEEDS, "seed", seed, "an integer from 0 to 2**32 - 1")


@dataclass(frozen=True, repr=False)
class TrainingConfig:
    """The protocol of the publication's page; a value that makes no sense raises ValueError."""

    seed: int = 42
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    step_size: int = 7  # epochs between two drops of the learning rate ...
    gamma: float = 0.1  # ... by this factor
    patience: int = 10  # epochs without improvement before early stopping
    min_delta: float = 0.001  # what is watched has to improve by more than this to count
    schedule: str = "step"  # or "one-cycle", whose highest rate is learning_rate
    warm_up: float = 0.3  # one-cycle: the share of the run's steps until the rate is highest
    watch: str = "test_loss"  # what early stopping watches; or "test_accuracy", in per cent
    setting: str = "from the page"  # of models.SETTINGS: the network and the augmentation
    beta2: float = LATER["beta2"]  # Adam's
    augmentation: str = LATER["augmentation"]  # of DataPipeline.AUGMENTATIONS, if another one
    plain_from: int = LATER["plain_from"]  # the first epoch without augmentation; 0 for none
    distillation: float = LATER["distillation"]  # the share of the labels that teachers give

    def __post_init__(self) -> None:
        _require_seed(self.seed)
        for name in ("epochs", "batch_size", "step_size", "patience"):
            value = getattr(self, name)
            _require(is_int(value) and value >= 1, name, value, "an integer of at least 1")
        plain = is_int(self.plain_from) and self.plain_from >= 0
        _require(plain, "plain_from", self.plain_from, "an epoch's number, or 0")
        numbers = ("learning_rate", "weight_decay", "gamma", "min_delta", "warm_up")
        for name in (*numbers, "beta2", "distillation"):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            valid = is_number and 0 <= value <= sys.float_info.max
            _require(valid, name, value, "a finite number that is not negative")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        _require(0 < self.gamma <= 1, "gamma", self.gamma, "a number in (0, 1]")
        known = {"schedule": UNUSED, "watch": WATCHED, "setting": SETTINGS}
        for name, values in known.items():
            value = getattr(self, name)
            _require(value in values, name, value, " or ".join(map(repr, values)))
        for name in ("warm_up", "beta2"):
            value = getattr(self, name)
            _require(0 < value < 1, name, value, "a number between 0 and 1")
        _require(self.distillation <= 1, "distillation", self.distillation, "a number up to 1")

    def __repr__(self) -> str:
        return f"TrainingConfig({', '.join(f'{k}={v!r}' for k, v in self.as_dict().items())})"

    def as_dict(self) -> dict[str, int | float | str]:
        """The values as a run's files hold them: without those of UNUSED and of LATER."""
        unused = UNUSED[self.schedule]
        return {k: v for k, v in asdict(self).items() if k not in unused and LATER.get(k) != v}


# What each of the publication's settings trains by.
PROTOCOLS = {
    "from the page": TrainingConfig(),
    "as run": TrainingConfig(watch="test_accuracy", setting="as run"),
}


def get_device(preferred: str | torch.device | None = None) -> torch.device:
    """The device to train on: `preferred`, or else the first available of CUDA, MPS and CPU.

    It also makes torch fit for small steps on a CPU: one thread, unless OMP_NUM_THREADS is set, and
    memory that is kept between steps.

    Raises ValueError if the preferred device is not available (the message lists those that are),
    or OMP_NUM_THREADS is no number of threads.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    name = present[0] if preferred is None else str(preferred)
    if name not in present:
        raise ValueError(f"there is no device {name!r} here; choose from {', '.join(present)}.")
    _set_up_cpu()
    return torch.device(name)


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last where it is faster; contiguous on MPS, where it is wrong.

    On MPS the backward pass of BatchNorm2d returns wrong gradients for channels_last inputs
    (pytorch/pytorch issue 175189): training would diverge without an error.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def set_seed(seed: int = 42) -> None:
    """Seed random, NumPy and torch (every backend); deterministic algorithms where there are any.

    Raises ValueError unless seed is an integer from 0 to 2**32 - 1 (NumPy's range).
    """
    _require_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Filling fresh memory would cost time and hides nothing here: all of it is written first.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed from non-negative integers such as (seed, epoch), by NumPy's SeedSequence.

    Zeros at the end do not count: (seed, epoch) and (seed, epoch, 0) are one seed.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _set_up_cpu() -> None:
    """Set torch and the C library up for small steps; benchmarks/README.md has the measurements.

    One thread: a step is hundreds of small operations, at each of which two threads wait for each
    other, on a busy or virtual machine for longer than they save. It also makes a run's bits
    independent of the number of cores.

    glibc gives large freed blocks back to the system at once, so each step's activations would be
    mapped and zeroed again; it is asked to keep them. Other C libraries are left as they are.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:  # torch would take any number, in silence
        raise ValueError(
            f"OMP_NUM_THREADS is {threads!r}; expected an integer from 1 on, or nothing."
        )
    torch.set_num_threads(int(threads))
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None)
            libc.mallopt(trim_threshold, 2**31 - 1)
            libc.mallopt(mmap_threshold, 2**30)
