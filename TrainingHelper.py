"""Training: the loop, fit, with Adam, the learning rate's schedule and early stopping; evaluation.

One seed controls a run. fit seeds every generator from (seed, epoch) when an epoch starts, so
nothing that happened before it, a killed process included, changes a bit of what follows.
"""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from operator import length_hint
from pathlib import Path

import numpy as np
import torch

# Adam imports it at its first use, and an interrupt in the middle of that would break it for good.
import torch._dynamo
import torch.nn.functional as F
from torch import nn

from helpers.batches import Loader, checked
from helpers.checkpoint import (
    code_digest,
    differences,
    load_checkpoint,
    save_checkpoint,
    weights_digest,
)
from helpers.config import (
    PROTOCOLS,
    TrainingConfig,
    derive_seed,
    get_device,
    memory_format,
    set_seed,
)
from helpers.history import History, environment
from helpers.progress import Progress
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
    train_loader, test_loader: iterables of (images float32 [B, 1, 28, 28], labels int64 [B]). One
        with a method set_epoch is told each epoch's number, from 1.
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
    run = _Run(model, train_loader, test_loader, config)
    history = run.history
    show = Progress(progress, history, run.steps)
    try:
        run.begin(device)
        if checkpoint is not None and run.resume(checkpoint):
            show.resumed(checkpoint)
        with show:
            while history.status == "interrupted":
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
    run: _Run, batches: Iterable, epoch: int, show: Progress
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
        hits.append((logits.detach().argmax(1) == labels).sum())
        sizes.append(len(labels))
        show.step(losses, hits, sizes)
    # Read once per epoch: every look makes the host wait for an accelerator.
    losses = torch.stack(losses).tolist()
    for step, loss in enumerate(losses, 1):
        _check_loss("training", loss, f"in epoch {epoch}, step {step}")
    accuracy = 100 * torch.stack(hits).sum().item() / sum(sizes)
    return float(np.average(losses, weights=sizes)), accuracy, sum(sizes)


class EarlyStopping:
    """Stop when a loss has not fallen under its best - min_delta for `patience` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.bad_epochs = 0

    def step(self, loss: float) -> bool:
        """Take note of an epoch's loss, or minus its accuracy; True if training should stop."""
        if loss < self.best - self.min_delta:
            self.best = loss
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience


def status(records: list[dict[str, float]], config: TrainingConfig) -> str:
    """What early stopping and the number of epochs say of a run with these records."""
    stopping = EarlyStopping(config.patience, config.min_delta)
    sign = -1 if "accuracy" in config.watch else 1
    stops = [stopping.step(sign * record[config.watch]) for record in records]
    if len(records) >= config.epochs:
        return "finished"
    return "early stopping" if any(stops) else "interrupted"


def schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's schedule: StepLR steps once per epoch, OneCycleLR after each batch.

    OneCycleLR (Smith and Topin 2018, arXiv:1708.07120) is torch's. It leaves Adam's momentum alone,
    so that only the rate differs.

    steps: batches per epoch.
    """
    if config.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, config.step_size, config.gamma)
    total = config.epochs * steps
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=total,
        # By a warm-up of a single step torch divides by its length less one.
        pct_start=config.warm_up if config.warm_up * total > 1 else 0.0,
        cycle_momentum=False,
    )


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


# --- the state of a run ---------------------------------------------------------------------------


class _Run:
    """The objects of one run, and its state after the last complete epoch.

    The state is the network, Adam's moments and the history. The learning rate and early stopping
    follow from the history, so that they cannot contradict it.
    """

    def __init__(
        self, model: nn.Module, train_loader: Loader, test_loader: Loader, config: TrainingConfig
    ) -> None:
        self.model, self.config = model, config
        self.loaders = {"train": train_loader, "test": test_loader}
        self.steps = length_hint(train_loader)
        _, variant = identify(model) or (None, type(model).__name__)
        self.history = History(
            variant=variant,
            seed=config.seed,
            config=config.as_dict(),
            data=getattr(train_loader, "checksum", None),
        )
        self.kept = None

    def begin(self, device: torch.device) -> None:
        """Get ready for the first epoch; the network stays as it is."""
        model, history = self.model, self.history
        history.environment = environment(device)
        history.code = code_digest(sys.modules[__name__], *self.loaders.values(), *model.modules())
        self.identity = {
            "variant": history.variant,
            "parameters": [[name, list(p.shape)] for name, p in model.named_parameters()],
            "modules": repr(model),
            "config": self.config.as_dict(),
            "data": {
                name: {
                    "checksum": getattr(loader, "checksum", None),
                    "batches": length_hint(loader),
                }
                for name, loader in self.loaders.items()
            },
            "code": history.code,
        }
        model.to(device, memory_format=memory_format(device))
        self._start()
        self.kept = self._state()

    def _start(self) -> None:
        config = self.config
        on_mps = next(self.model.parameters()).device.type == "mps"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=None if on_mps else True,
        )
        self.scheduler = schedule(self.optimizer, config, self.steps)
        self.history.epochs = []
        self.history.status = "interrupted"

    def end_step(self) -> None:
        """Take the schedule's step after a batch, if it takes one."""
        last = self.config.epochs * self.steps - 1
        if self.config.schedule == "one-cycle" and self.scheduler.last_epoch < last:
            self.scheduler.step()

    def end_epoch(
        self, record: dict[str, float], images: int, mistakes: list[tuple[int, int]]
    ) -> None:
        """Note the epoch, and take the schedule's and early stopping's step."""
        self._note(record)
        self.history.train_images = images
        self.history.mistakes = mistakes
        self.history.weights = weights_digest(self.model)

    def _note(self, record: dict[str, float]) -> None:
        self.history.epochs.append(record)
        self.history.status = status(self.history.epochs, self.config)
        if self.config.schedule == "step":
            self.scheduler.step()

    def keep(self, checkpoint: str | Path | None) -> None:
        """Remember the state as it is now, in the checkpoint too."""
        state = self._state()
        if checkpoint is not None:
            save_checkpoint(checkpoint, state)
        self.kept = state

    def _state(self) -> dict:
        return copy.deepcopy(
            {
                "identity": self.identity,
                "model": dict(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict()["state"],
                # Validated: a callback may have written into it, and what is saved has to load.
                "history": History.from_dict(self.history.as_dict()).as_dict(),
            }
        )

    def go_back(self) -> None:
        """Return to the last complete epoch; a second interrupt must not leave half of that."""
        while self.kept is not None:
            try:
                self._restore(self.kept)
                return
            except KeyboardInterrupt:
                continue

    def resume(self, checkpoint: str | Path) -> bool:
        """Go on from a checkpoint, if there is one.

        Raises ValueError if it is not one of this very run; nothing of it has then been used.
        """
        state = load_checkpoint(checkpoint)
        if state is None:
            save_checkpoint(checkpoint, self.kept)  # a place that cannot be written is found now
            return False
        try:
            if wrong := differences(state["identity"], self.identity):
                raise ValueError("; ".join(wrong[:3]))
            self._restore(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self.go_back()
            raise ValueError(
                f"the checkpoint {checkpoint} belongs to another run: {str(error)[:500]}. It was "
                "left alone; choose another path, or delete it to start from the beginning."
            ) from error
        there, here = state["history"]["environment"], self.history.environment
        if moved := "; ".join(differences(there, here)):
            warnings.warn(
                f"the checkpoint {checkpoint} was written elsewhere: {moved}. Training resumes, "
                "but not bit for bit as it would have there.",
                stacklevel=3,
            )
        self.kept = state
        return True

    def _restore(self, state: dict) -> None:
        """Go back, or on, to a state of this very run."""
        there = History.from_dict(state["history"])
        self.model.load_state_dict(state["model"])
        self._start()
        with warnings.catch_warnings():  # the schedule misses the optimizer's steps
            warnings.simplefilter("ignore")
            for record in there.epochs:
                for _ in range(self.steps):
                    self.end_step()
                self._note(record)
        for name in ("train_images", "mistakes", "weights"):
            setattr(self.history, name, getattr(there, name))
        # Fused Adam trusts its state to have the shapes and the memory layout of the parameters.
        parameters = self.optimizer.param_groups[0]["params"]
        moments = {}
        for number, adam in state["optimizer"].items():
            like = {
                "step": torch.tensor(0.0),
                **dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[number]),
            }
            moments[number] = {
                name: torch.empty_like(like[name]).copy_(adam[name]) for name in like
            }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _check_arguments(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    config: TrainingConfig,
    checkpoint: str | Path | None,
) -> None:
    """Raise ValueError for what was made for another config, or is not enough for this one."""
    made_for = getattr(train_loader, "config", config)
    for name in ("seed", "batch_size", "setting"):
        there, here = getattr(made_for, name), getattr(config, name)
        if there != here:
            raise ValueError(
                f"the train loader was made for {name} {there}, and the config says {here}; "
                "make the loaders with the same config."
            )
    setting, variant = identify(model) or (config.setting, None)
    if setting != config.setting:
        raise ValueError(
            f"the network is {variant} {setting}, and the config's setting is {config.setting}; "
            "take PROTOCOLS[setting], or a network of models.SETTINGS[setting]."
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
