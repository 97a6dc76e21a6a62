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
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
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
