"""python -m study run: trains the missing runs on Dask's workers; resumes whatever broke off."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, Nanny, as_completed, get_worker
from distributed.comm import get_address_host_port
from torch import nn
from tqdm import tqdm

from DataPipeline import load_mnist, make_loaders
from helpers.checkpoint import save_weights
from helpers.config import TrainingConfig
from helpers.history import TEST_IMAGES, TRAIN_IMAGES, History
from models import NETWORKS
from study.experiments import EXPERIMENTS, RESULTS, Experiment, root_of
from study.network_file import find_experiment, from_text
from TrainingHelper import evaluate, fit, get_device, set_seed

SECONDS = 10  # for a scheduler and its first worker to answer
LOCAL = {"threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
# Otherwise Dask would serve its pages to other machines.
LOCAL |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
tqdm.set_lock(threading.RLock())  # tqdm's own leaks a semaphore when its process is killed
Trained = tuple[History, nn.Module]


class Run(NamedTuple):
    """A run to do; it writes path.json, path.safetensors and, before them, a checkpoint path.pt."""

    path: str
    network: str  # a name in NETWORKS, unless a network file's text defines it
    config: TrainingConfig
    train_images: int
    text: str
    validation: bool


def train_run(run: Run, checkpoint: str | None, report: Callable[[History], None]) -> Trained:
    """Train as a notebook does, without loader threads; one that diverges keeps its epochs."""
    device, data, config = get_device(), load_mnist(), run.config
    data = data.validation_split() if run.validation else data
    data = data.subset(min(run.train_images, len(data.train_images)))
    file = from_text(run.network.rpartition("-")[0], run.text) if run.text else None
    loaders = make_loaders(data, config, device, 0, file and file.augment)
    set_seed(config.seed)
    model = file.network() if file else NETWORKS[run.network].build()
    own = file.training(model, len(loaders[0])) if file else {}
    try:
        history = fit(model, *loaders, config, device, checkpoint, report, name=run.network, **own)
        loss, accuracy = evaluate(model, loaders[0].unaugmented(), device)
        history.clean_train = {"loss": loss, "accuracy": accuracy}
    except FloatingPointError as error:
        history = error.history
        history.status = "diverged"
    history.source = run.text or None
    return history, model.cpu()


def run(
    names: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    train_images: int = TRAIN_IMAGES,
    validation: bool = False,
) -> None:
    """Train each run of EXPERIMENTS that is not in its experiment's folder, seed by seed.

    names: experiments, networks of theirs or network files; seeds: each one's unless given.
    jobs: runs side by side on this machine; one per core unless given.
    scheduler: the address of a Dask scheduler, to train on its workers instead.
    train_images: the first so many; fewer than all are a trial, in folders of its own (root_of).
    validation: whether held-out writers of the training set take the test set's place, to choose
        settings by; in folders of its own, too.

    Raises ValueError, before any training, for a bad argument or a foreign file in a folder;
    RuntimeError if a run fails or no worker answers; OSError.
    """
    experiments = {name: find_experiment(name) for name in names or EXPERIMENTS}
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1, the runs side by side.")
    if twice := [seed for seed in seeds or () if list(seeds).count(seed) > 1]:
        raise ValueError(f"the seed {twice[0]} is named twice; name each seed once.")
    missing = []
    for name, experiment in experiments.items():
        folder = experiment.folder
        if folder.is_relative_to(RESULTS):  # and not a test's
            folder = root_of(train_images, validation) / folder.relative_to(RESULTS)
        present = _present(experiment, folder)
        networks = [name] if name in experiment.networks else experiment.networks
        wanted = list(product(seeds or experiment.seeds, networks))
        lacking = [pair for pair in wanted if pair not in present]
        for seed, network in lacking:
            path, config = folder.absolute() / network, replace(experiment.config, seed=seed)
            rest = train_images, experiment.text, validation
            missing.append(Run(f"{path}-{seed}", network, config, *rest))
        count = f"{len(lacking)} of {len(wanted)}" if lacking else f"all {len(wanted)}"
        print(count, f"runs of {name} are", "missing from" if lacking else "in", folder, flush=True)
    if missing:
        load_mnist()  # fetched once, before all workers look for it
        jobs = min(jobs or CPU_COUNT, len(missing))
        if not scheduler:
            print(f"about {_minutes(missing, jobs):.0f} minutes, {jobs} runs at a time", flush=True)
        with _dask(scheduler, jobs) as client:
            _train(missing, client)


def seconds_per_epoch(run: Run, images: int) -> float:
    """What an epoch of a run takes on this machine, by one on so many training images."""
    config = replace(run.config, epochs=1, patience=1, plain_epochs=0)
    history, _ = train_run(run._replace(train_images=images, config=config), None, lambda _: None)
    # Evaluation takes about a third of training, an image.
    each = history.epochs[0]["seconds"] / (images + TEST_IMAGES / 3)
    return each * (run.train_images + TEST_IMAGES / 3)


def _minutes(runs: list[Run], jobs: int) -> float:
    few = {run.network: run for run in runs}
    seconds = {n: seconds_per_epoch(r, 16 * r.config.batch_size) for n, r in few.items()}
    return sum(seconds[run.network] * run.config.epochs for run in runs) / jobs / 60


def _present(experiment: Experiment, folder: Path) -> set[tuple[int, str]]:
    """The (seed, network) of each run in a folder; ValueError for one of another experiment."""
    histories = {path: History.load(path) for path in folder.glob("*.json")}
    for path, history in histories.items():
        config = asdict(replace(experiment.config, seed=history.seed))
        if history.network not in experiment.networks or history.config != config:
            text = f"{path} holds a run by another network or config than the experiment's"
            raise ValueError(f"{text}; it was left alone. Move it away.")
    return {(history.seed, history.network) for history in histories.values()}


def _train(runs: list[Run], client: Client) -> None:
    """Train runs on a client's workers, and write each as it ends; a failure stops no other."""
    host, topic, epochs, failures = socket.gethostname(), f"epochs of {client.id}", {}, []
    total = sum(run.config.epochs for run in runs)
    with tqdm(total=total, unit="epoch", smoothing=0, disable=None) as bar:

        def count(event: tuple[float, tuple[str, int]]) -> None:
            epochs.update([event[1]])
            bar.update(sum(epochs.values()) - bar.n)

        client.subscribe_topic(topic, count)
        futures = {client.submit(_on_worker, r, host, topic, pure=False): r for r in runs}
        for future in as_completed(futures, loop=client.loop):
            run = futures.pop(future)
            if future.cancelled():
                raise RuntimeError("the Dask scheduler is gone: run again for what is missing.")
            if error := future.exception():
                if isinstance(error, KilledWorker):
                    error = "several workers died of it, perhaps for lack of memory."
                line = f"{Path(run.path).name}: {' '.join(str(error).split())}"
                failures.append(line)
            else:
                history, model = future.result()
                future.release()  # or it would be trained again if its worker died
                line = f"{run.network} seed {history.seed}  "
                if history.status != "diverged":
                    label = {"seed": history.seed, "accuracy": history.final_accuracy}
                    save_weights(model, f"{run.path}.safetensors", run.network, **label)
                    line += f"{history.final_accuracy:.2f}%  "
                history.save(f"{run.path}.json")
                Path(f"{run.path}.pt").unlink(missing_ok=True)
                bar.total -= run.config.epochs - len(history.epochs)  # it stopped early
                line += f"{history.status} after {len(history.epochs)} epochs"
            bar.write(line)
            sys.stdout.flush()
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(runs)} runs failed; {failures[0]}")


def _on_worker(run: Run, host: str, topic: str) -> Trained:
    """train_run; each epoch is an event of the topic, and only the asking host has a checkpoint."""
    checkpoint, commit = f"{run.path}.pt" if socket.gethostname() == host else None, _commit()
    log = get_worker().log_event
    history, model = train_run(run, checkpoint, lambda h: log(topic, (run.path, len(h.epochs))))
    history.environment["commit"] = commit
    return history, model


@contextmanager
def _dask(scheduler: str | None, jobs: int) -> Iterator[Client]:
    """A client of the scheduler or, without one, of new processes that end with this one."""
    with ExitStack() as stack:
        address = scheduler or _local_workers(jobs, stack).scheduler_address
        try:
            get_address_host_port(address)  # Client refuses a bad one, too, but hangs at exit
            client = stack.enter_context(Client(address, timeout=SECONDS, set_as_default=False))
            client.wait_for_workers(1, timeout=SECONDS)
        except (OSError, OverflowError, ValueError) as error:
            text = f"no Dask scheduler with a worker answers at {address}: docs/environment.md says"
            raise RuntimeError(f"{text} how to start them.") from error
        yield client


def _local_workers(jobs: int, stack: ExitStack) -> LocalCluster:
    # A terminal sends Ctrl-C to the workers, too. They inherit a mask that blocks it.
    resource_tracker.ensure_running()  # its start would end the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        cluster = stack.enter_context(LocalCluster(n_workers=jobs, **LOCAL))
        for nanny in cluster.workers.values():
            stack.callback(_kill, nanny)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return cluster


def _kill(nanny: Nanny) -> None:
    nanny.close_gracefully()  # do not restart the process
    if nanny.pid:  # Dask waits seconds for a run under way, and its checkpoint holds all of it
        os.kill(nanny.pid, signal.SIGKILL)


def _commit() -> str:
    """The commit of this code, with "+" if tracked files differ from it; "unknown" without git."""
    git = "git --git-dir=.git --work-tree=. describe --always --abbrev=40 --exclude='*' --dirty=+"
    root = Path(__file__).parent.parent
    done = subprocess.run(git, shell=True, cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
