"""The one-cycle recipe's first choice: a grid of settings compared on held-out training images.

python -m study grid trains every setting of GRID on 50,000 training images, compares them on the
other 10,000, and writes docs/recipe.md. It separated nothing: rounds.py takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from study.rounds import IMAGES, accuracy, loss
from study.runs import run, runs_by
from study.statistics import ALPHA
from study.tables import markdown

GRID_RUNS, GRID_PAGE = Path("results", "grid"), Path("docs", "recipe.md")
GRID_SEEDS = (42, 43)  # none of the recipe's
EPOCHS = 6


class Setting(NamedTuple):
    """What the grid varies."""

    variant: str
    maximum: float  # of the learning rate
    warm_up: float
    batch_size: int

    def config(self, epochs: int, seed: int = 42) -> TrainingConfig:
        """A run of so many epochs, all of them: early stopping would watch the test loss."""
        return TrainingConfig(
            seed,
            epochs,
            self.batch_size,
            self.maximum,
            patience=epochs,
            schedule="one-cycle",
            warm_up=self.warm_up,
        )

    @property
    def folder(self) -> Path:
        """Where the grid's runs of it are."""
        return GRID_RUNS / "-".join(map(str, self))


GRID = tuple(
    Setting(*values)
    for values in product(("none_bn", "v2_bn"), (0.003, 0.005, 0.01), (0.15, 0.3), (32, 64))
)


def grid(jobs: int | None = None) -> None:
    """Train what is missing of the grid's runs and write docs/recipe.md; jobs: as for run."""
    for number, setting in enumerate(GRID, 1):
        print(f"setting {number} of {len(GRID)}: {setting.folder.name}")
        run(
            [setting.variant],
            GRID_SEEDS,
            setting.folder,
            jobs,
            config=setting.config(EPOCHS),
            train_images=IMAGES,
            held_out=True,
        )
    write_atomically(GRID_PAGE, grid_page(grid_runs()).encode())


def grid_runs() -> dict[Setting, list[History]]:
    """The grid's runs, by seed. Raises ValueError if one is missing."""
    return {s: runs_by(s.folder, s.variant, s.config(EPOCHS), GRID_SEEDS, "grid") for s in GRID}


def ranked(found: Mapping[Setting, Sequence[History]]) -> list[tuple[Setting, float, float]]:
    """The settings with their mean held-out accuracy (%) and loss after the last epoch, best first.

    The most accurate is best, and of equally accurate ones that with the lowest loss.
    """
    rows = []
    for setting, runs in found.items():
        rows.append((setting, accuracy(runs), loss(runs)))
    return sorted(rows, key=lambda row: (-row[1], row[2]))


def grid_page(found: Mapping[Setting, Sequence[History]]) -> str:
    """docs/recipe.md: the rule, every setting's held-out accuracy and loss, and the choice."""
    test = stats.f_oneway(*([h.final_accuracy for h in runs] for runs in found.values()))
    rows = []
    for setting, mean, mean_loss in ranked(found):
        variant = setting.variant if rows else f"**{setting.variant}**"
        runs = " ".join(f"{h.final_accuracy:.2f}" for h in found[setting])
        cells = [variant, *(f"{value:g}" for value in setting[1:])]
        rows.append([*cells, f"{mean:.3f}", runs, f"{mean_loss:.4f}"])
    head = ["variant", "highest rate", "warm-up", "batch", "accuracy, %", "its runs", "loss"]
    return f"""# How the one-cycle recipe was chosen

Written by `python -m study grid`. Each of {len(GRID)} settings was trained for {EPOCHS} epochs
on the first 50,000 training images, with seeds {" and ".join(map(str, GRID_SEEDS))}, and measured
on the other 10,000 after its last epoch. The rule, fixed before: the highest mean accuracy, and of
equal ones the lowest loss. It picks the setting in bold.

The test set had no part in this ranking, but it had one in what was ranked: the grid was centered
on prototypes that had been scored on the test set. That the settings differ in accuracy at all is
{"" if test.pvalue < ALPHA else "not "}shown by these runs: an analysis of variance has
F = {test.statistic:.2f}, p = {test.pvalue:.2f}.

{markdown(head, rows)}
"""
