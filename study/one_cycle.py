"""The one-cycle recipe's runs: how accurate after how many epochs, and when past the goal for sure.

python -m study recipe trains the recipe with ten seeds on all 60,000 training images, for each of
LENGTHS, and a network of half the size by the same recipe. It measures them on shifted test images,
too, and draws the figure. What comes of it is shown in MNIST_Classifier_OneCycle.ipynb. rounds.py
has how a recipe is chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from DataPipeline import TEST_CHUNK, load_mnist, normalize
from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from helpers.weights import load_weights
from models import GOAL, SETTINGS, count_parameters
from study import figures
from study.analysis import answers, passes, surely_passes, vote
from study.claims import epochs_to
from study.rounds import CANDIDATES, EPOCHS, SHARES
from study.runs import FOLDERS, SEEDS, run, runs_by, weights_of
from study.statistics import estimate
from study.tables import markdown, share, with_interval

RUNS = Path("results", "recipe")
TEACHER_RUNS, VIEWS = RUNS / "teachers", RUNS / "views.json"
RECIPE = CANDIDATES["the network as run"]  # docs/recipe.md
LENGTHS = (6, 8, 10, 20)  # epochs
TAUGHT = True  # whether the longest is trained with teachers, too
TEACHERS = (57, 58, 59, 60)  # the seeds of their networks
HALF = RECIPE._replace(variant="three_blocks", setting="recipe")  # under 10,000 parameters
HALF_LENGTH = 15  # epochs, as the best of PEERS of that size
BASELINE = "final"  # under the published protocol: the published variant that passes the goal

# Public networks under 20,000 parameters that pass the goal: their last epoch's test accuracy, from
# one run each, as the whole log or table in that file of that GitHub repository says.
PEERS = (
    figures.Point("sagarigrandhi/EVA4, S5/Assignment_5_F7.ipynb", 15, 9_994, 99.60),
    figures.Point("piygr/s6erav1, README.md and S6.ipynb", 20, 18_594, 99.58),
    figures.Point("aakashvardhan/s6-backprop, README.md", 19, 19_866, 99.58),
    figures.Point(
        "abdksyed/EVA4, 05_CodingFrenzy/EVA4_S5_Assignment_iter05.ipynb", 15, 8_464, 99.58
    ),
    figures.Point("vinaysupermario/Assignment-6, README.md", 20, 12_100, 99.57),
    figures.Point("m-shilpa/EVA4, Session 5/extras/Code 5-Final v1.ipynb", 15, 9_844, 99.57),
    figures.Point("dine1717/ERA2, Session7/README.md", 15, 8_172, 99.57),
    figures.Point("vivek-a81/EVA6, Session5/README.md", 15, 7_496, 99.56),
    figures.Point("abdksyed/EVA4, 04_FirstCNN_MNIST/Readme.md", 20, 19_122, 99.52),
    figures.Point("dine1717/ERA2, Session7, step 6", 15, 6_750, 99.50),
    figures.Point("dine1717/EV8, Session4", 15, 8_172, 99.49),
)


class Group(NamedTuple):
    """Runs of a variant by one config with each of SEEDS, and where they are.

    teachers: the files of the networks that taught them.
    """

    folder: Path
    variant: str
    config: TrainingConfig
    teachers: Sequence[Path] = ()


def groups() -> dict[str, Group]:
    """The recipe's runs by name: a group for each of LENGTHS, one more if TAUGHT, and HALF's."""
    variant = RECIPE.variant
    found = {
        f"recipe, {epochs} epochs": Group(RUNS / f"{epochs}", variant, RECIPE.config(epochs))
        for epochs in LENGTHS
    }
    if TAUGHT:
        longest = LENGTHS[-1]
        config = RECIPE.config(longest, distillation=SHARES["taught"])
        teachers = weights_of(TEACHER_RUNS, variant, TEACHERS)
        taught = Group(RUNS / "taught", variant, config, teachers)
        found[f"recipe, {longest} epochs, taught"] = taught
    half = Group(RUNS / "half", HALF.variant, HALF.config(HALF_LENGTH))
    found[f"half the size, {HALF_LENGTH} epochs"] = half
    return found


def recipe(jobs: int | None = None) -> None:
    """Train what is missing of the recipe's runs, and write views.json and recipe.png beside.

    jobs: as for run.
    """
    if TAUGHT:
        print("teachers")
        run([RECIPE.variant], TEACHERS, TEACHER_RUNS, jobs, config=RECIPE.config(EPOCHS))
    for name, (folder, variant, config, teachers) in groups().items():
        print(name)
        run([variant], SEEDS, folder, jobs, config=config, teachers=teachers)
    write_atomically(RUNS / "recipe.png", recipe_figure(recipe_runs()).png(figures.DPI))
    write_atomically(VIEWS, f"{json.dumps(measure_views(), indent=1)}\n".encode())


def recipe_runs() -> dict[str, list[History]]:
    """The recipe's runs of each length, and BASELINE's of the study, by name.

    Raises ValueError unless each has a run by its config for each of SEEDS.
    """
    found = {
        name: runs_by(of.folder, of.variant, of.config, SEEDS, "recipe")
        for name, of in groups().items()
    }
    folder = FOLDERS["from the page"]
    found[f"{BASELINE}, published protocol"] = runs_by(
        folder, BASELINE, TrainingConfig(), SEEDS, "run"
    )
    return found


def first_length(found: Mapping[str, Sequence[History]]) -> int | None:
    """The fewest of LENGTHS whose mean's 95 % interval lies above the goal; None if none's does."""
    for epochs in LENGTHS:
        if surely_passes([h.final_accuracy for h in found[f"recipe, {epochs} epochs"]]):
            return epochs
    return None


# --- five views -----------------------------------------------------------------------------------


def five_views(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """A network's probabilities, meaned over each image as it is and shifted one pixel each way.

    model: in evaluation mode on the images' device. images: uint8 [N, 1, 28, 28].

    Returns float32 [N, 10].
    """
    around, found = F.pad(images, (1, 1, 1, 1)), []
    with torch.no_grad():
        for chunk in around.split(TEST_CHUNK):
            views = [
                normalize(chunk[..., y : y + 28, x : x + 28].float() / 255)
                for y, x in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
            ]
            found.append(torch.stack([model(view).softmax(1) for view in views]).mean(0))
    return torch.cat(found)


def measure_views() -> dict[str, list[float]]:
    """The accuracy (%) of each group's networks on five views of each test image, by seed.

    Raises what load_weights and load_mnist raise.
    """
    data, measured = load_mnist(), {}
    for name, group in groups().items():
        measured[name] = []
        for file in weights_of(group.folder, group.variant, SEEDS):
            right = five_views(load_weights(file), data.test_images).argmax(1) == data.test_labels
            measured[name].append(round(100 * right.double().mean().item(), 2))
    return measured


# --- table and figure -----------------------------------------------------------------------------


def recipe_table(
    found: Mapping[str, Sequence[History]], views: Mapping[str, Sequence[float]]
) -> str:
    """How accurate each group of runs is and how soon, in Markdown: means with 95 % intervals.

    found: as recipe_runs gives it. views: as measure_views does, and VIEWS holds it.
    """

    def mean(values: Iterable[float], form: str = "{:.3f}") -> str:
        return with_interval(estimate(list(values)), form.format)

    of = list(found.values())
    rows = [
        ["final test accuracy, %", *(mean(h.final_accuracy for h in runs) for runs in of)],
        [f"runs over {GOAL} %", *(share(map(passes, runs)) for runs in of)],
    ]
    for accuracy in (99, GOAL):
        epochs = (mean(map(epochs_to(accuracy), runs), "{:.1f}") for runs in of)
        rows.append([f"first epoch at {accuracy} %", *epochs])
    rows.append(["the ten voting, %", *(f"{vote(answers(runs)):.3f}" for runs in of)])
    shifted = (mean(views[name]) if name in views else "" for name in found)
    rows.append(["on five views, %", *shifted])
    return markdown(["", *found], rows)


def recipe_figure(found: Mapping[str, Sequence[History]]) -> Figure:
    """The groups' test accuracies against epochs and parameters, beside those of PEERS."""
    points = []
    for name, runs in found.items():
        variant = SETTINGS[runs[0].setting][runs[0].variant]
        parameters = count_parameters(variant.network())
        ends = estimate([history.final_accuracy for history in runs]).ends()
        of = re.sub(r", \d+ epochs", "", name)
        points.append(figures.Point(of, runs[0].config["epochs"], parameters, *ends))
    return figures.recipe(points, PEERS)
