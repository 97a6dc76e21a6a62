"""The one-cycle recipe's choice: many settings on held-out training images, in rounds that narrow.

python -m study rounds trains each on the first 50,000 training images, compares them on the other
10,000 by the rules of PROTOCOL.md, and writes docs/recipe.md. The test set has no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import History
from study.runs import run, runs_by, weights_of
from study.statistics import estimate
from study.tables import markdown, with_interval

FOLDER, PAGE = Path("results", "rounds"), Path("docs", "recipe.md")
IMAGES = 50_000  # that a run trains on; the other 10,000 of the training images are held out
EPOCHS = 8
# How many settings take part in each round, and the seeds that it adds: none of the recipe's.
ROUNDS = ((15, (21, 22)), (5, (23, 24, 25, 26)), (3, (27, 28, 29, 30, 31, 32, 33, 34)))
# The trial of teachers, who are the winner's networks of some seeds of the last round: their share
# of every label, and the seeds and epochs of those they teach.
TEACHERS, SHARES = (27, 28, 29, 30), {"alone": 0.0, "taught": 0.7}
PUPILS, LONG = (21, 22, 23, 24), 20


class Candidate(NamedTuple):
    """What the rounds vary."""

    variant: str = "three_pools"
    setting: str = "recipe"
    peak: float = 0.005  # the highest learning rate
    batch_size: int = 64
    augmentation: str = "from the page"
    decay: float = 0.0  # AdamW's, by which beta2 is 0.99
    plain: bool = False  # the last epoch without augmentation

    def config(self, epochs: int, seed: int = 42, distillation: float = 0.0) -> TrainingConfig:
        """A run of so many epochs, all of them: early stopping would watch the test loss."""
        return TrainingConfig(
            seed,
            epochs,
            self.batch_size,
            self.peak,
            self.decay,
            patience=epochs,
            schedule="one-cycle",
            setting=self.setting,
            beta2=0.99 if self.decay else 0.999,
            augmentation=self.augmentation if self.augmentation != self.setting else "",
            plain_from=epochs if self.plain else 0,
            distillation=distillation,
        )


THREE, TWO = Candidate(), Candidate("two_pools")
CANDIDATES = {
    "three pools": THREE,
    "four pools": Candidate("none_bn", "from the page"),  # the recipe of the grid before
    "the network as run": Candidate("none_bn", "as run"),
    "batches of 32": THREE._replace(batch_size=32),
    "peak 0.003": THREE._replace(peak=0.003),
    "peak 0.01": THREE._replace(peak=0.01),
    "AdamW, decay 0.05": THREE._replace(decay=0.05),
    "wide augmentation": THREE._replace(augmentation="wide"),
    "narrow augmentation": THREE._replace(augmentation="narrow"),
    "last epoch plain": THREE._replace(plain=True),
    "two pools": TWO,
    "two pools, batches of 32": TWO._replace(batch_size=32),
    "two pools, peak 0.01": TWO._replace(peak=0.01),
    "two pools, narrow augmentation": TWO._replace(augmentation="narrow"),
    "two pools, last epoch plain": TWO._replace(plain=True),
}
Standing = Mapping[str, Sequence[History]]  # runs by what they are of


def rounds(jobs: int | None = None) -> None:
    """Train what is missing of the rounds and of the trial, and write docs/recipe.md.

    jobs: as for run.
    """

    def train(folder: Path, variant: str, config: TrainingConfig, seeds: Sequence[int], **more):
        print(f"{folder}: {len(seeds)} seeds")
        run([variant], seeds, folder, jobs, None, config, IMAGES, held_out=True, **more)

    write_atomically(PAGE, page(*standings(train)).encode())


def standings(train: Callable = lambda *_, **__: None) -> tuple[list[Standing], Standing]:
    """The candidates' runs after each round, and the winner's in the trial.

    train: called with the folder, the variant, the config and the seeds of runs before they are
        looked at, and in the trial with the teachers.

    Raises ValueError if a run is missing or by another config.
    """

    def runs_of(folder, variant, config, seeds, **teachers) -> list[History]:
        train(folder, variant, config, seeds, **teachers)
        return runs_by(folder, variant, config, seeds, "rounds")

    names, seeds, after = list(CANDIDATES), (), []
    for count, more in ROUNDS:
        seeds += more
        found = {}
        for name in names[:count]:
            candidate = CANDIDATES[name]
            found[name] = runs_of(folder(name), candidate.variant, candidate.config(EPOCHS), seeds)
        names = sorted(found, key=lambda name, of=found: (-accuracy(of[name]), loss(of[name])))
        after.append({name: found[name] for name in names})
    winner = CANDIDATES[names[0]]
    networks = weights_of(folder(names[0]), winner.variant, TEACHERS)
    trial = {}
    for name, share in SHARES.items():
        config = winner.config(LONG, distillation=share)
        teachers = networks if share else ()
        trial[name] = runs_of(folder(name), winner.variant, config, PUPILS, teachers=teachers)
    return after, trial


def folder(name: str) -> Path:
    """Where the runs of a candidate, or of a part of the trial, are."""
    return FOLDER / name.replace(", ", "-").replace(" ", "_")


def accuracy(runs: Sequence[History]) -> float:
    """Their mean held-out accuracy after the last epoch, %, without what sums leave over."""
    return round(fmean(run.final_accuracy for run in runs), 6)


def loss(runs: Sequence[History]) -> float:
    """Their mean held-out loss after the last epoch."""
    return fmean(run.epochs[-1]["test_loss"] for run in runs)


def page(after: Sequence[Standing], trial: Standing) -> str:
    """docs/recipe.md: the rule, what came of every round and of the trial, the choice."""
    results = "\n\n".join(table(f"round {n}", runs) for n, runs in enumerate(after, 1))
    taught = accuracy(trial["taught"]) > accuracy(trial["alone"])
    (best, first), (second, others), *_ = after[-1].items()
    lead, by_teachers = ahead(first, others), ahead(trial["taught"], trial["alone"])
    return f"""# How the one-cycle recipe was chosen

Written by `python -m study rounds`, by the rules of [the protocol](../study/PROTOCOL.md), which
were fixed before the first of these runs. Every run trains on the first {IMAGES:,} training images,
and is measured on the other 10,000 after its last epoch. The test set had no part in it, but
earlier prototypes, which suggested the candidates, had been scored on it.

## The candidates

{markdown(["", *Candidate._fields], [[name, *map(str, c)] for name, c in CANDIDATES.items()])}

`peak` is the highest learning rate, `decay` AdamW's, and `plain` whether the last epoch goes
without augmentation; [models.py](../models.py) has the variants, and
[DataPipeline.py](../DataPipeline.py) the augmentations.

## The rounds

{EPOCHS} epochs each. The best by their mean over all seeds so far go on. The means of those that
do are favored by that choice, most in the first round.

{results}

So the recipe is **{best}**. Its lead over the second, {second}, seed by seed: {lead}.

## Teachers

The recipe for {LONG} epochs, alone and with {SHARES["taught"]:g} of every label from the mean of
{len(TEACHERS)} networks of its own of the last round, which see the same augmented images.

{table(f"{LONG} epochs", trial)}

Taught minus alone, seed by seed: {by_teachers}.

So the recipe is trained {"with teachers, too" if taught else "without teachers only"}.
"""


def ahead(runs: Sequence[History], others: Sequence[History]) -> str:
    """By how much, seed by seed, and whether that can be told from nothing."""
    pairs = zip(runs, others, strict=True)
    lead = estimate([a.final_accuracy - b.final_accuracy for a, b in pairs])
    low, high = lead.interval()
    told = "" if low > 0 or high < 0 else ", which these seeds cannot tell from nothing"
    return f"{with_interval(lead, '{:+.3f}'.format)} points{told}"


def table(title: str, standing: Standing) -> str:
    """Mean held-out accuracies, their range and the mean loss, in Markdown.

    The means have intervals where there are more than two seeds.
    """
    rows = []
    for name, runs in standing.items():
        ends = [run.final_accuracy for run in runs]
        span = f"{min(ends):.2f} to {max(ends):.2f}"
        mean = f"{fmean(ends):.3f}"
        if len(ends) > 2:
            mean = with_interval(estimate(ends), "{:.3f}".format)
        rows.append([name, f"{len(runs)}", mean, span, f"{loss(runs):.4f}"])
    return markdown([title, "seeds", "accuracy, % [95 %]", "runs", "loss"], rows)
