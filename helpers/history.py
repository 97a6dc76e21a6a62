"""What a run leaves behind: its history epoch by epoch, and the environment it ran in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
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
    status: "interrupted" until the last epoch is over; then "finished" or "early stopping"; or, of
        the study's runs, "diverged", if a loss was no longer finite.
    config: the TrainingConfig as a dict.
    environment: what environment() says; in the study's runs also the commit that trained them.
    epochs: a record per complete epoch: mean losses, accuracies in percent (train_: while it
        trains, with dropout and augmentation), the last learning_rate, seconds with evaluation.
    misclassified: index and prediction of every test image that the last network gets wrong.
    clean_train: that network's "loss" and "accuracy" (percent) on the training images as they are,
        in evaluation mode, if it was measured.
    code, weights: what checkpoint.code_digest and checkpoint.weights_digest give.
    data: the SHA-256 of the images and labels it was trained and tested on.
    source: the text of the network file that defines the network, if one does.
    """

    network: str
    seed: int
    status: str = "interrupted"
    config: dict[str, str | int | float] = field(default_factory=dict)
    environment: dict[str, str | int] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    train_images: int | None = None  # per epoch; this and what follows is None in older files
    misclassified: list[list[int]] | None = None
    clean_train: dict[str, float] | None = None
    code: str | None = None
    weights: str | None = None
    data: str | None = None
    source: str | None = None

    def _accuracies(self) -> list[float]:
        if not self.epochs:
            raise ValueError(f"the history of {self.network} holds no complete epoch; train first.")
        return [record["test_accuracy"] for record in self.epochs]

    @property
    def final_accuracy(self) -> float:
        """Test accuracy of the last epoch run, percent: the accuracy this study reports."""
        return self._accuracies()[-1]

    def first_epoch_at(self, accuracy: float) -> int | None:
        """The first epoch, counted from 1, with at least this test accuracy (%), or None."""
        return next((e for e, a in enumerate(self._accuracies(), 1) if a >= accuracy), None)

    def last_line(self) -> str:
        """The last epoch in a line, as fit prints it."""
        r, number = self.epochs[-1], f"{len(self.epochs):2}/{self.config['epochs']}"
        return (
            f"epoch {number}  train loss {r['train_loss']:.4f}, {r['train_accuracy']:5.2f}%  "
            f"test loss {r['test_loss']:.4f}, {r['test_accuracy']:5.2f}%  "
            f"lr {r['learning_rate']:.0e}  {r['seconds']:.1f} s"
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all; ValueError if interrupted, OSError if it fails."""
        if self.status == "interrupted":
            advice = f"{path} is for a complete one: call fit again to finish it."
            run = f"this run of {self.network} was interrupted after {len(self.epochs)} epochs"
            raise ValueError(f"{run}, and {advice}")
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history back; raises ValueError if the file does not hold one."""
        try:
            history = cls(**translate(json.loads(read_file(path))))
            if history.status != "diverged" and not 0 <= history.final_accuracy <= 100:
                raise ValueError(f"its final accuracy is {history.final_accuracy} %")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            reason = f"{path} holds no training history ({error})"
            raise ValueError(f"{reason}; move it away and run again.") from error
        return history


# Files of before November 2026 name a variant and, in the config, a setting: see translate.
OLD_AUGMENTATIONS = {"from the page": "page", "as run": "original"}
OLD_CONFIG_NAMES = {"watch": "monitor", "warm_up": "pct_start"}


def old_network_name(setting: str, variant: str) -> str:
    """The name in models.NETWORKS of what files call a variant in a setting."""
    if setting == "as run":
        return f"original_{'final' if variant == 'v2_bn' else variant}"
    return "half" if variant == "three_blocks" else variant


def translate(record: dict) -> dict:
    """A record as this version writes it, of one that any version wrote.

    Fields of the config that were not there yet get their defaults.
    """
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
    packages, instructions = {}, torch.backends.cpu.get_cpu_capability()
    for name in ("torch", "torchvision", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        **packages,
        "machine": f"{platform.system()} {platform.machine()} {instructions}",
        "processor": _processor(),
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "the processor's"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's model, as exactly as the system tells; a virtual one's name may be short."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(re.findall(r"(?m)^(model name|cpu family|model|stepping)\s*: (.*)$", first))
    name = facts.pop("model name", platform.machine())
    return ", ".join([name, *(f"{key} {facts[key]}" for key in sorted(facts))])
