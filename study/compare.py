"""python -m study compare: two networks on one screen: the difference, and a word for it."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from helpers.files import write_atomically
from helpers.history import TRAIN_IMAGES
from models import TARGET_ACCURACY
from study import figures
from study.experiments import EXPERIMENTS, root_of
from study.inference import ALPHA, estimate, welch
from study.network_file import load_network_file
from study.protocol import MEASURES
from study.table import Tables, load

MARGIN = MEASURES["final"].margin  # percentage points; smaller differences do not matter
LEAST = 3  # seeds, for a verdict
# Looks at so many seeds spend 5% between them: a Bonferroni split, valid whatever the dependence.
LOOKS = {5: 0.010, 10: 0.015, 20: 0.025}


class Verdict(NamedTuple):
    """What a look says; differences are percentage points, needed is None if it decides."""

    seeds: int
    alpha: float
    mean: float
    low: float
    high: float
    word: str
    needed: int | None


def look(one: np.ndarray, other: np.ndarray, alpha: float = ALPHA) -> Verdict:
    """The verdict on one - other: paired if they are equally many, else by Welch.

    one, other: final accuracies in percent, by seed.

    Raises ValueError for fewer than three values.
    """
    seeds = min(len(one), len(other))
    if seeds < LEAST:
        raise ValueError(f"there are {seeds} seeds to compare; a verdict takes {LEAST} or more.")
    paired = len(one) == len(other)
    difference = estimate(one - other) if paired else welch([one, other], [1, -1])
    (low, high), narrow = difference.interval(1 - alpha), difference.interval(1 - 2 * alpha)
    small, needed = max(map(abs, narrow)) < MARGIN, None
    if low > 0 or high < 0:
        word = f"{'better' if low > 0 else 'worse'}{', by less than matters' if small else ''}"
    elif small:
        word = "no practically relevant difference"
    else:
        word, mean = "inconclusive", abs(difference.mean)
        z = stats.norm.ppf(1 - alpha / 2) / max(mean, MARGIN - mean)
        needed = max(seeds + 1, ceil(seeds * (z * difference.error) ** 2))
    return Verdict(seeds, alpha, difference.mean, low, high, word, needed)


def planned_looks(one: np.ndarray, other: np.ndarray) -> list[Verdict]:
    """The looks at the first 5, 10 and 20 seeds, up to the first that decides."""
    verdicts = []
    for seeds, alpha in LOOKS.items():
        if min(len(one), len(other)) >= seeds and (not verdicts or verdicts[-1].needed):
            verdicts.append(look(one[:seeds], other[:seeds], alpha))
    return verdicts


def runs_of(name: str, tables: Tables) -> pd.DataFrame:
    """The runs of a network file, of a network of the tables, or of EXPERIMENT/NETWORK; by seed.

    Of several experiments it is the one with the network's name, or the first. A CSV file has one
    accuracy per line, in percent; its lines count as seeds.

    Raises ValueError, in a sentence, if there are none; OSError for a file that is not there.
    """
    if name.endswith(".csv"):
        values = pd.read_csv(name, header=None).iloc[:, -1]
        values = pd.to_numeric(values, errors="coerce").dropna().reset_index(drop=True)
        if len(values) == 0 or not values.between(0, 100).all() or values.max() <= 1:
            raise ValueError(f"{name}: expected accuracies in percent, 0 to 100, one per line.")
        return pd.DataFrame({"seed": values.index, "final": values, "status": "finished"})
    network = load_network_file(name).name if name.endswith(".py") else name.split("/")[-1]
    runs = tables.runs[tables.runs.network == network]
    experiment = name.rpartition("/")[0] if not name.endswith(".py") else ""
    if not experiment:
        runs = runs[~runs.experiment.str.startswith("validation/")]  # not of the test images
    order = [experiment] if experiment else [name, *EXPERIMENTS, *runs.experiment]
    runs = next((r for e in order if len(r := runs[runs.experiment == e])), runs[:0])
    if len(runs) == 0:
        raise ValueError(f"there are no runs of {name}: python -m study run {name} trains them.")
    return runs


def compare(
    one: str,
    other: str,
    by_looks: bool = False,
    to: str | None = None,
    images: int = TRAIN_IMAGES,
) -> None:
    """Print the comparison of two networks; names as for runs_of.

    by_looks: whether the seeds were added in looks at 5, 10 and 20; else all are one look.
    to: also write it there, as .json, .md or .png. images: that the runs were trained on.

    Raises ValueError and OSError as runs_of and look do.
    """
    tables, sides = load(root_of(images)), []
    for name in (one, other):
        runs = runs_of(name, tables)
        sides.append(runs[runs.final.notna()].set_index("seed").sort_index())
        for seed in runs[runs.final.isna()].seed:
            print(f"{name}: seed {seed} diverged and is left out; no seed replaces it")
    shared = sides[0].index.intersection(sides[1].index)
    if len(shared) >= LEAST and not one.endswith(".csv"):
        sides = [side.loc[shared] for side in sides]
    values = [side.final.to_numpy(float) for side in sides]
    verdicts = planned_looks(*values) if by_looks else [look(*values)]
    if not verdicts:
        raise ValueError(f"there are {len(shared)} shared seeds; the first look takes 5.")
    lines = []
    for name, side in zip((one, other), sides, strict=True):
        line = f"{name}: {side.final.mean():.3f}% in {len(side)} seeds"
        if "to_99" in side:
            reached, steady = side[side.to_99 <= side.epochs].to_99, side.last_3.astype(bool).sum()
            line += f"; {len(reached)} reach 99%"
            line += f" (epoch {reached.mean():.1f} on average)" if len(reached) else ""
            line += f", {steady} have their last three epochs at {TARGET_ACCURACY}%"
        lines.append(line)
    for v in verdicts:
        interval = f"{v.mean:+.3f} [{v.low:+.3f}, {v.high:+.3f}] points"
        lines.append(f"{v.seeds} seeds: {interval} ({100 * (1 - v.alpha):g}% interval): {v.word}")
    if verdicts[-1].needed:
        lines.append(f"about {verdicts[-1].needed} seeds would decide (margin {MARGIN} points)")
    print("\n".join(lines))
    if to:
        content = {
            ".json": json.dumps([v._asdict() for v in verdicts], indent=1).encode(),
            ".md": "".join(f"- {line}\n" for line in lines).encode(),
            ".png": figures.accuracies(dict(zip((one, other), values, strict=True))).png(),
        }
        if Path(to).suffix not in content:
            raise ValueError(f"{to}: expected a name that ends in .json, .md or .png.")
        write_atomically(to, content[Path(to).suffix])
