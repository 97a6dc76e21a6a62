"""The study: many seeds of five variants, and a report of what they say.

    python study.py run       trains what is missing, into results/runs/{variant}-{seed}.json
    python study.py report    writes results/comparison.md and its figures from what is there

v1, v2, v1_bn and v2_bn are a 2 x 2 that separates dropout placement from batch normalisation; final
is the published fifth. A run is the very `fit` of the notebooks, so that one with a notebook's
variant and seed repeats its accuracies to the bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import log, nan, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from scipy.stats import t as student_t
from tqdm import tqdm

import models
from DataPipeline import DataError, load_mnist, make_loaders
from models import SmallMNISTNet4Block
from TrainingHelper import History, TrainingConfig, fit, get_device, set_seed

# Dropout2d rates and batch normalisation: the published three, and v1 and v2 with the latter.
VARIANTS: dict[str, tuple[tuple[float, ...], bool]] = {
    "v1": (models.VARIANTS["v1"].dropout, False),
    "v2": (models.VARIANTS["v2"].dropout, False),
    "v1_bn": (models.VARIANTS["v1"].dropout, True),
    "v2_bn": (models.VARIANTS["v2"].dropout, True),
    "final": (models.VARIANTS["final"].dropout, True),
}
SEEDS = (42, 43, 44, 45, 46)
RUNS = Path("results", "runs")


# --- run ------------------------------------------------------------------------------------------


def train(
    variant: str,
    config: TrainingConfig,
    checkpoint: str | Path | None = None,
    train_images: int = 60_000,
    caller: int | None = None,
) -> History:
    """One run, as in the notebooks, without loader workers: its history.

    train_images: the first so many, for tests. caller: the process that waits for the history; if
    it is this one's parent and dies, so does the run, after the checkpoint of its last whole epoch.

    Raises what load_mnist and fit raise.
    """
    if caller is not None and caller == os.getppid():
        threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
    device = get_device()
    loaders = make_loaders(load_mnist().first(train_images), config, device, num_workers=0)
    dropout, batch_norm = VARIANTS[variant]
    set_seed(config.seed)
    model = SmallMNISTNet4Block(dropout, batch_norm)
    history = fit(model, *loaders, config, device, checkpoint, progress=False)
    history.variant = variant
    return history


def _end_with(parent: int) -> None:
    """Ask this process to end once its parent has: a killed one's workers would work on unseen."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def load_runs(folder: str | Path = RUNS) -> dict[tuple[str, int], History]:
    """The runs in a folder by (variant, seed): whole ones only, each named after what it holds.

    Raises ValueError for any other JSON file there.
    """
    runs = {}
    for path in sorted(Path(folder).glob("*.json")):
        history = History.load(path)
        if path.name != f"{history.variant}-{history.seed}.json" or history.variant not in VARIANTS:
            raise ValueError(
                f"{path} holds a run of {history.variant} with seed {history.seed}; expected files "
                f"named VARIANT-SEED.json of {', '.join(VARIANTS)} only: move it away."
            )
        if history.status == "interrupted":
            raise ValueError(f"{path} holds an interrupted run; move it away and run again.")
        runs[history.variant, history.seed] = history
    return runs


def run(
    variants: Iterable[str] = tuple(VARIANTS),
    seeds: Iterable[int] = SEEDS,
    folder: str | Path = RUNS,
    jobs: int | None = None,
    epochs: int = 20,
    train_images: int = 60_000,
) -> None:
    """Train every variant with every seed that folder does not hold yet, seed by seed.

    jobs: how many runs side by side; None for one a core. A run's checkpoint lies beside where its
    JSON will be, until that is written; so a broken run goes on where it was.
    epochs, train_images: fewer than the protocol's, for tests.

    Raises ValueError, before any training, for an unknown variant, and for a folder with another
    kind of JSON file or runs of another config; RuntimeError if a worker process dies; what fit and
    History.save raise.
    """
    folder, variants = Path(folder), list(variants)
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise ValueError(f"there is no variant {unknown[0]!r}; choose of {', '.join(VARIANTS)}.")
    wanted = [(variant, TrainingConfig(seed, epochs)) for seed in seeds for variant in variants]
    there = load_runs(folder)
    for variant, config in wanted:
        history = there.get((variant, config.seed))
        if history and history.config != asdict(config):
            raise ValueError(
                f"{folder / f'{variant}-{config.seed}.json'} is a run with {history.config}; asked "
                f"is {asdict(config)}. It was left alone; move it away, or name another folder."
            )
    missing = [(variant, c) for variant, c in wanted if (variant, c.seed) not in there]
    tasks = [
        (variant, config, folder / f"{variant}-{config.seed}.pt", train_images, os.getpid())
        for variant, config in missing
    ]
    folder.mkdir(parents=True, exist_ok=True)
    load_mnist()  # fetched once, here, and not by every worker at the same time
    # smoothing=0: the mean of all runs. They end in pairs, so the latest alone say little.
    done = len(wanted) - len(missing)
    with tqdm(total=len(wanted), initial=done, unit="run", smoothing=0) as bar:
        for history in _side_by_side(tasks, jobs or cpu_count()):
            if history.status == "interrupted":
                raise KeyboardInterrupt
            path = folder / f"{history.variant}-{history.seed}.json"
            history.save(path)
            path.with_suffix(".pt").unlink(missing_ok=True)
            bar.write(
                f"{history.variant:5} seed {history.seed}  {history.final_accuracy:.2f} %  "
                f"{history.status} after {len(history.epochs)} epochs"
            )
            bar.update()


def _side_by_side(tasks: list[tuple], jobs: int) -> Iterator[History]:
    """The histories of the tasks, as they come."""
    parallel = Parallel(jobs, batch_size=1, return_as="generator_unordered")
    try:
        yield from parallel(delayed(train)(*task) for task in tasks)
    except TerminatedWorkerError as error:
        raise RuntimeError(
            "a worker process died, perhaps for want of memory; run again to go on from the "
            "checkpoints, with fewer --jobs if need be."
        ) from error


# --- statistics -----------------------------------------------------------------------------------


class Summary(NamedTuple):
    """n values: mean, standard deviation, 95 % confidence interval of the mean; nan if n is small.

    The interval is Student's: mean -+ t(0.975, n - 1) * sd / sqrt(n).
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarise(values: Sequence[float]) -> Summary:
    """The Summary of any number of values, even none."""
    n = len(values)
    mean = float(np.mean(values)) if n else nan
    sd = float(np.std(values, ddof=1)) if n > 1 else nan
    half = _half_width(sd, n) if n > 1 else nan
    return Summary(n, mean, sd, mean - half, mean + half)


def _half_width(sd: float, n: int) -> float:
    return float(student_t.ppf(0.975, n - 1)) * sd / sqrt(n)


def runs_needed(sd: float, distance: float) -> int:
    """The fewest runs, 2 or more, at whose number half the interval's width is below distance.

    sd is taken as known: the answer is as rough as the sd of few runs is.
    Raises ValueError unless distance is positive.
    """
    if not distance > 0:
        raise ValueError(f"distance is {distance!r}; expected a number above 0.")
    low, high = 1, 2
    while _half_width(sd, high) >= distance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(sd, middle) < distance else (middle, high)
    return high


class Measure(NamedTuple):
    """A figure of one run: its name and unit, how to get it (None: not reached), its decimals."""

    name: str
    of: Callable[[History], float | None]
    decimals: int


FINAL = Measure("final test accuracy, %", lambda h: h.final_accuracy, 3)
BEST = Measure("best test accuracy, % (picked on the test set)", lambda h: h.best_accuracy, 3)
FIRST_99 = Measure("first epoch at 99 %+", lambda h: h.first_epoch_at_99, 1)
TRAIN_1 = Measure("epoch 1, train accuracy, %", lambda h: h.epochs[0]["train_accuracy"], 2)
TEST_1 = Measure("epoch 1, test accuracy, %", lambda h: h.epochs[0]["test_accuracy"], 2)
GAP = Measure("gap, test - train, points", lambda h: h.gap, 2)
LOG_FIRST_99 = Measure(
    "first epoch at 99 %+, ratio",
    lambda h: log(h.first_epoch_at_99) if h.first_epoch_at_99 else None,
    2,
)
Runs = dict[tuple[str, int], History]


def values(runs: Runs, weights: dict[str, int], measure: Measure) -> list[float]:
    """For each seed, the sum of weight * measure over variants: {"v1": 1, "v2": -1} is v1 - v2.

    Seeds that lack one of the variants, or the measure in one of them, are left out.
    """
    found = []
    for seed in sorted({seed for _, seed in runs}):
        parts = [runs.get((variant, seed)) for variant in weights]
        figures = [None if part is None else measure.of(part) for part in parts]
        if None not in figures:
            found.append(sum(w * f for w, f in zip(weights.values(), figures, strict=True)))
    return found


# --- claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """What a published claim says of one figure.

    weights, measure: as for values; nothing: the value if there were no effect; claimed: the
    published value; decides: whether the verdict on the claim rests on it; size: whether the claim
    is about how much, and not only about which way.
    """

    weights: dict[str, int]
    measure: Measure
    nothing: float
    claimed: float
    decides: bool = False
    size: bool = True


# Those that decide hold all but the claimed cause fixed; the others stand beside them.
CLAIMS: dict[str, list[Check]] = {
    "Dropout in the last blocks delays the first epoch at 99 %+ by 2 (v1 against v2) to 4 (v1 "
    "against Final)": [
        Check({"v1": 1, "v2": -1}, FIRST_99, 0, 2, decides=True),
        Check({"v1_bn": 1, "v2_bn": -1}, FIRST_99, 0, 2),
        Check({"v1": 1, "final": -1}, FIRST_99, 0, 4),
    ],
    "Batch normalisation converges 4 times as fast": [
        Check({"v1": 1, "v1_bn": -1}, LOG_FIRST_99, 0, log(4), decides=True),
        Check({"v2": 1, "v2_bn": -1}, LOG_FIRST_99, 0, log(4), decides=True),
        Check({"v1": 1, "final": -1}, LOG_FIRST_99, 0, log(4)),
        Check({"v1": 1, "final": -1}, LOG_FIRST_99, 0, log(8 / 4)),
        Check({"v2": 1, "final": -1}, LOG_FIRST_99, 0, log(6 / 4)),
    ],
    "Batch normalisation adds 0.17 points of accuracy": [
        Check({"v2_bn": 1, "v2": -1}, FINAL, 0, 0.17, decides=True),
        Check({"v1_bn": 1, "v1": -1}, FINAL, 0, 0.17),
        Check({"final": 1, "v2": -1}, FINAL, 0, 0.17),
    ],
    "Final passes 99.4 %, the others do not; Final is the most accurate": [
        Check({"final": 1}, FINAL, 99.4, 99.55, decides=True, size=False),
        Check({"v1": 1}, FINAL, 99.4, 99.36, decides=True, size=False),
        Check({"v2": 1}, FINAL, 99.4, 99.38, decides=True, size=False),
        Check({"final": 1, "v1": -1}, FINAL, 0, 0.19, decides=True, size=False),
        Check({"final": 1, "v2": -1}, FINAL, 0, 0.17, decides=True, size=False),
    ],
    "Keeping dropout out of the high-level blocks makes learning more efficient (v2 against v1)": [
        Check({"v2": 1, "v1": -1}, FIRST_99, 0, -2, decides=True, size=False),
        Check({"v2": 1, "v1": -1}, TEST_1, 0, 3.09, size=False),
        Check({"v2": 1, "v1": -1}, TRAIN_1, 0, 7.18, size=False),
        Check({"v2": 1, "v1": -1}, FINAL, 0, 0.02, size=False),
    ],
}
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decidable"


def verdict(check: Check, found: Summary) -> tuple[str, str]:
    """SUPPORTED, CONTRADICTED or OPEN, and why, from the interval of a check's values.

    The interval either holds the value of no effect or lies on one side of it; and it either holds
    the claimed value or excludes it.
    """
    if found.n < 2:
        return OPEN, f"{found.n} run{'' if found.n == 1 else 's'} give no interval"
    claimed_side = np.sign(check.claimed - check.nothing)
    holds_nothing = found.low <= check.nothing <= found.high
    holds_claimed = found.low <= check.claimed <= found.high
    if holds_nothing and holds_claimed:
        n = runs_needed(found.sd, abs(check.claimed - check.nothing) / 2)
        return OPEN, f"the interval holds both no effect and the claimed; about {n:,} runs decide"
    if holds_nothing and not check.size:
        if found.mean == check.nothing:
            return OPEN, "the runs lie evenly on both sides: no number of them can be named"
        n = runs_needed(found.sd, abs(found.mean - check.nothing))
        return OPEN, f"the interval holds no effect; about {n:,} runs decide"
    if holds_nothing:
        return CONTRADICTED, "no effect is shown, and one of the claimed size is excluded"
    if np.sign(found.mean - check.nothing) != claimed_side:
        return CONTRADICTED, "the effect is the other way round"
    if holds_claimed or not check.size:
        return SUPPORTED, "the interval excludes no effect" + (
            " and holds the claimed" if holds_claimed else ""
        )
    smaller = abs(found.mean - check.nothing) < abs(check.claimed - check.nothing)
    return CONTRADICTED, (
        f"the effect is there, but {'smaller' if smaller else 'larger'} than claimed"
    )


def overall(verdicts: Iterable[str]) -> str:
    """Of a claim's deciding checks: CONTRADICTED if one is, SUPPORTED if all are, or else OPEN."""
    verdicts = set(verdicts)
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts == {SUPPORTED} else OPEN


# --- command line ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """The command; errors the user can mend end it with one sentence and status 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="run | report")
    command = commands.add_parser("run", help="train the runs that are missing")
    command.set_defaults(do=run)
    command.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    command.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    command.add_argument("--folder", type=Path, default=RUNS)
    command.add_argument("--jobs", type=int, help="runs side by side; one a core unless told")
    options = vars(parser.parse_args(arguments))
    do = options.pop("do")
    try:
        do(**options)
    except (DataError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run again to go on.")


if __name__ == "__main__":
    # As a module, so that worker processes find its functions by their name.
    import study

    study.main()
