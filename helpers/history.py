"""What a run leaves behind: its history epoch by epoch, and the environment it ran in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from helpers.config import TrainingConfig
from helpers.files import read_file, write_atomically

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000  # MNIST's


@dataclass
class History:
    """What one run did, epoch by epoch: the content of results/**/*.json.

    network: its name in models.NETWORKS, or its class's name.
    seed: config["seed"].
    status: "interrupted" until the last epoch is over; then "finished" or "early stopping".
    config: the TrainingConfig as a dict.
    environment: what environment() says; in the study's runs also the commit that trained them.
    epochs: a record per complete epoch. Losses are means over images, accuracies percent. Those of
        the training set are taken while it trains, with dropout and augmentation on. learning_rate
        is the one at the epoch's end; seconds include the evaluation.
    train_images: how many images an epoch trains on.
    misclassified: index and predicted digit of every test image that the last epoch's network gets
        wrong.
    clean_train: that network's "loss" and "accuracy" (percent) on the training images as they are,
        in evaluation mode; None if nobody measured it.
    code: the SHA-256 of the code that trained it; see checkpoint.code_digest.
    weights: the SHA-256 of that network's tensors; see checkpoint.weights_digest.
    data: the SHA-256 of the images and labels it was trained and tested on.

    The last six are None in files older than they are.
    """

    network: str
    seed: int
    status: str = "interrupted"
    config: dict[str, str | int | float] = field(default_factory=dict)
    environment: dict[str, str | int] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    train_images: int | None = None
    misclassified: list[list[int]] | None = None
    clean_train: dict[str, float] | None = None
    code: str | None = None
    weights: str | None = None
    data: str | None = None

    def _series(self, key: str) -> list[float]:
        if not self.epochs:
            raise ValueError(f"the history of {self.network} holds no complete epoch; train first.")
        return [record[key] for record in self.epochs]

    @property
    def final_accuracy(self) -> float:
        """Test accuracy of the last epoch run, percent: the accuracy this study reports."""
        return self._series("test_accuracy")[-1]

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy of any epoch, percent: picked on the test set, so optimistic."""
        return max(self._series("test_accuracy"))

    def first_epoch_at(self, accuracy: float) -> int | None:
        """The first epoch, counted from 1, with at least this test accuracy (%), or None."""
        accuracies = self._series("test_accuracy")
        return next((e for e, a in enumerate(accuracies, 1) if a >= accuracy), None)

    def save(self, path: str | Path) -> None:
        """Write the history as JSON, completely or not at all.

        Raises ValueError for an interrupted run, which its checkpoint holds, and OSError if it
        cannot be written.
        """
        if self.status == "interrupted":
            raise ValueError(
                f"this run of {self.network} was interrupted after {len(self.epochs)} epochs, and "
                f"{path} is for a complete one: call fit again to finish it."
            )
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history back; raises ValueError if the file does not hold one."""
        try:
            history = cls(**translate(json.loads(read_file(path))))
            if not 0 <= history.final_accuracy <= 100:
                raise ValueError(f"its final accuracy is {history.final_accuracy} %")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} holds no training history ({error}); move it away and run again."
            ) from error
        return history


# Until November 2026 a network had a setting and a variant, and the setting, which was in the
# config, chose the augmentation. Some names of config values were others, too.
OLD_AUGMENTATIONS = {"from the page": "page", "as run": "original"}
OLD_CONFIG_NAMES = {"watch": "monitor", "warm_up": "pct_start"}


def old_network_name(setting: str, variant: str) -> str:
    """The name in models.NETWORKS of what files call a variant in a setting."""
    if setting == "as run":
        return f"original_{'final' if variant == 'v2_bn' else variant}"
    return "half" if variant == "three_blocks" else variant


def translate(record: dict) -> dict:
    """A record as this version writes it, of one that any version wrote; absent values are None."""
    record, config = dict(record), dict(record["config"])
    if "variant" in record:
        setting = config.pop("setting", "from the page")
        record["network"] = old_network_name(setting, record.pop("variant"))
        record["misclassified"] = record.pop("mistakes", None)
        augmentation = config.pop("augmentation", setting)
        config["augmentation"] = OLD_AUGMENTATIONS.get(augmentation, augmentation)
        if plain_from := config.pop("plain_from", 0):
            config["plain_epochs"] = config["epochs"] + 1 - plain_from
    config = {OLD_CONFIG_NAMES.get(name, name): value for name, value in config.items()}
    return record | {"config": asdict(TrainingConfig()) | config}


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


def _processor() -> str:
    """The processor's model, as exactly as the system tells; a virtual one's name may be short."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in entries}
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts]
    return ", ".join([facts.get("model name", platform.machine()), *numbers])
