"""Many runs: which of them are missing, who trains what, and what the files hold."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from DataPipeline import load_mnist
from helpers.config import TrainingConfig
from helpers.history import History
from models import VARIANTS
from study.cluster import on_cluster
from study.one_run import in_process, snapshot

try:
    import fcntl
except ImportError:  # Windows: two studies in one folder would do their runs twice
    fcntl = None

RUNS = Path("results", "runs")
SEEDS = tuple(range(47, 57))  # 42 to 46 were the pilot's
TEST_IMAGES = 10_000


def load_runs(folder: str | Path = RUNS) -> dict[tuple[str, int], History]:
    """The runs in a folder by (variant, seed): complete ones, each named after what it holds.

    Raises ValueError for any other JSON file there, and for a run whose mistakes do not fit its
    last test accuracy.
    """
    runs = {}
    for path in sorted(Path(folder).glob("*.json")):
        history = History.load(path)
        name = f"{history.variant}-{history.seed}"
        if path.stem != name or history.variant not in VARIANTS:
            raise ValueError(
                f"{path} holds the run {name}; expected files named VARIANT-SEED.json of "
                f"{', '.join(VARIANTS)} only: move it away."
            )
        if history.status == "interrupted":
            raise ValueError(f"{path} holds an interrupted run; move it away and run again.")
        right = round(history.final_accuracy * TEST_IMAGES / 100)
        if history.mistakes is not None and len(history.mistakes) != TEST_IMAGES - right:
            raise ValueError(
                f"{path} lists {len(history.mistakes)} mistakes, and its last test accuracy, "
                f"{history.final_accuracy:.2f} %, means {TEST_IMAGES - right}: move it away and "
                "run again."
            )
        runs[history.variant, history.seed] = history
    return runs


def run(
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = SEEDS,
    folder: str | Path = RUNS,
    jobs: int | None = None,
    scheduler: str | None = None,
    config: TrainingConfig | None = None,
    train_images: int = 60_000,
    held_out: bool = False,
) -> None:
    """Train every variant with every seed that a folder does not hold yet, seed by seed.

    A run's checkpoint lies beside where its JSON will be, until that is written; so a broken run
    resumes. Of two calls on one folder at once, each takes what the other has not begun.

    variants: names in models.VARIANTS.
    seeds: integers from 0 to 2**32 - 1.
    folder: of the runs.
    jobs: how many runs side by side on this machine; None for one per core.
    scheduler: the address of a Dask scheduler, to run on its workers instead, without checkpoints.
    config: its seed does not matter; the protocol's unless given.
    train_images: the first so many; 50,000 are all with held_out.
    held_out: whether to test on 10,000 training images, as MNIST.held_out has it.

    Raises ValueError, before any training, for an unknown variant, a variant or seed named twice,
    jobs under 1, and a folder with another kind of JSON file or runs of another config or on other
    images; RuntimeError if a run fails, or the scheduler does not answer or has no worker;
    KeyboardInterrupt if a run was interrupted; what load_mnist and History.save raise.
    """
    folder = Path(folder)
    for what, named in (("variant", variants), ("seed", seeds)):
        if twice := [name for name in named if list(named).count(name) > 1]:
            raise ValueError(f"the {what} {twice[0]} is named twice; name each once.")
    if unknown := [variant for variant in variants if variant not in VARIANTS]:
        raise ValueError(f"there is no variant {unknown[0]!r}; choose from {', '.join(VARIANTS)}.")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1, the runs side by side.")
    config = config or TrainingConfig()
    wanted = [(v, replace(config, seed=seed)) for seed in seeds for v in variants]
    _refuse_a_mixture(load_runs(folder), folder, config, train_images)
    missing = [(v, c) for v, c in wanted if not (folder / f"{v}-{c.seed}.json").exists()]
    if not missing:
        print(f"all {len(wanted)} runs are in {folder}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not scheduler:
        load_mnist()  # fetched once, here, and not by every process at the same time
    done = len(wanted) - len(missing)
    epochs, how = config.epochs, {"train_images": train_images, "held_out": held_out}
    with tqdm(total=epochs * len(wanted), initial=epochs * done, unit="epoch") as bar:
        tell = partial(_count, bar, {})
        place = on_cluster(scheduler, tell) if scheduler else on_this_machine(jobs, tell)
        with place as (submit, capacity):
            _train(missing, folder, how, submit, capacity, bar, bool(scheduler))


def _refuse_a_mixture(
    there: dict[tuple[str, int], History],
    folder: Path,
    config: TrainingConfig,
    train_images: int,
) -> None:
    """Raise ValueError if a folder's runs are not by this config, or on other images."""
    for (variant, seed), history in there.items():
        found = history.config, history.train_images or train_images  # None in older files
        expected = replace(config, seed=seed).as_dict(), train_images
        if found != expected:
            raise ValueError(
                f"{folder / f'{variant}-{seed}.json'} holds a run by {found[0]} on {found[1]} "
                f"images, and not by {expected[0]} on {expected[1]}. It was left alone; move it "
                "away, or name another folder."
            )


def _count(bar: tqdm, seen: dict[str, int], name: str, epochs: int) -> None:
    """Move the bar to where a run is, after so many complete epochs."""
    bar.update(epochs - seen.get(name, 0))
    seen[name] = epochs


def _train(
    missing: list[tuple[str, TrainingConfig]],
    folder: Path,
    how: dict,
    submit: Callable[[str, dict], Future],
    capacity: Callable[[], int],
    bar: tqdm,
    elsewhere: bool,
) -> None:
    """Train what is missing and not claimed by another process, and write each run as it ends."""
    commit, under_way, others = _commit(), {}, 0
    while missing or under_way:
        while missing and len(under_way) < capacity():
            variant, config = missing.pop(0)
            name = f"{variant}-{config.seed}"
            path = folder / f"{name}.json"
            claim = _claim(path.with_suffix(".lock"))
            if claim is None or path.exists():  # another process trains it, or has just done so
                if claim is not None:
                    _release(path, claim)
                others += 1
                bar.total -= config.epochs
                continue
            task = {"variant": variant, "config": config.as_dict(), **how}
            if not elsewhere:
                task["checkpoint"] = str(path.with_suffix(".pt").absolute())
            under_way[submit(name, task)] = path, claim
        for future in wait(under_way, timeout=1, return_when=FIRST_COMPLETED).done:
            path, claim = under_way.pop(future)
            history = History.from_dict(future.result())
            if history.status == "interrupted":
                raise KeyboardInterrupt
            history.environment["commit"] = commit
            history.save(path)
            path.with_suffix(".pt").unlink(missing_ok=True)
            _release(path, claim)
            bar.total -= history.config["epochs"] - len(history.epochs)  # it stopped early
            bar.write(
                f"{history.variant:7} seed {history.seed}  {history.final_accuracy:.2f} %  "
                f"{history.status} after {len(history.epochs)} epochs"
            )
        bar.refresh()  # the time goes on
    if others:
        print(f"{others} runs were taken by another process: run again to see what is missing.")


def _claim(path: Path) -> int | None:
    """A lock on a run, as an open file, or None if another process holds it; it dies with us."""
    claim = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        if fcntl:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return None
    return claim


def _release(path: Path, claim: int) -> None:
    path.with_suffix(".lock").unlink(missing_ok=True)
    os.close(claim)


def _commit() -> str:
    """The commit of the code as it stands here; "+" if files that git tracks differ from it."""
    git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(git, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


@contextmanager
def on_this_machine(
    jobs: int | None, tell: Callable[[str, int], None]
) -> Iterator[tuple[Callable[[str, dict], Future], Callable[[], int]]]:
    """This machine's processes, as a context: a function that submits a run, and how many fit.

    Runs that are under way when the context ends early end after their last complete epoch.

    jobs: how many side by side; None for one per core.
    tell: called with a run's name and its number of complete epochs, after each.
    """
    if not jobs:  # a container may have fewer cores than its machine
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        jobs = len(cores) or os.cpu_count() or 1
    life, ours = os.pipe()  # the runs live as long as our end is open, a killed caller's is not
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        code = Path(folder, "code.zip")
        snapshot(code)
        try:
            yield (
                lambda name, task: threads.submit(
                    in_process, task, code, partial(tell, name), life
                ),
                lambda: jobs,
            )
        finally:
            os.close(ours)
            threads.shutdown(cancel_futures=True)
            os.close(life)
