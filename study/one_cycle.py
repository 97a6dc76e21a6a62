"""99.4 % sooner: one-cycle settings compared on held-out training images, then the recipe's runs.

python -m study grid trains every setting of GRID on 50,000 training images, compares them on the
other 10,000, and writes docs/recipe.md. RECIPE is what the rule there picks: python -m study recipe
trains it with ten seeds on all 60,000 images, for each of LENGTHS. What comes of it is shown in
MNIST_Classifier_OneCycle.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure
from scipy import stats

from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from models import GOAL, VARIANTS, count_parameters
from study import figures
from study.analysis import passes
from study.claims import epochs_to
from study.runs import FOLDERS, SEEDS, histories, load_runs, run
from study.statistics import ALPHA, estimate
from study.tables import markdown, share, with_interval

GRID_RUNS, RECIPE_RUNS = Path("results", "grid"), Path("results", "recipe")
GRID_PAGE = Path("docs", "recipe.md")
GRID_SEEDS = (42, 43)  # none of the recipe's
LENGTHS = (6, 20)  # epochs
BASELINE = "final"  # under the published protocol: the published variant that passes the goal


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
# The first of ranked, on the committed runs of the grid: docs/recipe.md.
RECIPE = Setting("none_bn", 0.005, 0.3, 64)

# Public networks under 20,000 parameters that pass the goal: their last epoch's test accuracy, from
# one run each, as the whole log or table in that file of that GitHub repository says.
PEERS = (
    figures.Point("sagarigrandhi/EVA4, S5/Assignment_5_F7.ipynb", 15, 9_994, 99.60),
    figures.Point("piygr/s6erav1, README.md and S6.ipynb", 20, 18_594, 99.58),
    figures.Point("aakashvardhan/s6-backprop, README.md", 19, 19_866, 99.58),
    figures.Point("vinaysupermario/Assignment-6, README.md", 20, 12_100, 99.57),
    figures.Point("dine1717/ERA2, Session7/README.md", 15, 8_172, 99.57),
    figures.Point("dine1717/EV8, Session4", 15, 8_172, 99.49),
    figures.Point("vivek-a81/EVA6, Session5/README.md", 15, 7_496, 99.56),
    figures.Point("dine1717/ERA2, Session7, step 6", 15, 6_750, 99.50),
)


def _runs(
    folder: Path, variant: str, config: TrainingConfig, seeds: Sequence[int], command: str
) -> list[History]:
    """A variant's runs in a folder, by seed; ValueError unless they are by config, a run a seed."""
    runs = histories(load_runs(folder), variant)
    if [TrainingConfig(**run.config) for run in runs] != [replace(config, seed=s) for s in seeds]:
        raise ValueError(
            f"{folder}: expected runs of {variant} by {config}, one for each of the seeds "
            f"{', '.join(map(str, seeds))} and no others; python -m study {command} trains what is "
            "missing."
        )
    return runs


# --- the choice -----------------------------------------------------------------------------------


def grid(jobs: int | None = None) -> None:
    """Train what is missing of the grid's runs and write docs/recipe.md; jobs: as for run."""
    for number, setting in enumerate(GRID, 1):
        print(f"setting {number} of {len(GRID)}: {setting.folder.name}")
        run(
            [setting.variant],
            GRID_SEEDS,
            setting.folder,
            jobs,
            config=setting.config(LENGTHS[0]),
            train_images=50_000,
            held_out=True,
        )
    write_atomically(GRID_PAGE, grid_page(grid_runs()).encode())


def grid_runs() -> dict[Setting, list[History]]:
    """The grid's runs, by seed. Raises ValueError if one is missing."""
    return {s: _runs(s.folder, s.variant, s.config(LENGTHS[0]), GRID_SEEDS, "grid") for s in GRID}


def ranked(found: Mapping[Setting, Sequence[History]]) -> list[tuple[Setting, float, float]]:
    """The settings with their mean held-out accuracy (%) and loss after the last epoch, best first.

    The most accurate is best, and of equally accurate ones that with the lowest loss.
    """
    rows = []
    for setting, runs in found.items():
        accuracy = round(fmean(h.final_accuracy for h in runs), 6)  # without what sums leave over
        rows.append((setting, accuracy, fmean(h.epochs[-1]["test_loss"] for h in runs)))
    return sorted(rows, key=lambda row: (-row[1], row[2]))


def grid_page(found: Mapping[Setting, Sequence[History]]) -> str:
    """docs/recipe.md: the rule, every setting's held-out accuracy and loss, and the choice."""
    test = stats.f_oneway(*([h.final_accuracy for h in runs] for runs in found.values()))
    rows = []
    for setting, accuracy, loss in ranked(found):
        variant = setting.variant if rows else f"**{setting.variant}**"
        runs = " ".join(f"{h.final_accuracy:.2f}" for h in found[setting])
        cells = [variant, *(f"{value:g}" for value in setting[1:])]
        rows.append([*cells, f"{accuracy:.3f}", runs, f"{loss:.4f}"])
    head = ["variant", "highest rate", "warm-up", "batch", "accuracy, %", "its runs", "loss"]
    return f"""# How the one-cycle recipe was chosen

Written by `python -m study grid`. Each of {len(GRID)} settings was trained for {LENGTHS[0]} epochs
on the first 50,000 training images, with seeds {" and ".join(map(str, GRID_SEEDS))}, and measured
on the other 10,000 after its last epoch. The rule, fixed before: the highest mean accuracy, and of
equal ones the lowest loss. It picks the setting in bold.

The test set had no part in this ranking, but it had one in what was ranked: the grid was centered
on prototypes that had been scored on the test set. That the settings differ in accuracy at all is
{"" if test.pvalue < ALPHA else "not "}shown by these runs: an analysis of variance has
F = {test.statistic:.2f}, p = {test.pvalue:.2f}.

{markdown(head, rows)}
"""


# --- the recipe's runs ----------------------------------------------------------------------------


def recipe(jobs: int | None = None) -> None:
    """Train what is missing of the recipe's runs and draw recipe.png beside; jobs: as for run."""
    for epochs in LENGTHS:
        print(f"the recipe, {epochs} epochs")
        folder = RECIPE_RUNS / f"{epochs}"
        run([RECIPE.variant], SEEDS, folder, jobs, config=RECIPE.config(epochs))
    figure = recipe_figure(recipe_runs())
    write_atomically(RECIPE_RUNS / "recipe.png", figure.png(figures.DPI))


def recipe_runs() -> dict[str, list[History]]:
    """The recipe's runs of each length, and BASELINE's of the study, by name.

    Raises ValueError unless each has a run by its config for each of SEEDS.
    """
    groups = {}
    for epochs in LENGTHS:
        folder, config = RECIPE_RUNS / f"{epochs}", RECIPE.config(epochs)
        groups[f"recipe, {epochs} epochs"] = _runs(folder, RECIPE.variant, config, SEEDS, "recipe")
    groups[f"{BASELINE}, published protocol"] = _runs(
        FOLDERS["from the page"], BASELINE, TrainingConfig(), SEEDS, "run"
    )
    return groups


def recipe_table(groups: Mapping[str, Sequence[History]]) -> str:
    """How accurate each group of runs is and how soon, in Markdown: means with 95 % intervals."""
    measures = {
        "final test accuracy, %": (lambda h: h.final_accuracy, "{:.3f}"),
        "first epoch at 99 %": (epochs_to(99), "{:.1f}"),
        f"first epoch at {GOAL} %": (epochs_to(GOAL), "{:.1f}"),
    }
    rows = [
        [name, *(with_interval(estimate([of(h) for h in g]), form.format) for g in groups.values())]
        for name, (of, form) in measures.items()
    ]
    rows.insert(1, [f"runs over {GOAL} %", *(share(map(passes, g)) for g in groups.values())])
    return markdown(["", *groups], rows)


def recipe_figure(groups: Mapping[str, Sequence[History]]) -> Figure:
    """The groups' test accuracies against epochs and parameters, beside those of PEERS."""
    points = []
    for name, runs in groups.items():
        parameters = count_parameters(VARIANTS[runs[0].variant].network())
        ends = estimate([history.final_accuracy for history in runs]).ends()
        points.append(figures.Point(name, runs[0].config["epochs"], parameters, *ends))
    return figures.recipe(points, PEERS)
