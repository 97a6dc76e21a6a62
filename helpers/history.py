"""What a run leaves behind: its history epoch by epoch, and the environment it ran in."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import torch
from msgspec import Meta

from helpers.config import VALID_SEEDS, TrainingConfig
from helpers.files import read_file, write_atomically
from helpers.publication import Published, Reported
from models import CLASSES

if TYPE_CHECKING:
    import pandas as pd

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000  # MNIST's

NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Count = Annotated[int, Meta(ge=1)]
Key = Literal[
    "train_loss", "test_loss", "train_accuracy", "test_accuracy", "learning_rate", "seconds"
]
Record = Annotated[dict[Key, NotNegative], Meta(min_length=6)]
Mistake = tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0, lt=CLASSES)]]
CleanTrain = Annotated[dict[Literal["loss", "accuracy"], NotNegative], Meta(min_length=2)]


class Interrupted(Exception):
    """Ends a notebook's Run All, by a sentence where a traceback would be."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


class History(msgspec.Struct, forbid_unknown_fields=True):
    """What one run did, epoch by epoch; the schema of results/*.json, which msgspec enforces.

    variant: the network's name in its setting of models.SETTINGS, or what it is.
    seed: config["seed"].
    status: "interrupted" until the last epoch is over.
    config: the TrainingConfig as a dict.
    environment: what environment() says, and in the study's runs the commit that trained them.
    epochs: a record per complete epoch. Losses are means over images, accuracies per cent. Those of
        the training set are taken while it trains, with dropout and augmentation on. learning_rate
        is the one at the epoch's end; seconds include the evaluation.
    train_images: how many images an epoch trains on.
    mistakes: index and predicted digit of every test image the last epoch's network gets wrong.
    clean_train: that network's "loss" and "accuracy" (per cent) on the training images as they are,
        in evaluation mode; None if nobody measured it.
    code: a digest of the code that trained it; see checkpoint.code_digest.
    weights: a digest of that network's tensors; see checkpoint.weights_digest.
    data: the checksum of the images and labels it was trained and tested on.

    The last six are None in files older than they are.
    """

    variant: str
    seed: Annotated[int, Meta(ge=VALID_SEEDS.start, lt=VALID_SEEDS.stop)]
    status: Literal["finished", "early stopping", "interrupted"] = "interrupted"
    config: dict[str, str | int | float] = {}
    environment: dict[str, str | int] = {}
    epochs: list[Record] = []
    train_images: Count | None = None
    mistakes: list[Mistake] | None = None
    clean_train: CleanTrain | None = None
    code: str | None = None
    weights: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        records = [*self.epochs, *([self.clean_train] if self.clean_train else [])]
        if any(value > 100 for r in records for key, value in r.items() if "accuracy" in key):
            raise ValueError("an accuracy is over 100 %")
        if self.config and TrainingConfig(**self.config).seed != self.seed:
            raise ValueError(f"seed is {self.seed}, and {self.config.get('seed')} in the config")
        if not isinstance(self.environment.get("commit", ""), str):
            raise ValueError(f"the commit is {self.environment['commit']}; expected a string")

    @property
    def setting(self) -> str:
        """The setting of models.SETTINGS that the run was in."""
        return TrainingConfig(**self.config).setting

    def complete(self) -> History:
        """The history itself, for a notebook to go on with; raises Interrupted if it is not."""
        if self.status == "interrupted":
            raise Interrupted(
                f"Interrupted with {len(self.epochs)} of {TrainingConfig(**self.config).epochs} "
                "epochs complete. Run this cell again, or Run All, to resume where it stopped."
            )
        return self

    def follows(self, config: TrainingConfig) -> bool:
        """Whether the run is complete, by this config and on all of MNIST's training images."""
        same = TrainingConfig(**self.config) == config and self.train_images == TRAIN_IMAGES
        return same and self.status != "interrupted"

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
        """Test minus train accuracy of the last epoch, in percentage points."""
        return self.final_accuracy - self._series("train_accuracy")[-1]

    def beside(self, published: Published, parameters: int) -> pd.DataFrame:
        """A table of what the publication says of a variant, by source, and of this run.

        parameters: the network's count.
        """
        import pandas as pd

        reached = self.first_epoch_at_99
        train, test = self._series("train_accuracy"), self._series("test_accuracy")
        at_99 = test[reached - 1] if reached else None
        final, rate = self.final_accuracy, self.convergence_rate
        run = Reported(parameters, final, reached, at_99, rate, train[0], test[0], self.gap)
        sources = {
            "the page": published.page,
            "the corrected page": published.corrected,
            "its log": published.log,
            "this run": run,
        }
        rows = {
            "parameters": ("parameters", "{:,}"),
            "epoch 1, train accuracy, %": ("epoch_1_train_accuracy", "{:.2f}"),
            "epoch 1, test accuracy, %": ("epoch_1_test_accuracy", "{:.2f}"),
            "first epoch at 99 % (test)": ("first_epoch_at_99", "{}"),
            "accuracy in that epoch, %": ("accuracy_at_99", "{:.2f}"),
            "final test accuracy, %": ("final_accuracy", "{:.2f}"),
            "convergence rate": ("convergence_rate", "{:.2f}"),
            "gap, test - train, last epoch, points": ("gap", "{:+.2f}"),
        }
        columns = {}
        for source, figures in sources.items():
            values = [(getattr(figures, name), form) for name, form in rows.values()]
            columns[source] = ["" if v is None else form.format(v) for v, form in values]
        return pd.DataFrame(columns, index=list(rows))

    def conclusion(self, log: Reported, images: int, others: Sequence[History] = ()) -> str:
        """What the run shows beside the publication's and beside others of the variant, in words.

        log: of the publication's run, whose final accuracy is the last epoch's, too. images: how
        many were tested. Two accuracies on so many images each carry a binomial standard error, and
        so does their difference.
        others: the study's runs of the variant, with other seeds.
        """
        p = log.final_accuracy / 100
        error = 100 * sqrt(2 * p * (1 - p) / images)
        difference = self.final_accuracy - log.final_accuracy
        within = "within" if abs(difference) <= 2 * error else "outside"
        reached = f"in epoch {self.first_epoch_at_99}" if self.first_epoch_at_99 else "never"
        said = (
            f"This run ended ({self.status}) after {len(self.epochs)} epochs at "
            f"{self.final_accuracy:.2f} %, {difference:+.2f} percentage points from the "
            f"{log.final_accuracy:.2f} % that the publication's run ended at: {within} two "
            f"standard errors ({2 * error:.2f} points) of the difference between two such "
            f"accuracies. It first reached 99 % {reached}; the publication's run did in epoch "
            f"{log.first_epoch_at_99}. The best epoch had {self.best_accuracy:.2f} %, which was "
            "picked on the test set and is no result."
        )
        if others:
            finals = sorted(other.final_accuracy for other in others)
            below = sum(final < self.final_accuracy for final in finals)
            said += (
                f" Of the study's {len(finals)} runs of {self.variant}, which ended between "
                f"{finals[0]:.2f} and {finals[-1]:.2f} % (mean {sum(finals) / len(finals):.2f}), "
                f"{below} are less accurate than this one."
            )
        return f"{said} A single run proves nothing about the variant."

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
        try:  # what is saved loads
            History.from_dict(msgspec.to_builtins(self))
        except ValueError as error:
            raise ValueError(f"this history cannot be saved: {error}.") from error
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        write_atomically(path, text + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history back; raises ValueError if the file does not hold one."""
        try:
            return msgspec.json.decode(read_file(path), type=cls)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ValueError(
                f"{path} holds no training history ({error}); move it away and run again."
            ) from error

    @classmethod
    def from_dict(cls, content: object) -> History:
        """A history from its JSON form; raises ValueError if a field is missing, odd or extra."""
        return msgspec.convert(content, cls)

    def as_dict(self) -> dict:
        """The history's JSON form."""
        return msgspec.to_builtins(self)


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


def environment(device: torch.device) -> dict[str, str | int]:
    """What a run's bits depend on beside its identity: versions, processor, device, threads."""
    packages = {}
    for name in ("torch", "torchvision", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        **packages,
        "machine": f"{platform.system()} {platform.machine()} "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "processor": _processor(),
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "the processor's"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
