"""99.4 % sooner: one-cycle settings compared on held-out training images, then the recipe's runs.

The published protocol gets there once its learning rate falls. Here the schedule is another, and
all else that is chosen is chosen without a look at the test set: python -m study grid trains every
setting of GRID on 50,000 training images and compares them on the other 10,000. RECIPE is what the
rule picks; python -m study goal trains it with ten seeds on all 60,000, for each of LENGTHS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure

from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from models import GOAL, VARIANTS, count_parameters
from study import figures
from study.analysis import epochs_to
from study.figures import DPI, GoalPoint
from study.report import histories, markdown, passes, share, with_interval
from study.runs import FOLDERS, SEEDS, load_runs, run
from study.statistics import estimate

GRID_RUNS = Path("results", "grid")
GOAL_RUNS = Path("results", "goal")
RECIPE_PAGE = Path("docs", "recipe.md")
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
    GoalPoint("sagarigrandhi/EVA4, S5/Assignment_5_F7.ipynb", 15, 9_994, 99.60),
    GoalPoint("piygr/s6erav1, README.md and S6.ipynb", 20, 18_594, 99.58),
    GoalPoint("aakashvardhan/s6-backprop, README.md", 19, 19_866, 99.58),
    GoalPoint("vinaysupermario/Assignment-6, README.md", 20, 12_100, 99.57),
    GoalPoint("dine1717/ERA2, Session7/README.md", 15, 8_172, 99.57),
    GoalPoint("dine1717/EV8, Session4", 15, 8_172, 99.49),
    GoalPoint("vivek-a81/EVA6, Session5/README.md", 15, 7_496, 99.56),
    GoalPoint("dine1717/ERA2, Session7, step 6", 15, 6_750, 99.50),
)


# --- the choice -----------------------------------------------------------------------------------


def grid(jobs: int | None = None) -> None:
    """Train what is missing of the grid's runs and write docs/recipe.md.

    jobs: as for run, which raises what this raises.
    """
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
    write_atomically(RECIPE_PAGE, choice_page(grid_runs()).encode())


def grid_runs() -> dict[Setting, list[History]]:
    """The grid's runs, by seed. Raises ValueError if one is missing."""
    found = {setting: list(load_runs(setting.folder).values()) for setting in GRID}
    missing = [s.folder for s, runs in found.items() if len(runs) != len(GRID_SEEDS)]
    if missing:
        raise ValueError(
            f"{missing[0]} does not hold {len(GRID_SEEDS)} runs: python -m study grid trains what "
            "is missing."
        )
    return found


def _held_out(runs: Sequence[History]) -> tuple[float, float]:
    """Accuracy (%) and loss on the held-out images after the last epoch, means over runs."""
    return fmean(h.final_accuracy for h in runs), fmean(h.epochs[-1]["test_loss"] for h in runs)


def ranked(found: Mapping[Setting, Sequence[History]]) -> list[Setting]:
    """The settings, best first: by mean held-out accuracy, and equal ones by the lower loss."""

    def rank(setting: Setting) -> tuple[float, float]:
        accuracy, loss = _held_out(found[setting])
        return -round(accuracy, 6), loss

    return sorted(found, key=rank)


def choice_page(found: Mapping[Setting, Sequence[History]]) -> str:
    """docs/recipe.md: the rule, every setting's held-out accuracy and loss, and the choice."""
    rows = []
    for setting in ranked(found):
        accuracy, loss = _held_out(found[setting])
        mark = "" if rows else "**"
        cells = [f"{mark}{setting.variant}{mark}", f"{setting.maximum:g}", f"{setting.warm_up:g}"]
        runs = " ".join(f"{h.final_accuracy:.2f}" for h in found[setting])
        rows.append([*cells, f"{setting.batch_size}", f"{accuracy:.3f}", runs, f"{loss:.4f}"])
    head = ["variant", "highest rate", "warm-up", "batch", "accuracy, %", "its runs", "loss"]
    return f"""# How the one-cycle recipe was chosen

Written by `python -m study grid`. Each of {len(GRID)} settings was trained for {LENGTHS[0]} epochs
on the first 50,000 training images, with seeds {" and ".join(map(str, GRID_SEEDS))}, and measured
on the other 10,000 after its last epoch; the test set was not used. The rule, fixed before: the
highest mean accuracy, and of equal ones the lowest loss. It picks the setting in bold.

{markdown(head, rows)}
"""


# --- the recipe's runs ----------------------------------------------------------------------------


def goal(jobs: int | None = None) -> None:
    """Train what is missing of the recipe's runs; write results/goal/goal.md and its figure.

    jobs: as for run, which raises what this raises.
    """
    for epochs in LENGTHS:
        print(f"the recipe, {epochs} epochs")
        config = RECIPE.config(epochs)
        run([RECIPE.variant], SEEDS, GOAL_RUNS / f"{epochs}", jobs, config=config)
    groups = goal_runs()
    write_atomically(GOAL_RUNS / "goal.md", goal_page(groups).encode())
    write_atomically(GOAL_RUNS / "goal.png", goal_figure(groups).png(DPI))


def goal_runs() -> dict[str, list[History]]:
    """The recipe's runs of each length, and BASELINE's of the study, by name.

    Raises ValueError if one of them has not a run for each of SEEDS.
    """
    groups = {
        f"recipe, {epochs} epochs": histories(load_runs(GOAL_RUNS / f"{epochs}"), RECIPE.variant)
        for epochs in LENGTHS
    }
    groups[f"{BASELINE}, published protocol"] = histories(
        load_runs(FOLDERS["from the page"]), BASELINE
    )
    for name, runs in groups.items():
        if [history.seed for history in runs] != list(SEEDS):
            raise ValueError(
                f"{name}: expected a run for each of the seeds {SEEDS[0]} to {SEEDS[-1]}; "
                "python -m study goal and python -m study run train what is missing."
            )
    return groups


def goal_table(groups: Mapping[str, Sequence[History]]) -> str:
    """How accurate each group of runs is and how soon, in Markdown: means with 95 % intervals."""

    def means(measure: Callable[[History], float], form: str) -> list[str]:
        return [
            with_interval(estimate([measure(run) for run in of]), form.format)
            for of in groups.values()
        ]

    rows = [
        ["final test accuracy, %", *means(lambda h: h.final_accuracy, "{:.3f}")],
        [f"runs over {GOAL} %", *(share(map(passes, runs)) for runs in groups.values())],
        ["first epoch at 99 %", *means(epochs_to(99), "{:.1f}")],
        [f"first epoch at {GOAL} %", *means(epochs_to(GOAL), "{:.1f}")],
    ]
    return markdown(["", *groups], rows)


def goal_figure(groups: Mapping[str, Sequence[History]]) -> Figure:
    """The groups' test accuracies against epochs and parameters, beside those of PEERS."""
    points = []
    for name, runs in groups.items():
        parameters = count_parameters(VARIANTS[runs[0].variant].network())
        ends = estimate([history.final_accuracy for history in runs]).ends()
        points.append(GoalPoint(name, runs[0].config["epochs"], parameters, *ends))
    return figures.goal(points, PEERS)


def goal_page(groups: Mapping[str, Sequence[History]]) -> str:
    """results/goal/goal.md: the recipe's runs beside the published protocol's and PEERS."""
    peers = [[p.name, f"{p.parameters:,}", f"{p.epochs}", f"{p.accuracy:.2f}"] for p in PEERS]
    return f"""# {GOAL} % sooner

Written by `python -m study goal`. The recipe is {RECIPE.variant} with a one-cycle learning rate
up to {RECIPE.maximum:g}, a warm-up of {RECIPE.warm_up:g} of the steps and batches of
{RECIPE.batch_size}, [chosen](../../docs/recipe.md) on training images. Means over seeds
{SEEDS[0]} to {SEEDS[-1]} with 95 % intervals, shares in % with Wilson's. An epoch never reached
counts as one after the last.

{goal_table(groups)}

![Test accuracy against epochs and parameters, beside other networks](goal.png)

The others, one run each, after the last epoch:

{markdown(["where", "parameters", "epochs", "test accuracy, %"], peers)}
"""
