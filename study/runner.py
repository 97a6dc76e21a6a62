"""python -m study run: trains the missing runs of experiments on Dask's workers.

A run done twice gives the same files, so the next call resumes or repeats whatever broke off.
"""

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
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.comm import get_address_host_port
from torch import nn
from tqdm import tqdm

from DataPipeline import load_mnist, make_loaders
from helpers.checkpoint import save_weights
from helpers.config import TrainingConfig
from helpers.history import TRAIN_IMAGES, History
from models import NETWORKS
from study.experiments import EXPERIMENTS, Experiment
from TrainingHelper import evaluate, fit, get_device, set_seed

SECONDS = 10  # for a scheduler and its first worker to answer
ONE_RUN = threading.Lock()  # a run seeds the generators of its whole process
LOCAL = {"threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
# Otherwise Dask would serve its pages to other machines.
LOCAL |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
tqdm.set_lock(threading.RLock())  # tqdm's own leaks a semaphore when its process is killed


class Run(NamedTuple):
    """A run to do; it writes path.json, path.safetensors and, before them, a checkpoint path.pt."""

    path: str
    network: str  # a name in NETWORKS
    config: TrainingConfig
    train_images: int


def train_run(
    run: Run, checkpoint: str | None, report_epochs: Callable[[History], None]
) -> tuple[History, nn.Module]:
    """Train as a notebook does, without loader threads; the network comes back on the CPU.

    report_epochs: called with the history after each epoch.

    Raises what fit raises.
    """
    device, data = get_device(), load_mnist().subset(run.train_images)
    loaders = make_loaders(data, run.config, device, num_workers=0)
    set_seed(run.config.seed)
    model = NETWORKS[run.network].build()
    history = fit(model, *loaders, run.config, device, checkpoint, report_epochs)
    loss, accuracy = evaluate(model, loaders[0].unaugmented(), device)
    history.clean_train = {"loss": loss, "accuracy": accuracy}
    return history, model.cpu()


def run(
    names: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    train_images: int = TRAIN_IMAGES,
) -> None:
    """Train each run of EXPERIMENTS that is not in its experiment's folder, seed by seed.

    names: of the experiments, and seeds: of each one's; all of them unless given.
    jobs: runs side by side on this machine; one per core unless given.
    scheduler: the address of a Dask scheduler, to train on its workers instead.

    Raises ValueError, before any training, for a bad argument or a foreign file in a folder;
    RuntimeError if a run fails or no worker answers; OSError if a file cannot be read or written.
    """
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        choices = ", ".join(EXPERIMENTS)
        raise ValueError(f"there is no experiment {unknown[0]!r}; choose from {choices}.")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1, the runs side by side.")
    if twice := [seed for seed in seeds or () if list(seeds).count(seed) > 1]:
        raise ValueError(f"the seed {twice[0]} is named twice; name each seed once.")
    missing = []
    for name in names or EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        folder, present = experiment.folder, _present(experiment)
        configs = [replace(experiment.config, seed=seed) for seed in seeds or experiment.seeds]
        wanted = [
            Run(f"{folder.absolute() / network}-{config.seed}", network, config, train_images)
            for config in configs
            for network in experiment.networks
        ]
        lacking = [run for run in wanted if (run.network, run.config.seed) not in present]
        count = f"{len(lacking)} of {len(wanted)}" if lacking else f"all {len(wanted)}"
        print(f"{count} runs of {name} are {'missing from' if lacking else 'in'} {folder}")
        missing += lacking
    sys.stdout.flush()
    if missing:
        load_mnist()  # fetched once, before all workers look for it
        with _dask(scheduler, min(jobs or CPU_COUNT, len(missing))) as client:
            _train(missing, client)


def _present(experiment: Experiment) -> set[tuple[str, int]]:
    """The (network, seed) of each run in a folder; ValueError for one of another experiment."""
    runs = set()
    for path in experiment.folder.glob("*.json"):
        history = History.load(path)
        config = asdict(replace(experiment.config, seed=history.seed))
        if history.network not in experiment.networks or history.config != config:
            raise ValueError(
                f"{path} holds a run by another network or config than the experiment's; it was "
                "left alone. Move it away."
            )
        runs.add((history.network, history.seed))
    return runs


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
                    error = "several workers died of it, perhaps for lack of memory; see their logs."
                failures.append(f"{Path(run.path).name}: {' '.join(str(error).split())}")
                line = failures[-1]
            else:
                history, model = future.result()
                future.release()  # or it would be trained again if its worker died
                label = {"seed": history.seed, "accuracy": history.final_accuracy}
                save_weights(model, f"{run.path}.safetensors", run.network, **label)
                history.save(f"{run.path}.json")
                Path(f"{run.path}.pt").unlink(missing_ok=True)
                bar.total -= run.config.epochs - len(history.epochs)  # it stopped early
                line = f"{run.network} seed {history.seed}  {history.final_accuracy:.2f} %  "
                line += f"{history.status} after {len(history.epochs)} epochs"
            bar.write(line)
            sys.stdout.flush()
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(runs)} runs failed; {failures[0]}")


def _on_worker(run: Run, host: str, topic: str) -> tuple[History, nn.Module]:
    """train_run; each epoch is an event of the topic, and only the asking host has a checkpoint."""
    checkpoint, commit = f"{run.path}.pt" if socket.gethostname() == host else None, _commit()

    def report(history: History) -> None:
        get_worker().log_event(topic, (run.path, len(history.epochs)))

    with ONE_RUN:
        history, model = train_run(run, checkpoint, report)
    history.environment["commit"] = commit
    return history, model


@contextmanager
def _dask(scheduler: str | None, jobs: int) -> Iterator[Client]:
    """A client of the scheduler or, without one, of new processes that end with this one."""
    with ExitStack() as stack:
        address = scheduler or stack.enter_context(_local_workers(jobs)).scheduler_address
        try:
            get_address_host_port(address)  # Client refuses a bad one, too, but hangs at exit
            client = stack.enter_context(Client(address, timeout=SECONDS, set_as_default=False))
            client.wait_for_workers(1, timeout=SECONDS)
        except (OSError, OverflowError, ValueError) as error:
            raise RuntimeError(
                f"no Dask scheduler with a worker answers at {address}: docs/cluster.md says "
                "how to start them."
            ) from error
        yield client


@contextmanager
def _local_workers(jobs: int) -> Iterator[LocalCluster]:
    # A terminal sends Ctrl-C to the workers, too. They inherit a mask that blocks it.
    resource_tracker.ensure_running()  # its start would end the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        cluster = LocalCluster(n_workers=jobs, **LOCAL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with cluster:
        try:
            yield cluster
        finally:  # Dask waits seconds for a run under way, and its checkpoint holds all of it
            for nanny in cluster.workers.values():
                nanny.close_gracefully()  # do not restart the process
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)


def _commit() -> str:
    """The commit of this code, with "+" if tracked files differ from it; "unknown" without git."""
    git = "git --git-dir=.git --work-tree=. describe --always --abbrev=40 --exclude='*' --dirty=+"
    root = Path(__file__).parent.parent
    done = subprocess.run(git, shell=True, cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
