"""One run of the study: the very fit of the notebooks, in a Python process of its own.

in_process starts `python -m study.one_run` with the code that snapshot wrote, reads what it
answers, and knows nothing else of it. So a run is the same on this machine and on a worker of a
cluster, and files that change while a study runs change none of its runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from DataPipeline import load_mnist, make_loaders
from helpers.config import TrainingConfig, get_device, set_seed
from helpers.history import History
from models import VARIANTS
from TrainingHelper import evaluate, fit


def train(
    variant: str,
    config: TrainingConfig,
    checkpoint: str | Path | None = None,
    train_images: int = 60_000,
    held_out: bool = False,
    progress: bool | Callable[[History], None] = False,
) -> History:
    """Train one variant as in the notebooks, without loader workers, and return its history.

    MNIST is that of load_mnist, wherever this runs.

    variant: a name in models.VARIANTS.
    config: with the run's seed.
    checkpoint, progress: as for fit.
    train_images: the first so many; 50,000 are all with held_out.
    held_out: whether to test on 10,000 training images, as MNIST.held_out has it.

    Raises what load_mnist and fit raise.
    """
    device = get_device()
    data = load_mnist().held_out() if held_out else load_mnist()
    loaders = make_loaders(data.first(train_images), config, device, num_workers=0)
    set_seed(config.seed)
    model = VARIANTS[variant].network()
    history = fit(model, *loaders, config, device, checkpoint, progress)
    if history.status != "interrupted":
        loss, accuracy = evaluate(model, loaders[0].as_they_are(), device)
        history.clean_train = {"loss": loss, "accuracy": accuracy}
    return history


def snapshot(path: str | Path) -> None:
    """Write this project's modules, as they are now, into a zip that Python can import from."""
    root = Path(__file__).parent.parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for pattern in ("*.py", "helpers/*.py", "study/*.py"):
            for module in root.glob(pattern):
                archive.write(module, module.relative_to(root))


def in_process(
    task: dict,
    code: str | Path,
    tell: Callable[[int], None],
    stdin: int = subprocess.PIPE,
) -> dict:
    """Train in a Python process of its own, and return the history as a dict.

    It gets no Ctrl-C from the terminal: it ends, as by SIGTERM, when its standard input does, which
    is also when the process that holds the other end dies.

    task: the arguments of train but progress, with config as a dict.
    code: what snapshot wrote, or a folder with the modules.
    tell: called with the number of complete epochs after each.
    stdin: a pipe to read from; unless given, one that this process holds.

    Raises RuntimeError with what train raised, or if the process died.
    """
    command = [sys.executable, "-P", "-m", "study.one_run", json.dumps(task)]
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        for line in process.stdout:
            answer = json.loads(line) if line.endswith("\n") else None  # None: it died writing
            if isinstance(answer, int):
                tell(answer)
        process.wait()  # it still lives, and its standard input must not end before it does
    if process.returncode != 0:
        raise RuntimeError(
            f"a worker process died (status {process.returncode}) in the run of {task['variant']} "
            f"with seed {task['config']['seed']}, perhaps because memory ran out: run again to "
            "resume from the checkpoints, with fewer --jobs if need be."
        )
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def main() -> None:
    """Train as told by the first argument, for in_process; answer by lines of JSON.

    They are the number of complete epochs after each, and at the end the history, or a string that
    says what went wrong.
    """
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed shall not be taken for an answer

    def answer(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    task = json.loads(sys.argv[1])
    task["config"] = TrainingConfig(**task["config"])
    try:
        history = train(**task, progress=lambda history: answer(len(history.epochs)))
    except (ArithmeticError, OSError, RuntimeError, ValueError) as error:
        answer(str(error))
    else:
        answer(asdict(history))


def _end_with_stdin() -> None:
    """Ask this process to end once its standard input has."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
