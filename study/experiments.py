"""What is trained: an experiment is networks, a config and seeds; its runs are files in a folder.

python -m study run NAME trains what is missing of an experiment. Finished experiments whose code is
gone (the pilot, the recipe's rounds, its teachers) are folders of results/ and rows of the tables.
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
    validation: whether held-out writers of the training set take the test set's place.
    """

    networks: tuple[str, ...]
    config: TrainingConfig
    folder: Path
    seeds: tuple[int, ...] = SEEDS
    text: str = ""
    validation: bool = False


def root_of(images: int) -> Path:
    """Where the folders of the runs on so many training images are: trials are under build."""
    return RESULTS if images == TRAIN_IMAGES else Path("build", f"trial-{images}")


# The one-cycle recipe: docs/recipe.md says how it was chosen. Nothing stops a run early.
RECIPE = TrainingConfig(batch_size=64, learning_rate=0.005, schedule="one-cycle")
RECIPE_EPOCHS = (6, 8, 10, 20)

# The fast road's; the rounds chose it: docs/recipe.md.
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
ROUND = {"deep": 4, "even": 4, "wide": 3, "early": 5, "slim": 5, "low": 6}  # epochs
WINNER = "low"
CHANGES = {  # the second round's, and those that only tell what each part gives
    "batches_of_256": {"batch_size": 256, "learning_rate": 0.03},
    "narrow": {"augmentation": "narrow"},
    "augmented_to_the_end": {"plain_epochs": 0},
    "peak_0.01": {"learning_rate": 0.01},
    "no_smoothing": {"label_smoothing": 0.0},
    "constant_beta1": {"cycle_momentum": False},
    "float32": {"bfloat16": False},
}

EXPERIMENTS = {
    "page": Experiment(tuple(PAGE), TrainingConfig(), RESULTS / "runs"),
    "original": Experiment(
        tuple(ORIGINAL),
        TrainingConfig(monitor="test_accuracy", augmentation="original"),
        RESULTS / "as_run",
    ),
    **{
        f"recipe-{epochs}": Experiment(
            ("original_none_bn",),
            replace(RECIPE, epochs=epochs, patience=epochs),
            RESULTS / "recipe" / f"{epochs}",
        )
        for epochs in RECIPE_EPOCHS
    },
    "recipe-half": Experiment(
        ("half",), replace(RECIPE, epochs=15, patience=15), RESULTS / "recipe" / "half"
    ),
    **{
        f"rounds/fast-{name}": Experiment(
            (name,),
            replace(FAST, epochs=epochs, patience=epochs),
            RESULTS / "rounds" / f"fast-{name}",
            (1, 2, 3, 4),
            validation=True,
        )
        for name, epochs in ROUND.items()
    },
    **{
        f"rounds/fast-{name}": Experiment(
            (WINNER,),
            replace(FAST, epochs=ROUND[WINNER], patience=ROUND[WINNER], **changes),
            RESULTS / "rounds" / f"fast-{name}",
            (1, 2, 3, 4),
            validation=True,
        )
        for name, changes in CHANGES.items()
    },
}
