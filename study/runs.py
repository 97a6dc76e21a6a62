"""Many runs: what a folder holds, which of them are missing, and how they are trained.

workers.py has where each of them runs.
"""

from __future__ import annotations

import json
import socket
import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from DataPipeline import load_mnist, make_loaders
from helpers.config import TrainingConfig
from helpers.files import write_atomically
from helpers.history import TEST_IMAGES, TRAIN_IMAGES, History
from helpers.run import schedule, status
from helpers.weights import load_weights
from models import SETTINGS, VARIANTS
from study.workers import workers

Runs = Mapping[tuple[str, int], History]  # by (variant, seed)
FOLDERS = {"from the page": Path("results", "runs"), "as run": Path("results", "as_run")}
SEEDS = tuple(range(47, 57))  # 42 to 46 were the pilot's


def load_runs(
    folder: str | Path = FOLDERS["from the page"], labels: Sequence[int] = ()
) -> dict[tuple[str, int], History]:
    """The runs in a folder by (variant, seed): complete ones, each named after what it holds.

    labels: of the images they were tested on; a mistake that is none is found by them.

    Raises ValueError for any other JSON file there, and for a run that contradicts itself, its
    config or another run there.
    """
    runs, seen = {}, {}
    for path in sorted(Path(folder).glob("*.json")):
        history = History.load(path)
        name = f"{history.variant}-{history.seed}"
        if path.stem != name or history.variant not in SETTINGS[history.setting]:
            raise ValueError(
                f"{path} holds the run {name}; expected files named VARIANT-SEED.json of "
                f"{', '.join(SETTINGS[history.setting])} only: move it away."
            )
        trained = tuple((r["train_loss"], r["test_loss"]) for r in history.epochs)
        wrong = contradiction(history, labels)
        if trained in seen:
            wrong = f"the same epochs as {seen[trained]}"
        if wrong:
            raise ValueError(f"{path} holds {wrong}: move it away and run again.")
        seen[trained] = path.name
        runs[history.variant, history.seed] = history
    return runs


def histories(runs: Runs, variant: str) -> list[History]:
    """A variant's runs, by seed."""
    return [history for (name, _), history in sorted(runs.items()) if name == variant]


def weights_of(folder: Path, variant: str, seeds: Sequence[int]) -> list[Path]:
    """The files that hold the weights of a variant's runs with these seeds."""
    return [folder / f"{variant}-{seed}.safetensors" for seed in seeds]


def runs_by(
    folder: str | Path, variant: str, config: TrainingConfig, seeds: Sequence[int], command: str
) -> list[History]:
    """A variant's runs with these seeds in a folder, by seed.

    command: of python -m study, that trains what is missing.

    Raises ValueError if one is missing or not by the config, and what load_runs raises.
    """
    runs = [run for run in histories(load_runs(folder), variant) if run.seed in seeds]
    if [TrainingConfig(**run.config) for run in runs] != [replace(config, seed=s) for s in seeds]:
        raise ValueError(
            f"{folder}: expected runs of {variant} by {config}, with the seeds "
            f"{', '.join(map(str, seeds))}; python -m study {command} trains what is missing."
        )
    return runs


def names(runs: Runs) -> list[str]:
    """The variants that there are runs of, in the order of VARIANTS."""
    return [v for v in VARIANTS if any(v == variant for variant, _ in runs)]


def contradiction(history: History, labels: Sequence[int] = ()) -> str | None:
    """What a run's history says that no run by its config can have done; None if nothing.

    labels: as for load_runs.
    """
    config, epochs = TrainingConfig(**history.config), history.epochs
    if history.status == "interrupted" or history.status != status(epochs, config):
        return f"a run that is {history.status} after {len(epochs)} epochs"
    if len(epochs) > 1 and status(epochs[:-1], config) != "interrupted":
        return f"{len(epochs)} epochs, of which the last came after its end"
    train_images = history.train_images or TRAIN_IMAGES
    rates = _rates(replace(config, seed=0), train_images)[: len(epochs)]
    if not np.allclose([record["learning_rate"] for record in epochs], rates, atol=0):
        return "learning rates that are not its schedule's"
    for part, images in (("train", train_images), ("test", TEST_IMAGES)):
        hits = np.array([record[f"{part}_accuracy"] for record in epochs]) * images / 100
        if not np.allclose(hits, hits.round(), atol=1e-4):
            return f"a {part} accuracy that is no share of {images:,} images"
    if history.mistakes is not None:
        indices = [index for index, _ in history.mistakes]
        wrong = TEST_IMAGES - round(history.final_accuracy * TEST_IMAGES / 100)
        if len(indices) != wrong:
            return f"{len(indices)} mistakes, and by its last test accuracy there are {wrong}"
        if indices != sorted(set(indices)) or any(index >= TEST_IMAGES for index in indices):
            return "mistakes out of order or beyond the test images"
        if labels and any(labels[index] == digit for index, digit in history.mistakes):
            return "a mistake that is the right digit"
    return None


@cache
def _rates(config: TrainingConfig, images: int) -> list[float]:
    """The learning rate at the end of each epoch, by the schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], config.learning_rate)
    steps = ceil(images / config.batch_size)
    scheduler, rates = schedule(optimizer, config, steps), []
    with warnings.catch_warnings():  # the schedule misses the optimizer's steps
        warnings.simplefilter("ignore")
        for epoch in range(1, config.epochs + 1):
            if config.schedule == "one-cycle":
                for _ in range(steps - (epoch == config.epochs)):
                    scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
            if config.schedule == "step":
                scheduler.step()
    return rates


def _refuse_a_mixture(
    there: Runs, folder: Path, config: TrainingConfig, train_images: int, checksum: str
) -> None:
    """Raise ValueError if a folder's runs are not by this config, or on other images."""
    for (variant, seed), history in there.items():
        found = TrainingConfig(**history.config), history.train_images or train_images
        expected = replace(config, seed=seed), train_images
        path = folder / f"{variant}-{seed}.json"
        if found != expected:
            raise ValueError(
                f"{path} holds a run by {found[0]} on {found[1]} images, and not by {expected[0]} "
                f"on {expected[1]}. It was left alone; move it away, or name another folder."
            )
        if history.data not in (None, checksum):  # None in older files
            raise ValueError(
                f"{path} holds a run on other images, perhaps held-out ones. It was left alone; "
                "move it away, or name another folder."
            )


def run(
    variants: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    folder: str | Path | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    config: TrainingConfig | None = None,
    train_images: int = TRAIN_IMAGES,
    held_out: bool = False,
    teachers: Sequence[Path] = (),
) -> None:
    """Train every variant with every seed that a folder does not hold yet, seed by seed.

    Beside the history, VARIANT-SEED.json, stand the weights; and until they do, the run's
    checkpoint, so that a broken run resumes. Of two calls on one folder at once, each takes what
    the other has not begun.

    variants: names in the config's setting; all of them if none is given.
    seeds: integers from 0 to 2**32 - 1.
    folder: of the runs; the setting's in FOLDERS unless given.
    jobs: how many runs side by side on this machine; None for one per core.
    scheduler: the address of a Dask scheduler, to run on its workers instead. Those on other
        machines keep no checkpoints.
    config: its seed does not matter; the page's protocol unless given.
    train_images: the first so many; 50,000 are all with held_out.
    held_out: whether to test on 10,000 training images, as MNIST.held_out has it.
    teachers: for a config with distillation, files of save_weights, where the runs can read them.

    Raises ValueError, before any training, for an unknown variant, a variant or seed named twice,
    jobs under 1, and a folder with another kind of JSON file or runs of another config or on other
    images; RuntimeError if a run fails, or the scheduler does not answer or has no worker; what
    load_mnist, load_weights and History.save raise.
    """
    config = config or TrainingConfig()
    variants = variants or tuple(SETTINGS[config.setting])
    folder = Path(folder or FOLDERS[config.setting])
    for what, named in (("variant", variants), ("seed", seeds)):
        if twice := [name for name in named if list(named).count(name) > 1]:
            raise ValueError(f"the {what} {twice[0]} is named twice; name each once.")
    if unknown := [name for name in variants if name not in SETTINGS[config.setting]]:
        raise ValueError(
            f"there is no variant {unknown[0]!r} {config.setting}; choose from "
            f"{', '.join(SETTINGS[config.setting])}."
        )
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1, the runs side by side.")
    data = load_mnist().held_out() if held_out else load_mnist()
    networks = list(map(load_weights, teachers))
    checksum = make_loaders(data.first(train_images), config, teachers=networks)[0].checksum
    _refuse_a_mixture(load_runs(folder), folder, config, train_images, checksum)
    wanted = [(v, replace(config, seed=seed)) for seed in seeds for v in variants]
    missing = [(v, c) for v, c in wanted if not (folder / f"{v}-{c.seed}.json").exists()]
    if not missing:
        print(f"all {len(wanted)} runs are in {folder}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    done = config.epochs * (len(wanted) - len(missing))
    total = config.epochs * len(wanted)
    seen: dict[str, int] = {}
    with tqdm(total=total, initial=done, unit="epoch") as bar:

        def tell(name: str, epochs: int) -> None:
            bar.update(epochs - seen.get(name, 0))
            seen[name] = epochs

        with workers(scheduler, jobs, tell) as (submit, capacity):
            tasks = [
                {
                    "variant": variant,
                    "config": config.as_dict(),
                    "train_images": train_images,
                    "held_out": held_out,
                    "teachers": [str(path.absolute()) for path in teachers],
                    "host": socket.gethostname(),
                    "checkpoint": str((folder / f"{variant}-{config.seed}.pt").absolute()),
                }
                for variant, config in missing
            ]
            _train_all(tasks, folder, submit, capacity, bar)


def _train_all(
    tasks: list[dict],
    folder: Path,
    submit: Callable[[str, dict], Future],
    capacity: Callable[[], int],
    bar: tqdm,
) -> None:
    """Train what no other process has claimed, and write each run as it ends."""
    commit, under_way, others = _commit(), {}, 0
    while tasks or under_way:
        while tasks and len(under_way) < capacity():
            task = tasks.pop(0)
            name = f"{task['variant']}-{task['config']['seed']}"
            path = folder / f"{name}.json"
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                lock = None
            if lock is None or path.exists():  # another process trains it, or has just done so
                if lock:
                    _release(lock)
                others += 1
                bar.total -= task["config"]["epochs"]
                continue
            under_way[submit(name, task)] = path, lock
        for future in wait(under_way, timeout=1, return_when=FIRST_COMPLETED).done:
            path, lock = under_way.pop(future)
            answer = future.result()
            if isinstance(answer, str):
                raise RuntimeError(f"{path.stem}: {answer}")
            content, weights = answer
            history = History.from_dict(json.loads(content))
            history.environment["commit"] = commit
            write_atomically(path.with_suffix(".safetensors"), weights)
            history.save(path)
            path.with_suffix(".pt").unlink(missing_ok=True)
            _release(lock)
            bar.total -= history.config["epochs"] - len(history.epochs)  # it stopped early
            bar.write(
                f"{history.variant:7} seed {history.seed}  {history.final_accuracy:.2f} %  "
                f"{history.status} after {len(history.epochs)} epochs"
            )
        bar.refresh()  # the time goes on
    if others:
        print(f"Another process has taken {others} of the runs: run again to see what is missing.")


def _release(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _commit() -> str:
    """The commit of the code as it stands here; "+" if files that git tracks differ from it."""
    root = Path(__file__).parent.parent
    ours = [f"--git-dir={root / '.git'}", f"--work-tree={root}"]  # not a repository around this
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(["git", *ours, *describe], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
