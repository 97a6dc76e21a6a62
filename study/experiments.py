"""What is trained: an experiment is networks, a config and seeds; its runs are files in a folder.

python -m study run NAME trains what is missing of an experiment. Finished experiments whose code is
gone (the pilot, the first one-cycle recipe, rounds) are folders of results/ and rows of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from helpers.config import TrainingConfig
from helpers.history import TRAIN_IMAGES
from models import ORIGINAL, PAGE

RESULTS = Path("results")
SEEDS = tuple(range(47, 57))  # 42 to 46 were the pilot's


@dataclass(frozen=True)
class Experiment:
    """Each network is trained by the config with each seed, on all 60,000 training images.

    networks: names in models.NETWORKS.
    config: its seed does not matter.
    folder: of the runs, NETWORK-SEED.json and the weights beside it.
    text: of the network file that defines the network, for one that is not in models.NETWORKS.
    """

    networks: tuple[str, ...]
    config: TrainingConfig
    folder: Path
    seeds: tuple[int, ...] = SEEDS
    text: str = ""


def root_of(images: int, validation: bool = False) -> Path:
    """Where the folders of runs on so many training images are: trials are under build."""
    root = RESULTS if images == TRAIN_IMAGES else Path("build", f"trial-{images}")
    return root / "validation" if validation else root


# The fast road's; docs/recipe.md says how it was chosen. Nothing stops a run early.
FAST = TrainingConfig(
    batch_size=128,
    learning_rate=0.02,
    schedule="one-cycle",
    pct_start=0.25,
    cycle_momentum=True,
    label_smoothing=0.05,
    plain_epochs=1,
    bfloat16=True,
)
FAST_EPOCHS = 8  # the fewest whose mean is over 99.4% with its whole 95% interval

EXPERIMENTS = {
    "page": Experiment(tuple(PAGE), TrainingConfig(), RESULTS / "runs"),
    "original": Experiment(
        tuple(ORIGINAL),
        TrainingConfig(monitor="test_accuracy", augmentation="original"),
        RESULTS / "as_run",
    ),
    **{
        "fast" if epochs == FAST_EPOCHS else f"fast-{epochs}": Experiment(
            ("fast",),
            replace(FAST, epochs=epochs, patience=epochs),
            RESULTS / "fast" / f"{epochs}",
        )
        for epochs in range(2, 9)
    },
}
