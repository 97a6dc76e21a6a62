"""The study's runs on the workers of a Dask cluster.

Scheduler and workers need this project's requirements, and none of its modules: what a worker is
sent is one function, by value, and a zip of the code for the process that the function starts.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path

from study import one_run
from study.one_run import in_process, snapshot

SECONDS = 10  # that a scheduler and its first worker have to answer


@contextmanager
def on_cluster(
    address: str, tell: Callable[[str, int], None]
) -> Iterator[tuple[Callable[[str, dict], Future], Callable[[], int]]]:
    """A Dask cluster that trains, as a context: as runs.on_this_machine, with other errors.

    A run whose worker dies starts from the beginning on another one. One that is under way when
    this context ends early runs on, unheard.

    address: of the scheduler.
    tell: called with a run's name and its number of complete epochs, after each.

    Raises RuntimeError if no scheduler answers, it has no worker, or it goes away, or if several
    workers die of one run.
    """
    import cloudpickle  # here, as they take a second to import
    from distributed import Client, KilledWorker, get_worker
    from distributed.comm import CommClosedError, get_address_host_port

    try:
        get_address_host_port(address)  # Client refuses a bad one too, but then hangs at exit
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, OverflowError, ValueError) as error:
        raise RuntimeError(
            f"no Dask scheduler answers at {address}: start one by dask scheduler, and name the "
            "address it prints."
        ) from error

    topic = f"study-{uuid.uuid4()}"

    def train_there(name: str, task: dict, code: bytes) -> dict:
        def log(epochs: int) -> None:
            get_worker().log_event(topic, [name, epochs])

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "code.zip")
            path.write_bytes(code)
            return in_process(task, path, log)

    with client, tempfile.TemporaryDirectory() as folder:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError as error:
            raise RuntimeError(
                f"the Dask scheduler at {address} has no worker: start some by dask worker "
                f"{address} --nthreads 1 --nworkers -1"
            ) from error
        path = Path(folder, "code.zip")
        snapshot(path)
        code = path.read_bytes()
        cloudpickle.register_pickle_by_value(one_run)
        client.subscribe_topic(topic, lambda event: tell(*event[1]))
        workers = client.get_executor(pure=False)
        try:
            yield (
                lambda name, task: workers.submit(train_there, name, task, code),
                lambda: max(1, sum(client.nthreads().values())),
            )
        except (CancelledError, CommClosedError, KilledWorker) as error:
            raise RuntimeError(
                f"the Dask scheduler at {address} is gone, or several workers died of one run: see "
                "what they logged, and run again for what is missing."
            ) from error
        finally:
            workers.shutdown(wait=False)
