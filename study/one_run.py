"""One run of the study, wherever it is told to run: the very fit of the notebooks."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from DataPipeline import load_mnist, make_loaders
from helpers.config import TrainingConfig, get_device, set_seed
from helpers.history import History
from models import VARIANTS
from TrainingHelper import evaluate, fit

_one_at_a_time = threading.Lock()  # a process has one set of random generators


def train(
    variant: str,
    config: TrainingConfig,
    checkpoint: str | Path | None = None,
    train_images: int = 60_000,
    caller: int | None = None,
) -> History:
    """Train one variant as in the notebooks, without loader workers, and return its history.

    MNIST is that of load_mnist, wherever this runs. Threads of one process wait for each other.

    variant: a name in models.VARIANTS.
    config: with the run's seed.
    checkpoint: as for fit.
    train_images: the first so many, for tests.
    caller: the process that waits for the history; if it is this one's parent and dies, so does the
        run, after the checkpoint of its last complete epoch.

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
    """Ask this process to end once its parent has, which, killed, could not say so itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
