"""Where runs run: Dask's workers, on this machine or on many, and a process for each run.

A run is the very fit of the notebooks in a Python process of its own, with a snapshot of the code:
files that change while a study runs change none of its runs.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from DataPipeline import load_mnist, make_loaders
from helpers.config import TrainingConfig, get_device, set_seed
from helpers.history import History
from helpers.run import OtherCode
from helpers.weights import load_weights, save_weights
from models import SETTINGS
from TrainingHelper import evaluate, fit

if TYPE_CHECKING:
    from distributed import Client

SECONDS = 10  # that a scheduler and its first worker have to answer


@contextmanager
def workers(
    scheduler: str | None, jobs: int | None, tell: Callable[[str, int], None]
) -> Iterator[tuple[Callable[[str, dict], Future], Callable[[], int]]]:
    """A Dask cluster, as a context: a function that submits a run, and how many fit at once.

    A run whose process or worker dies goes on elsewhere. When the context ends early, this
    machine's runs end; those on other machines run on, unheard.

    tell: called with a run's name and its number of complete epochs, after each.

    Raises RuntimeError if no scheduler answers, it has no worker, or it goes away, or if several
    processes die of one run.
    """
    import cloudpickle  # here, as they take a second to import
    from dask.system import CPU_COUNT
    from distributed import Client, KilledWorker, LocalCluster, get_worker
    from distributed.comm import CommClosedError, get_address_host_port

    # Or it shows a traceback where a worker hangs up while its last message is on the way.
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    cluster = None
    if not scheduler:
        cluster = LocalCluster(
            n_workers=jobs or CPU_COUNT,
            threads_per_worker=1,
            processes=False,
            # Or its pages would be served on 8787 to whoever reaches this machine.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
        )
    try:
        if scheduler:
            get_address_host_port(scheduler)  # Client refuses a bad one too, but hangs at exit
        client = Client(scheduler or cluster, timeout=SECONDS, set_as_default=False)
    except (OSError, OverflowError, ValueError) as error:
        raise RuntimeError(
            f"no Dask scheduler answers at {scheduler}: start one by dask scheduler, and name the "
            "address it prints."
        ) from error
    topic, code = f"study-{uuid.uuid4()}", snapshot()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other machines lack this module
    # The runs here live as long as our end is open; that of a killed caller is not.
    life, ours = os.pipe()

    def train_there(name: str, task: dict) -> tuple[bytes, bytes] | str:
        return in_process(
            task,
            code,
            lambda epochs: get_worker().log_event(topic, [name, epochs]),
            None if scheduler else life,
        )

    def capacity() -> int:
        try:
            return max(1, sum(client.nthreads().values()))
        except OSError as error:  # of which a time-out is one; the caller's have other reasons
            raise CommClosedError(str(error)) from error

    with _closed_at_last(client):
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError as error:
            raise RuntimeError(
                f"the Dask scheduler at {scheduler} has no worker: start some by dask worker "
                f"{scheduler} --nthreads 1 --nworkers -1"
            ) from error
        client.subscribe_topic(topic, lambda event: tell(*event[1]))
        executor = client.get_executor(pure=False, retries=2)
        try:
            yield lambda name, task: executor.submit(train_there, name, task), capacity
        except (CancelledError, CommClosedError, KilledWorker) as error:
            raise RuntimeError(
                f"the Dask scheduler at {scheduler} is gone, or several workers died of one run: "
                "see what they logged, and run again for what is missing."
            ) from error
        finally:
            executor.shutdown(wait=False)
            os.close(ours)
            if cluster:
                cluster.close()
            os.close(life)


@contextmanager
def _closed_at_last(client: Client) -> Iterator[None]:
    """A client as a context. That it cannot be closed is no news where its scheduler is gone."""
    try:
        yield
    finally:
        with suppress(RuntimeError):  # of a close that meets the client's own
            client.close()


def snapshot() -> bytes:
    """This project's modules, as they are now, in a zip that Python can import from."""
    root = Path(__file__).parent.parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for pattern in ("*.py", "helpers/*.py", "study/*.py"):
            for module in root.glob(pattern):
                archive.write(module, module.relative_to(root))
    return packed.getvalue()


def in_process(
    task: dict, code: bytes, tell: Callable[[int], None], life: int | None
) -> tuple[bytes, bytes] | str:
    """Train in a Python process of its own: the history's JSON and the weights; or what it lacked.

    It gets no Ctrl-C from the terminal, and ends when its standard input does, which is also when
    the process that holds the other end dies.

    task: the arguments of train.
    code: what snapshot gave.
    tell: called with the number of complete epochs after each.
    life: a pipe to read from; None for one that this process holds.

    Raises RuntimeError if the process died.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "code.zip").write_bytes(code)
        path = os.pathsep.join(
            filter(None, [f"{folder / 'code.zip'}", os.environ.get("PYTHONPATH")])
        )
        with (
            open(folder / "errors", "w+") as errors,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "study.workers", json.dumps(task), name],
                stdin=subprocess.PIPE if life is None else life,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            ) as process,
        ):
            for line in process.stdout:
                if line.strip().isdecimal():
                    tell(int(line))
            process.wait()  # it still lives, and its standard input must not end before it does
            errors.seek(0)
            said = errors.read().strip()
        if process.returncode == 0:
            return tuple((folder / f).read_bytes() for f in ("run.json", "run.safetensors"))
    if process.returncode == 3:
        return said.rpartition("\n")[2]
    raise RuntimeError(
        f"a process died (status {process.returncode}) in the run of {task['variant']} with seed "
        f"{task['config']['seed']}, perhaps because memory ran out: run again to resume, with "
        f"fewer --jobs if need be. {said[-500:]}"
    )


def train(
    folder: str | Path,
    variant: str,
    config: Mapping[str, object],
    checkpoint: str | Path,
    train_images: int,
    held_out: bool,
    teachers: Sequence[str],
    host: str,
) -> None:
    """Train one variant as in the notebooks, without loader threads; print each epoch's number.

    The history and the weights go into the folder, as run.json and run.safetensors. MNIST is that
    of load_mnist, wherever this runs. The checkpoint is kept on the host that asked for the run;
    one by other code is of no use to a study, and the run begins again.
    """
    config, device = TrainingConfig(**config), get_device()
    data = load_mnist().held_out() if held_out else load_mnist()
    networks = [load_weights(path).to(device) for path in teachers]
    loaders = make_loaders(data.first(train_images), config, device, 0, networks)
    set_seed(config.seed)
    model = SETTINGS[config.setting][variant].network()
    if host != socket.gethostname():
        checkpoint = Path(folder, "run.pt")

    def tell(history: History) -> None:
        print(len(history.epochs), flush=True)

    try:
        history = fit(model, *loaders, config, device, checkpoint, tell)
    except OtherCode:
        Path(checkpoint).unlink()
        history = fit(model, *loaders, config, device, checkpoint, tell)
    loss, accuracy = evaluate(model, loaders[0].as_they_are(), device)
    history.clean_train = {"loss": loss, "accuracy": accuracy}
    history.save(Path(folder, "run.json"))
    save_weights(model, Path(folder, "run.safetensors"), history)


def _main(task: str, folder: str) -> None:
    """Train for in_process; status 3 and a sentence for what the user can mend."""

    def end_with_stdin() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)  # the checkpoint holds the last complete epoch

    threading.Thread(target=end_with_stdin, daemon=True).start()
    try:
        train(folder, **json.loads(task))
    except (ArithmeticError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
        os._exit(3)


if __name__ == "__main__":
    _main(*sys.argv[1:])
