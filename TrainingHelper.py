"""Training: fit, the loop; evaluation. helpers/run.py has optimizer, schedule and early stopping.

One seed controls a run. fit seeds every generator from (seed, epoch) when an epoch starts, so
nothing that happened before it, a killed process included, changes a bit of what follows.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.batches import Loader, checked
from helpers.config import PROTOCOLS, TrainingConfig, derive_seed, get_device, set_seed
from helpers.history import History, environment
from helpers.progress import Progress
from helpers.run import EarlyStopping, Run
from models import identify

__all__ = ["PROTOCOLS", "EarlyStopping", "History", "TrainingConfig", "compute_logits"]
__all__ += ["environment", "evaluate", "fit", "get_device", "set_seed"]


def fit(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    config: TrainingConfig | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[History], None] = True,
) -> History:
    """Train by the protocol of config: Adam, its schedule, early stopping.

    model: trained in place, and left on the device with the weights of the last complete epoch,
        however fit ends.
    train_loader, test_loader: iterables of (images float32 [B, 1, 28, 28], labels int64 [B]); the
        train loader's labels may be probabilities, float32 [B, 10], of which the likeliest digit
        counts for the accuracy. One with a method set_epoch is told each epoch's number, from 1.
    config: the page's protocol unless given.
    device: as for get_device.
    checkpoint: a file that holds the run after each complete epoch. Called again with the same
        arguments, fit resumes there; on a CPU, with the same versions and threads, exactly. A
        finished run is not trained again: its weights go into the model and its history comes back.
        Delete the file once the history is saved. Each loader needs an attribute checksum then, to
        tell other data by; those of make_loaders have it.
    progress: a live bar and a line per epoch; False for silence; or a function to call instead with
        the history after each epoch.

    An interrupt (Ctrl-C, or the notebook's stop button) ends fit with the complete epochs so far
    and status "interrupted".

    Raises ValueError for a loader without batches, malformed batches, a loader or a network made
    for another config, and a checkpoint of another run (which is left alone) or for loaders without
    checksums; FloatingPointError for a loss that is not finite; OSError if the checkpoint cannot be
    written.
    """
    config = config or TrainingConfig()
    device = get_device(device)
    _check_arguments(model, train_loader, test_loader, config, checkpoint)
    run = Run(model, train_loader, test_loader, config)
    history = run.history
    show = Progress(progress, history, run.steps)
    try:
        run.begin(device, sys.modules[__name__])
        if checkpoint is not None and run.resume(checkpoint):
            show.resumed(checkpoint)
        with show:
            while history.status == "interrupted":  # and neither finished nor stopped early
                started = time.perf_counter()
                epoch = len(history.epochs) + 1
                set_seed(derive_seed(config.seed, epoch))
                if hasattr(train_loader, "set_epoch"):
                    train_loader.set_epoch(epoch)

                batches = checked(train_loader, device, "train")
                train_loss, train_accuracy, images = _train_epoch(run, batches, epoch, show)
                logits, labels = compute_logits(model, test_loader, device)
                test_loss, test_accuracy = _loss_and_accuracy(logits, labels)
                _check_loss("test", test_loss, f"after epoch {epoch}")

                record = {
                    "train_loss": train_loss,
                    "test_loss": test_loss,
                    "train_accuracy": train_accuracy,
                    "test_accuracy": test_accuracy,
                    "learning_rate": run.optimizer.param_groups[0]["lr"],
                    "seconds": time.perf_counter() - started,
                }
                run.end_epoch(record, images, _mistakes(logits, labels))
                run.keep(checkpoint)
                show.epoch()
    except BaseException as error:
        run.go_back()
        if not isinstance(error, KeyboardInterrupt):
            raise
    show.end()
    return history


def _train_epoch(
    run: Run, batches: Iterable, epoch: int, show: Progress
) -> tuple[float, float, int]:
    """Mean loss, accuracy (per cent) and number of the images of one epoch of training."""
    losses, hits, sizes = [], [], []
    model, optimizer = run.model.train(), run.optimizer
    for images, labels in batches:
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        run.end_step()
        losses.append(loss.detach())
        digits = labels if labels.ndim == 1 else labels.argmax(1)
        hits.append((logits.detach().argmax(1) == digits).sum())
        sizes.append(len(labels))
        show.step(losses, hits, sizes)
    # Read once per epoch: every look makes the host wait for an accelerator.
    losses = torch.stack(losses).tolist()
    for step, loss in enumerate(losses, 1):
        _check_loss("training", loss, f"in epoch {epoch}, step {step}")
    accuracy = 100 * torch.stack(hits).sum().item() / sum(sizes)
    return float(np.average(losses, weights=sizes)), accuracy, sum(sizes)


# --- evaluation -----------------------------------------------------------------------------------


def compute_logits(
    model: nn.Module, loader: Loader, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 [N, 10] and labels int64 [N] of a loader's images, on the CPU.

    The model, which must be on the device, is put in evaluation mode meanwhile.
    Raises ValueError for a loader without batches or with malformed ones.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            pairs = [(model(x), y) for x, y in checked(loader, device, "test")]
    finally:
        model.train(was_training)
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def evaluate(model: nn.Module, loader: Loader, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy loss and accuracy (%) over a loader; errors as for compute_logits."""
    return _loss_and_accuracy(*compute_logits(model, loader, device))


def _loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    hits = (logits.argmax(1) == labels).sum().item()
    return F.cross_entropy(logits, labels).item(), 100 * hits / len(labels)


def _mistakes(logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[int, int]]:
    """Index and predicted digit of every image that the logits get wrong."""
    predictions = logits.argmax(1)
    wrong = (predictions != labels).nonzero().flatten()
    return list(zip(wrong.tolist(), predictions[wrong].tolist(), strict=True))


def _check_loss(name: str, loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(f"the {name} loss is {loss} {where}; lower the learning rate.")


def _check_arguments(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    config: TrainingConfig,
    checkpoint: str | Path | None,
) -> None:
    """Raise ValueError for what was made for another config, or is not enough for this one."""
    made_for = getattr(train_loader, "config", config)
    names = ("seed", "batch_size", "setting", "augmentation", "plain_from", "distillation")
    for name in names:
        there, here = getattr(made_for, name), getattr(config, name)
        if there != here:
            raise ValueError(
                f"the train loader was made for {name} {there!r}, and the config says {here!r}; "
                "make the loaders with the same config."
            )
    setting, variant = identify(model) or (config.setting, None)
    if setting != config.setting:
        raise ValueError(
            f"the network is {variant} {setting}, and the config's setting is {config.setting}; "
            f"take a config with setting={setting!r}, or a network of "
            f"models.SETTINGS[{config.setting!r}]."
        )
    if checkpoint is not None and not all(
        hasattr(loader, "checksum") for loader in (train_loader, test_loader)
    ):
        raise ValueError(
            "a checkpoint must know its data, and a loader has no attribute checksum: make the "
            "loaders by make_loaders, give them one, or leave the checkpoint out."
        )
    if config.schedule == "one-cycle" and not length_hint(train_loader):
        raise ValueError(
            "the one-cycle schedule must know how many batches an epoch has, and the train loader "
            'has no length: give it one, or train by the schedule "step".'
        )
