"""The study: many seeds of five variants, and a report of what they say.

    python study.py run       trains what is missing, into results/runs/{variant}-{seed}.json
    python study.py report    writes results/comparison.md and its figures from what is there

v1, v2, v1_bn and v2_bn are a 2 x 2 that separates dropout placement from batch normalisation; final
is the published fifth. A run is the very `fit` of the notebooks, so that one with a notebook's
variant and seed repeats it to the bit, on the same type of machine.
"""

from __future__ import annotations

import _thread
import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from math import exp, log, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from scipy.stats import t as student_t
from tqdm import tqdm

from DataPipeline import load_mnist, make_loaders
from models import GOAL, VARIANTS
from TrainingHelper import (
    History,
    TrainingConfig,
    evaluate,
    fit,
    get_device,
    set_seed,
    write_atomically,
)

if TYPE_CHECKING:
    from distributed import Client

SEEDS = tuple(range(47, 57))  # 42 to 46 were the pilot's, whose runs are in results/pilot
RUNS = Path("results", "runs")
MODULES = ("TrainingHelper.py", "models.py", "DataPipeline.py", "study.py")  # importers last
CLUSTER_SECONDS = 10  # that a Dask scheduler and its first worker have to answer

_one_at_a_time = threading.Lock()  # a process has one set of random generators


# --- run ------------------------------------------------------------------------------------------


def train(
    variant: str,
    config: TrainingConfig,
    checkpoint: str | Path | None = None,
    train_images: int = 60_000,
    caller: int | None = None,
) -> History:
    """One run, as in the notebooks, without loader workers: its history.

    MNIST is that of load_mnist, wherever this runs. Threads of one process wait for each other.
    train_images: the first so many, for tests. caller: the process that waits for the history; if
    it is this one's parent and dies, so does the run, after the checkpoint of its last whole epoch.

    Raises what load_mnist and fit raise.
    """
    if caller is not None and caller == os.getppid():
        threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
    device = get_device()
    loaders = make_loaders(load_mnist().first(train_images), config, device, num_workers=0)
    with _one_at_a_time:
        set_seed(config.seed)
        model = VARIANTS[variant].network()
        history = fit(model, *loaders, config, device, checkpoint, progress=False)
        if history.status != "interrupted":
            loss, accuracy = evaluate(model, loaders[0].as_they_are(), device)
            history.clean_train = {"loss": loss, "accuracy": accuracy}
    return history


def _end_with(parent: int) -> None:
    """Ask this process to end once its parent has: a killed one's workers would work on unseen."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _commit() -> str:
    """The commit of the code as it stands here; "+" if files that git tracks differ from it."""
    git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    here = Path(__file__).parent
    try:
        return subprocess.run(
            git, cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _run_name(variant: str, seed: int) -> str:
    return f"{variant}-{seed}"


def _path(folder: str | Path, variant: str, seed: int) -> Path:
    """Where a run's JSON is; its checkpoint lies beside it, as .pt."""
    return Path(folder, f"{_run_name(variant, seed)}.json")


def load_runs(folder: str | Path = RUNS) -> dict[tuple[str, int], History]:
    """The runs in a folder by (variant, seed): whole ones only, each named after what it holds.

    Raises ValueError for any other JSON file there.
    """
    runs = {}
    for path in sorted(Path(folder).glob("*.json")):
        history = History.load(path)
        misnamed = path != _path(folder, history.variant, history.seed)
        if misnamed or history.variant not in VARIANTS:
            raise ValueError(
                f"{path} holds a run of {history.variant} with seed {history.seed}; expected files "
                f"named VARIANT-SEED.json of {', '.join(VARIANTS)} only: move it away."
            )
        if history.status == "interrupted":
            raise ValueError(f"{path} holds an interrupted run; move it away and run again.")
        runs[history.variant, history.seed] = history
    return runs


def run(
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = SEEDS,
    folder: str | Path = RUNS,
    jobs: int | None = None,
    scheduler: str | None = None,
    epochs: int = 20,
    train_images: int = 60_000,
) -> None:
    """Train every variant with every seed that folder does not hold yet, seed by seed.

    jobs: how many runs side by side on this machine; None for one a core. A run's checkpoint lies
    beside where its JSON will be, until that is written; so a broken run goes on where it was.
    scheduler: the address of a Dask scheduler, to run on its workers instead, without checkpoints.
    epochs, train_images: fewer than the protocol's, for tests.

    Raises ValueError, before any training, for an unknown variant, a variant or seed named twice,
    jobs under 1, and a folder with another kind of JSON file or runs of another config;
    RuntimeError if a worker process dies, or the scheduler does not answer or has no worker;
    KeyboardInterrupt if a run was interrupted; what load_mnist, fit and History.save raise.
    """
    folder = Path(folder)
    for what, named in (("variant", variants), ("seed", seeds)):
        if twice := [name for name in named if list(named).count(name) > 1]:
            raise ValueError(f"the {what} {twice[0]} is named twice; name each once.")
    if unknown := [variant for variant in variants if variant not in VARIANTS]:
        raise ValueError(f"there is no variant {unknown[0]!r}; choose of {', '.join(VARIANTS)}.")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1, the runs side by side.")
    there = load_runs(folder)
    missing = []
    for variant, config in [(v, TrainingConfig(seed, epochs)) for seed in seeds for v in variants]:
        history = there.get((variant, config.seed))
        if history is None:
            missing.append((variant, config))
        elif history.config != asdict(config):
            raise ValueError(
                f"{_path(folder, variant, config.seed)} holds a run with another config: "
                f"{history.config}, and not {asdict(config)}. It was left alone; move it away, or "
                "name another folder."
            )
    total = len(variants) * len(seeds)
    if not missing:
        print(f"all {total} runs are in {folder}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    commit = _commit()
    if scheduler:
        tasks = [(variant, config, None, train_images) for variant, config in missing]
        histories = _on_cluster(tasks, scheduler)
    else:
        load_mnist()  # fetched once, here, and not by every process at the same time
        tasks = [
            (v, c, _path(folder, v, c.seed).with_suffix(".pt"), train_images, os.getpid())
            for v, c in missing
        ]
        histories = _side_by_side(tasks, jobs)
    # smoothing=0: an estimate from all runs. They end in pairs, so that the last one says little.
    with tqdm(total=total, initial=total - len(missing), unit="run", smoothing=0) as bar:
        for history in histories:
            if history.status == "interrupted":
                raise KeyboardInterrupt
            path = _path(folder, history.variant, history.seed)
            history.environment["commit"] = commit
            history.save(path)
            path.with_suffix(".pt").unlink(missing_ok=True)
            bar.write(
                f"{history.variant:5} seed {history.seed}  {history.final_accuracy:.2f} %  "
                f"{history.status} after {len(history.epochs)} epochs"
            )
            bar.update()


def _side_by_side(tasks: list[tuple], jobs: int | None) -> Iterator[History]:
    """The histories of the tasks as they come, from processes of this machine."""
    parallel = Parallel(
        cpu_count() if jobs is None else jobs, batch_size=1, return_as="generator_unordered"
    )
    try:
        yield from parallel(delayed(train)(*task) for task in tasks)
    except TerminatedWorkerError as error:
        raise RuntimeError(
            "a worker process died, perhaps for want of memory: run again to go on from the "
            "checkpoints, with fewer --jobs if need be."
        ) from error


def _on_cluster(tasks: list[tuple], address: str) -> Iterator[History]:
    """The histories of the tasks as they come, from the workers of a Dask scheduler.

    Scheduler and workers get this project's modules from here. A run whose worker dies starts
    afresh on another one.
    """
    try:
        from distributed import Client
        from distributed.diagnostics.plugin import SchedulerUploadFile, UploadFile
        from joblib._dask import DaskDistributedBackend
    except ImportError as error:
        raise RuntimeError(
            "--scheduler needs dask.distributed: pip install -r requirements-dask.txt"
        ) from error
    try:
        client = Client(address, timeout=CLUSTER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"no Dask scheduler answers at {address}: start one by dask scheduler, and name the "
            "address it prints."
        ) from error

    class Cluster(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            """At least 2: for 1, joblib would train in this very process, and not on the worker."""
            return max(2, super().effective_n_jobs(n_jobs))

    with client:
        try:
            client.wait_for_workers(1, timeout=CLUSTER_SECONDS)
        except TimeoutError as error:
            raise RuntimeError(
                f"the Dask scheduler at {address} has no worker: start some by dask worker "
                f"{address} --nthreads 1 --nworkers -1"
            ) from error
        for module in MODULES:
            path = str(Path(__file__).with_name(module))
            # A scheduler may live in the caller's process, whose modules must not be reloaded;
            # a worker may still hold those of an older study.
            client.register_plugin(SchedulerUploadFile(path, load=False), module)
            client.register_plugin(UploadFile(path), module)
        done, lost = threading.Event(), threading.Event()
        threading.Thread(target=_watch, args=(client, done, lost), daemon=True).start()
        try:
            with parallel_config(Cluster(client=client)):
                parallel = Parallel(batch_size=1, return_as="generator_unordered")
                yield from parallel(delayed(train)(*task) for task in tasks)
        except (KeyboardInterrupt, CancelledError) as error:
            if isinstance(error, KeyboardInterrupt) and not lost.is_set():
                raise
            raise RuntimeError(
                f"the Dask scheduler at {address} is gone, or several workers died of one run: see "
                "what they logged, and run again for what is missing."
            ) from error
        finally:
            done.set()


def _watch(client: Client, done: threading.Event, lost: threading.Event) -> None:
    """Until done, interrupt the main thread, and say so by lost, if a run can have no result.

    joblib (1.6) would wait for it for ever: it hears of runs that end or raise, and of no others.
    """
    while not done.wait(1):
        states = {future.status for future in client.futures.values()}
        if client.status == "closed" or states & {"error", "lost", "cancelled"}:
            lost.set()
            _thread.interrupt_main()
            return


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
FIRST_99 = Measure("first epoch at 99 %+, where reached", lambda h: h.first_epoch_at_99, 1)
TRAIN_1 = Measure("epoch 1, train accuracy, %", lambda h: h.epochs[0]["train_accuracy"], 2)
TEST_1 = Measure("epoch 1, test accuracy, %", lambda h: h.epochs[0]["test_accuracy"], 2)
GAP = Measure("gap, test - train, points", lambda h: h.gap, 2)
# To leave out the seeds where a variant never reached it would speak for that variant.
FIRST_99_OR_NEVER = Measure(
    "first epoch at 99 %+ or never",
    lambda h: h.first_epoch_at_99 or h.config["epochs"] + 1,
    1,
)
LOG_FIRST_99 = Measure(
    "ratio of first epochs at 99 %+ or never",
    lambda h: log(FIRST_99_OR_NEVER.of(h)),
    2,
)
Runs = dict[tuple[str, int], History]


def paired(runs: Runs, weights: dict[str, int], measure: Measure) -> list[float]:
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

    weights, measure: as for paired; nothing: the value if there were no effect; claimed: the
    published value, and source: where that comes from, if not from the claim itself; decides:
    whether the verdict on the claim rests on it; size: whether the claim is about how much, and not
    only about which way.
    """

    weights: dict[str, int]
    measure: Measure
    nothing: float
    claimed: float
    decides: bool = False
    size: bool = True
    source: str = ""


# Those that decide hold all but the claimed cause fixed; the others stand beside them.
CLAIMS: dict[str, list[Check]] = {
    "Dropout in the last blocks delays the first epoch at 99 %+ by 2 (v1 against v2) to 4 (v1 "
    "against Final)": [
        Check({"v1": 1, "v2": -1}, FIRST_99_OR_NEVER, 0, 2, decides=True),
        Check({"v1": 1, "v2": -1}, FIRST_99, 0, 2),
        Check({"v1_bn": 1, "v2_bn": -1}, FIRST_99_OR_NEVER, 0, 2),
        Check({"v1": 1, "final": -1}, FIRST_99_OR_NEVER, 0, 4),
    ],
    "Batch normalisation converges 4 times as fast": [
        Check({"v1": 1, "v1_bn": -1}, LOG_FIRST_99, 0, log(4), decides=True),
        Check({"v2": 1, "v2_bn": -1}, LOG_FIRST_99, 0, log(4), decides=True),
        Check({"v1": 1, "final": -1}, LOG_FIRST_99, 0, log(4)),
        Check({"v1": 1, "final": -1}, LOG_FIRST_99, 0, log(8 / 4), source="epochs 8 / 4"),
        Check({"v2": 1, "final": -1}, LOG_FIRST_99, 0, log(6 / 4), source="epochs 6 / 4"),
    ],
    "Batch normalisation adds 0.17 points of accuracy": [
        Check({"v2_bn": 1, "v2": -1}, FINAL, 0, 0.17, decides=True),
        Check({"v1_bn": 1, "v1": -1}, FINAL, 0, 0.17),
        Check({"final": 1, "v2": -1}, FINAL, 0, 0.17),
    ],
    "Final passes 99.4 %, the others do not; Final is the most accurate": [
        Check({"final": 1}, FINAL, GOAL, 99.55, decides=True, size=False),
        Check({"v1": 1}, FINAL, GOAL, 99.36, decides=True, size=False),
        Check({"v2": 1}, FINAL, GOAL, 99.38, decides=True, size=False),
        Check({"final": 1, "v1": -1}, FINAL, 0, 0.19, decides=True, size=False),
        Check({"final": 1, "v2": -1}, FINAL, 0, 0.17, decides=True, size=False),
    ],
    "Keeping dropout out of the high-level blocks makes learning more efficient (v2 against v1)": [
        Check({"v2": 1, "v1": -1}, FIRST_99_OR_NEVER, 0, -2, decides=True, size=False),
        Check({"v2": 1, "v1": -1}, FIRST_99, 0, -2, size=False),
        Check({"v2": 1, "v1": -1}, TEST_1, 0, 3.09, size=False),
        Check({"v2": 1, "v1": -1}, TRAIN_1, 0, 7.18, size=False),
        Check({"v2": 1, "v1": -1}, FINAL, 0, 0.02, size=False),
    ],
}
MOST_RUNS = 1000  # above it, runs_needed is not spelled out
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decidable"


def verdict(check: Check, found: Summary) -> tuple[str, str]:
    """SUPPORTED, CONTRADICTED or OPEN, and why, from the interval of a check's values."""
    if found.n < 2:
        return OPEN, "it takes two runs to give an interval"
    nothing = f"{1 if check.measure is LOG_FIRST_99 else check.nothing:g}"
    holds_nothing = found.low <= check.nothing <= found.high
    holds_claimed = found.low <= check.claimed <= found.high
    claimed, measured = check.claimed - check.nothing, found.mean - check.nothing
    if holds_nothing and holds_claimed:
        n = _about(found.sd, abs(claimed) / 2)
        return OPEN, f"the interval contains both {nothing} and the published value; {n} decide"
    if holds_nothing and check.size:
        return CONTRADICTED, f"the interval contains {nothing} and excludes the published value"
    if holds_nothing:
        return OPEN, f"the interval contains {nothing}; {_about(found.sd, abs(measured))} decide"
    if (claimed > 0) != (measured > 0):
        return CONTRADICTED, f"the interval lies on the other side of {nothing}"
    if not check.size:
        return SUPPORTED, f"the interval lies on the claimed side of {nothing}"
    if holds_claimed:
        return SUPPORTED, f"the interval excludes {nothing} and contains the published value"
    than = "smaller" if abs(measured) < abs(claimed) else "larger"
    return CONTRADICTED, f"there is an effect, but {than} than published"


def _about(sd: float, distance: float) -> str:
    """runs_needed in words."""
    n = runs_needed(sd, distance) if distance else MOST_RUNS + 1
    return f"about {n} runs would" if n <= MOST_RUNS else f"not even {MOST_RUNS:,} runs would"


def overall(verdicts: Iterable[str]) -> str:
    """Of a claim's deciding checks: CONTRADICTED if one is, SUPPORTED if all are, or else OPEN."""
    verdicts = set(verdicts)
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts == {SUPPORTED} else OPEN


# --- report ---------------------------------------------------------------------------------------

MEASURES = (FINAL, BEST, FIRST_99, TRAIN_1, TEST_1, GAP)
CONTRASTS: dict[str, dict[str, int]] = {
    "placement, without batch normalisation": {"v1": 1, "v2": -1},
    "placement, with batch normalisation": {"v1_bn": 1, "v2_bn": -1},
    "batch normalisation, dropout after all blocks": {"v1_bn": 1, "v1": -1},
    "batch normalisation, dropout after blocks 1 and 2": {"v2_bn": 1, "v2": -1},
    "interaction": {"v1_bn": 1, "v2_bn": -1, "v1": -1, "v2": 1},
    "the published contrast, both at once": {"final": 1, "v2": -1},
    "both at once": {"final": 1, "v1": -1},
    "Final's two readings: table - prose": {"final": 1, "v2_bn": -1},
}
TEST_IMAGES = 10_000


def _published(variant: str, measure: Measure) -> str:
    """What the publication reports of a variant, or ''."""
    p = VARIANTS[variant].published
    if p is None:
        return ""
    figures = {
        FINAL: f"{p.final_accuracy:.2f}",
        FIRST_99: f"{p.first_epoch_at_99}",
        TRAIN_1: f"{p.epoch_1_train_accuracy:.2f}",
        TEST_1: f"{p.epoch_1_test_accuracy:.2f}",
        GAP: "" if p.gap is None else f"{p.gap:+.1f}",
    }
    return figures.get(measure, "")


def _name(weights: dict[str, int], minus: str = " - ") -> str:
    """{"v1": 1, "v2": -1} as "v1 - v2"."""
    terms = [f"{' + ' if weight > 0 else minus}{variant}" for variant, weight in weights.items()]
    return "".join(terms).removeprefix(" + ")


def _write(measure: Measure, difference: bool = False) -> Callable[[float], str]:
    """The function that writes a figure of this measure."""
    if measure is LOG_FIRST_99:
        return lambda value: f"{exp(value):.{measure.decimals}f}"
    return lambda value: f"{value:{'+' if difference else ''}.{measure.decimals}f}"


def _interval(found: Summary, write: Callable[[float], str]) -> str:
    """mean [low, high]"""
    if found.n < 2:
        return f"{write(found.mean)} (one run)" if found.n else "none"
    return f"{write(found.mean)} [{write(found.low)}, {write(found.high)}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A Markdown table; align: "l" or "r" a column, all but the first to the right unless told."""
    align = align or "l" + "r" * (len(head) - 1)
    lines = [head, [{"l": "---", "r": "---:"}[letter] for letter in align], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _claims(runs: Runs) -> Iterator[str]:
    """Each claim's verdict, and the table of the checks behind it."""
    for number, (claim, checks) in enumerate(CLAIMS.items(), 1):
        rows, deciding = [], []
        for check in checks:
            found = summarise(paired(runs, check.weights, check.measure))
            said, why = verdict(check, found)
            if check.measure in (FIRST_99_OR_NEVER, LOG_FIRST_99):
                reached = len(paired(runs, check.weights, FIRST_99))
                if reached < found.n:
                    why += f" (99 % was never reached in {found.n - reached} of them)"
            if len(check.weights) == 1:
                write = _write(check.measure)
                name = f"{_name(check.weights)} against {check.nothing:g}: {check.measure.name}"
            else:
                write = _write(check.measure, difference=True)
                minus = " / " if check.measure is LOG_FIRST_99 else " - "
                name = f"{_name(check.weights, minus)}: {check.measure.name}"
            if check.decides:
                deciding.append(said)
                name = f"**{name}**"
            published = write(check.claimed) + (f" ({check.source})" if check.source else "")
            interval = _interval(found, write)
            rows.append([name, published, interval, f"{found.n}", f"{said}: {why}"])
        yield f"### {number}. {claim}: **{overall(deciding)}**\n"
        yield _table(["bold: decides", "published", "here", "n", "verdict"], rows, "lrrrl")


def _variants(runs: Runs) -> str:
    """The table of every measure of every variant, beside the published figures."""
    of = {variant: _of(runs, variant) for variant in VARIANTS}

    def count(holds: Callable[[History], bool]) -> list[str]:
        return [f"{sum(map(holds, histories))} of {len(histories)}" for histories in of.values()]

    rows = [["runs", *(str(len(histories)) for histories in of.values())]]
    for measure in MEASURES:
        found = [summarise(paired(runs, {variant: 1}, measure)) for variant in VARIANTS]
        write = _write(measure, difference=measure is GAP)
        rows.append([f"**{measure.name}**", *(_interval(f, write) for f in found)])
        deviations = [f"{f.sd:.{measure.decimals}f}" if f.n > 1 else "" for f in found]
        rows.append(["standard deviation", *deviations])
        if measure in (FINAL, BEST):
            rows.append([f"runs over {GOAL} %", *count(lambda h, of=measure.of: of(h) > GOAL)])
        if measure is FIRST_99:
            rows.append(["reached by", *count(lambda h: h.first_epoch_at_99 is not None)])
            early = count(_before_the_first_drop)
            rows.append(["reached before the learning rate first falls", *early])
        if any(published := [_published(variant, measure) for variant in VARIANTS]):
            rows.append(["published, one run", *published])
    return _table(["", *VARIANTS], rows)


def _before_the_first_drop(history: History) -> bool:
    """Whether 99 % is reached at the learning rate of the first epoch."""
    first = history.first_epoch_at_99
    rates = [record["learning_rate"] for record in history.epochs]
    return first is not None and rates[first - 1] == rates[0]


def _differences(runs: Runs) -> str:
    """The table of the differences between variants, paired by seed."""
    measures = (FINAL, FIRST_99_OR_NEVER, TEST_1)
    rows = []
    for what, weights in CONTRASTS.items():
        cells = []
        for measure in measures:
            found = summarise(paired(runs, weights, measure))
            cells.append(f"{_interval(found, _write(measure, difference=True))}, n = {found.n}")
        rows.append([f"{_name(weights)} ({what})", *cells])
    return _table(["", *(measure.name for measure in measures)], rows)


def _figure(history: History, measure: Measure) -> str:
    """One run's figure, as exact as it is: a test image is 0.01 %."""
    if measure is FIRST_99:
        return f"{history.first_epoch_at_99 or 'not reached'}"
    return f"{measure.of(history):{'+' if measure is GAP else ''}.2f}"


def _every_run(runs: Runs) -> str:
    """The table of all runs, a row each."""
    rows = []
    for variant in VARIANTS:
        for h in _of(runs, variant):
            name = _run_name(variant, h.seed)
            cells = [_figure(h, measure) for measure in MEASURES]
            ended = f"{len(h.epochs)}, {h.status}"
            rows.append([f"[{name}](runs/{name}.json)", *cells, ended])
    return _table(["", *(measure.name for measure in MEASURES), "epochs"], rows)


def _of(runs: Runs, variant: str) -> list[History]:
    """A variant's runs, by seed."""
    return [history for (name, _), history in sorted(runs.items()) if name == variant]


def compare(runs: Runs) -> str:
    """The report on a set of runs, as Markdown; it depends on their histories alone."""
    seeds = {v: ", ".join(str(h.seed) for h in _of(runs, v)) or "none" for v in VARIANTS}
    if len(set(seeds.values())) == 1:
        made_of = f"Seeds {seeds['v1']} of each variant"
    else:
        made_of = "Seeds: " + "; ".join(f"{v}: {s}" for v, s in seeds.items())
    machines = sorted(
        {", ".join(f"{k} {v}" for k, v in h.environment.items()) for h in runs.values()}
    )
    accuracy = float(np.mean([h.final_accuracy for h in runs.values()])) / 100
    binomial = 100 * sqrt(accuracy * (1 - accuracy) / TEST_IMAGES)
    claims = "\n".join(_claims(runs))
    config = next(iter(runs.values())).config
    failed = [
        _run_name(v, h.seed) for v in VARIANTS for h in _of(runs, v) if not h.first_epoch_at_99
    ]
    never = f"Here it is {', '.join(failed)}." if failed else "Here there is none."
    return f"""\
# The comparison: {len(runs)} runs of five variants

Written by `python study.py report` from [runs](runs); no figure in it is typed by hand.
{made_of}, by the published protocol. v1_bn and v2_bn are v1 and v2
with batch normalisation after every convolution; v2_bn is also the other reading of Final (dropout
after blocks 1 and 2 only, as the publication's prose has it).

![Final test accuracy and first epoch at 99 %+ of every run](comparison.png)

## The published claims

The checks and [their rules](#how-it-is-computed) were committed before the first of these runs had
ended; known by then were the notebooks' three runs, with seed 42. In brackets are 95 % confidence
intervals of the mean over seeds.

{claims}
## The variants

Mean over seeds and its 95 % confidence interval, standard deviation over seeds, and the published
figure, which is of one run. Where a run never reached 99 %, the mean of the first epoch at 99 %+ is
that of the runs that did, and so too low.

{_variants(runs)}
## Differences, paired by seed

Two variants with the same seed start from the same weights of their convolutions and see the same
images, augmented alike, in the same order; so their difference is taken seed by seed, and the
interval is that of its mean over seeds.

{_differences(runs)}
![Accuracy by epoch of every run](comparison_curves.png)

## How it is computed

- **Interval**: mean -+ t(0.975, n - 1) sd / sqrt(n), Student's t, n runs, sd with n - 1 in its
  denominator. It takes the runs' values as about normal; epochs, being whole numbers, are not
  quite, and where all runs agree the interval has no width. Each is a 95 % interval by itself: of
  20 one is expected to miss.
- **First epoch at 99 %+ or never**: a run that never reached 99 % counts as if it had in the epoch
  after the last one, {config["epochs"] + 1}, the least it can be. {never} To leave such seeds out
  would speak for the variant that failed. These rules at first did; that was changed when the first
  such run of the committed study, v1-46, was in. Claims 1 and 5 also show what leaving out gives.
- **Ratio of epochs**: the exponential of the mean difference of their logarithms, and so for the
  ends of its interval.
- **Verdict on a claim that names a size** (1 to 3): *contradicted* if the interval excludes the
  published value; *supported* if it contains that and excludes no effect (0, or a ratio of 1);
  *not decidable* if it contains both. **On a claim that names a direction** (4 and 5): *supported*
  if the interval lies wholly on the claimed side of no effect (or of {GOAL} %), *contradicted* if
  wholly on the other, *not decidable* otherwise. A claim is contradicted if one of its checks in
  bold is, supported if all of them are, and not decidable otherwise.
- **Runs that would decide**: the smallest n with t(0.975, n - 1) sd / sqrt(n) < d. Where the
  interval contains both values, d is half the distance between them: an interval shorter than that
  distance cannot contain both. Where it contains no effect but not the published value, d is the
  difference measured. sd is the one measured here, and rough, as it comes from few runs.
- **The test set** has {TEST_IMAGES:,} images, so one network's accuracy has a binomial standard
  error of sqrt(p (1 - p) / {TEST_IMAGES:,}) = {binomial:.3f} points. The intervals above are over
  seeds, on these very images, and do not contain this error. With other images all variants would
  move, much of it together, so that their differences have less of it; the distance of an accuracy
  from a fixed number, such as {GOAL} %, has all of it.
- **Final accuracy** is that of the last epoch run. The best epoch's is picked on the test set, and
  no verdict rests on it.
- **Train accuracy** is taken while training, with dropout and augmentation, and so lies below the
  test accuracy.

## Every run

{_every_run(runs)}
Environment: {"; ".join(machines)}.
"""


def report(folder: str | Path = RUNS, out: str | Path = "results") -> None:
    """Write comparison.md, comparison.png and comparison_curves.png into out.

    Raises ValueError for a folder without runs, with another kind of JSON file, or with runs of
    different configs; OSError if out cannot be written.
    """
    import Visualization

    runs = load_runs(folder)
    if not runs:
        raise ValueError(f"{folder} holds no run; make some by: python study.py run")
    configs = {str({**h.config, "seed": None}): _run_name(*run) for run, h in sorted(runs.items())}
    if len(configs) > 1:
        one, other, *_ = configs.values()
        raise ValueError(
            f"{folder} holds runs of different configs, such as {one} and {other}: keep runs of "
            "one config there, and move the others away."
        )
    of = {variant: found for variant in VARIANTS if (found := _of(runs, variant))}
    figures = {
        "comparison.png": Visualization.every_run(of, summarise),
        "comparison_curves.png": Visualization.accuracy_by_epoch(of, summarise),
    }
    for name, figure in figures.items():
        write_atomically(Path(out, name), figure._repr_png_())
    write_atomically(Path(out, "comparison.md"), compare(runs).encode())
    print(f"{Path(out, 'comparison.md')}: {len(runs)} runs compared")


# --- command line ---------------------------------------------------------------------------------


def _seed(text: str) -> int:
    """An argument of --seeds."""
    try:
        return TrainingConfig(int(text)).seed
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no seed; expected integers from 0 to 2**32 - 1, as in --seeds 42 43"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; what the user can mend ends it with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="study.py", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="run | report")
    command = commands.add_parser("run", help="train the runs that are missing")
    command.set_defaults(do=run)
    command.add_argument("--variants", nargs="+", default=tuple(VARIANTS), metavar="NAME")
    command.add_argument("--seeds", nargs="+", type=_seed, default=SEEDS, metavar="SEED")
    command.add_argument("--folder", type=Path, default=RUNS, help="of the runs: %(default)s")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, help="runs side by side; one a core unless told")
    where.add_argument("--scheduler", metavar="ADDRESS", help="run on a Dask cluster")
    command = commands.add_parser("report", help="compare the runs that are there")
    command.set_defaults(do=report)
    command.add_argument("--folder", type=Path, default=RUNS, help="of the runs: %(default)s")
    command.add_argument("--out", type=Path, default=RUNS.parent, help="%(default)s")
    options = vars(parser.parse_args(arguments))
    do = options.pop("do")
    try:
        do(**options)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run again to go on.")


if __name__ == "__main__":
    # As a module, so that other processes find its functions by their name.
    import study

    study.main()
