"""What a run leaves behind: its history epoch by epoch, and the environment it ran in."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import reprlib
import subprocess
import sys
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from math import sqrt
from pathlib import Path

import torch

from helpers.config import TrainingConfig, is_int
from helpers.files import write_atomically
from models import CLASSES, Published

RECORD = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "learning_rate",
    "seconds",
)
STATUSES = ("finished", "early stopping", "interrupted")


@dataclass
class History:
    """What one run did, epoch by epoch; the schema of results/*.json.

    variant: the network's name in models.VARIANTS, or what it is.
    seed: config["seed"].
    status: one of STATUSES.
    config: the TrainingConfig as a dict.
    environment: what environment() says, and in the study's runs the commit that trained them.
    epochs: per complete epoch a dict with the keys of RECORD. Losses are means over images,
        accuracies per cent. Those of the training set are taken while it trains, with dropout and
        augmentation on. learning_rate is the one at the epoch's end; seconds include the
        evaluation.
    train_images: how many images an epoch trains on.
    mistakes: [index, predicted digit] of every test image the last epoch's network gets wrong.
    clean_train: that network's "loss" and "accuracy" (per cent) on the training images as they are,
        in evaluation mode; None if nobody measured it.

    The last three are None in files older than they are.
    """

    variant: str
    seed: int
    status: str = "interrupted"
    config: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    train_images: int | None = None
    mistakes: list[list[int]] | None = None
    clean_train: dict[str, float] | None = None

    def _series(self, key: str) -> list[float]:
        if not self.epochs:
            raise ValueError(f"the history of {self.variant} holds no complete epoch; train first.")
        return [record[key] for record in self.epochs]

    @property
    def final_accuracy(self) -> float:
        """Test accuracy of the last epoch run, per cent: the accuracy this study reports."""
        return self._series("test_accuracy")[-1]

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy of any epoch, per cent: picked on the test set, so optimistic."""
        return max(self._series("test_accuracy"))

    @property
    def first_epoch_at_99(self) -> int | None:
        """The first epoch, counted from 1, with a test accuracy of 99 % or more, or None."""
        accuracies = self._series("test_accuracy")
        return next((e for e, accuracy in enumerate(accuracies, 1) if accuracy >= 99), None)

    @property
    def convergence_rate(self) -> float | None:
        """6 / first epoch at 99 %+, or None: the rule behind the published 0.75, 1.0 and 1.5."""
        return None if self.first_epoch_at_99 is None else 6 / self.first_epoch_at_99

    @property
    def gap(self) -> float:
        """Test minus train accuracy of the last epoch, in points."""
        return self.final_accuracy - self._series("train_accuracy")[-1]

    def beside(self, published: Published, parameters: int) -> str:
        """A Markdown table: the published figures, and beside them this run's.

        published: what models.VARIANTS holds of the variant; parameters: the network's count.
        """
        p, reached = published, self.first_epoch_at_99
        train, test = self._series("train_accuracy"), self._series("test_accuracy")
        at_99 = f"{reached} ({test[reached - 1]:.2f} %)" if reached else "not reached"
        rate = f"{self.convergence_rate:.2f}" if reached else "not reached"
        gap = "not published" if p.gap is None else f"{p.gap:+.1f} points"
        return f"""\
| | published | this run |
| --- | ---: | ---: |
| parameters | {p.parameters:,} | {parameters:,} |
| epoch 1, train accuracy | {p.epoch_1_train_accuracy:.2f} % | {train[0]:.2f} % |
| epoch 1, test accuracy | {p.epoch_1_test_accuracy:.2f} % | {test[0]:.2f} % |
| first epoch at 99 %+ (test) | {p.first_epoch_at_99} ({p.accuracy_at_99:.2f} %) | {at_99} |
| final test accuracy | {p.final_accuracy:.2f} % | {self.final_accuracy:.2f} % |
| convergence rate | {p.convergence_rate:.2f} | {rate} |
| gap, test - train, last epoch | {gap} | {self.gap:+.2f} points |
"""

    def conclusion(self, published: Published, images: int) -> str:
        """What the run shows beside the publication's, in Markdown.

        published: what models.VARIANTS holds of the variant; images: how many were tested.
        Two accuracies on so many images each carry a binomial standard error, and so does their
        difference.
        """
        p = published.final_accuracy / 100
        error = 100 * sqrt(2 * p * (1 - p) / images)
        difference = self.final_accuracy - published.final_accuracy
        within = "within" if abs(difference) <= 2 * error else "outside"
        reached = f"in epoch {self.first_epoch_at_99}" if self.first_epoch_at_99 else "never"
        return (
            f"This run ended ({self.status}) after {len(self.epochs)} epochs at "
            f"{self.final_accuracy:.2f} %, {difference:+.2f} points from the published "
            f"{published.final_accuracy:.2f} %: {within} two standard errors ({2 * error:.2f} "
            f"points) of the difference between two such accuracies. It first reached 99 % "
            f"{reached}; published is epoch {published.first_epoch_at_99}. The best epoch had "
            f"{self.best_accuracy:.2f} %, which was picked on the test set and is no result. One "
            "run with one seed decides nothing about the variant."
        )

    def save(self, path: str | Path) -> None:
        """Write the history as JSON, completely or not at all.

        Raises ValueError for an interrupted run, which its checkpoint holds, and OSError if it
        cannot be written.
        """
        if self.status == "interrupted":
            raise ValueError(
                f"this run of {self.variant} was interrupted after {len(self.epochs)} epochs, and "
                f"{path} is for a complete one: call fit again to finish it."
            )
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        write_atomically(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history back; raises ValueError if the file does not hold one."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(
                f"{path} holds no training history ({error}); move it away and run again."
            ) from error

    @classmethod
    def from_dict(cls, content: object) -> History:
        """A history from its JSON form; raises ValueError if a field is missing, odd or extra."""
        names = {f.name for f in fields(cls)}
        later = {"train_images", "mistakes", "clean_train"}  # not in the first round's files
        if not isinstance(content, dict) or not names - later <= set(content) <= names:
            raise ValueError(f"expected an object with exactly {', '.join(sorted(names))}")
        history = cls(**content)
        for name, valid in {
            "variant": isinstance(history.variant, str),
            "seed": is_int(history.seed),
            "status": history.status in STATUSES,
            "config": isinstance(history.config, dict),
            "environment": isinstance(history.environment, dict)
            and all(isinstance(key, str) for key in history.environment)
            and all(isinstance(value, (str, int)) for value in history.environment.values()),
            "epochs": isinstance(history.epochs, list) and all(map(_is_record, history.epochs)),
            "train_images": history.train_images is None
            or (is_int(history.train_images) and history.train_images >= 1),
            "mistakes": history.mistakes is None
            or (isinstance(history.mistakes, list) and all(map(_is_mistake, history.mistakes))),
            "clean_train": history.clean_train is None
            or _is_record(history.clean_train, ("loss", "accuracy")),
        }.items():
            if not valid:
                shown = reprlib.repr(getattr(history, name))
                raise ValueError(f"{name} is {shown}, which fit never writes there")
        try:
            config = TrainingConfig(**history.config)
        except TypeError as error:
            raise ValueError(f"config: {error}") from error
        if config.seed != history.seed:
            raise ValueError(f"seed is {history.seed}, and {config.seed} in the config")
        return history


def _is_record(record: object, keys: tuple[str, ...] = RECORD) -> bool:
    """Whether it is a dict of finite numbers with these keys, accuracies from 0 to 100."""
    return (
        isinstance(record, dict)
        and set(record) == set(keys)
        and all(type(value) in (int, float) for value in record.values())
        and all(0 <= value <= sys.float_info.max for value in record.values())
        and all(value <= 100 for key, value in record.items() if "accuracy" in key)
    )


def _is_mistake(entry: object) -> bool:
    """Whether it is [index of an image, predicted digit]."""
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and all(is_int(number) and number >= 0 for number in entry)
        and entry[1] < CLASSES
    )


def _processor() -> str:
    """The processor's model, as exactly as the system tells; a virtual one's name may be short."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = (line.partition(":") for line in lines)
    told = {key.strip(): value.strip() for key, _, value in entries}
    numbers = [f"{key} {told[key]}" for key in ("cpu family", "model", "stepping") if key in told]
    return ", ".join([told.get("model name", platform.machine()), *numbers])


@functools.cache
def _onednn() -> str:
    """The instruction set that oneDNN, which does the convolutions on a CPU, dispatches to.

    It says so once per process, on the standard output and if asked before it starts.
    """
    convolve = "import torch; torch.conv2d(torch.zeros(32, 8, 28, 28), torch.zeros(8, 8, 3, 3))"
    said = subprocess.run(
        [sys.executable, "-c", convolve],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    found = re.search(r"cpu,isa:(.+)", said)
    return found[1] if found else "not in use"


def environment(device: torch.device) -> dict[str, str | int]:
    """What a run's bits depend on beside its identity: versions, processor, device, threads."""
    packages = {}
    for name in ("torch", "torchvision", "kornia", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        **packages,
        "machine": f"{platform.system()} {platform.machine()} "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "processor": _processor(),
        "onednn": _onednn(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
