"""What a run consists of: Adam, its learning rate's schedule, early stopping; and its state.

fit in TrainingHelper.py drives it. The state after each complete epoch is what a checkpoint holds
and what an interrupt returns to.
"""

from __future__ import annotations

import copy
import math
import sys
import warnings
from operator import length_hint
from pathlib import Path
from types import ModuleType

import torch

# Adam imports it at its first use, and an interrupt in the middle of that would break it for good.
import torch._dynamo
from torch import nn

from helpers.batches import Loader
from helpers.checkpoint import (
    code_digest,
    differences,
    load_checkpoint,
    save_checkpoint,
    weights_digest,
)
from helpers.config import TrainingConfig, memory_format
from helpers.history import History, environment
from models import identify


class OtherCode(ValueError):
    """A checkpoint is of the run that was to resume, but by other code."""


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


class Run:
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

    def begin(self, device: torch.device, loop: ModuleType) -> None:
        """Get ready for the first epoch; the network stays as it is.

        loop: the module that trains, of which the run's code is a part.
        """
        model, history = self.model, self.history
        history.environment = environment(device)
        used = (loop, sys.modules[__name__], *self.loaders.values(), *model.modules())
        history.code = code_digest(*used)
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
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            decoupled_weight_decay=config.schedule == "one-cycle",  # AdamW's
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
        while True:
            try:
                torch.set_grad_enabled(True)  # torch, interrupted, may have left it off
                if self.kept is not None:
                    self._restore(self.kept)
                return
            except KeyboardInterrupt:
                continue

    def resume(self, checkpoint: str | Path) -> bool:
        """Go on from a checkpoint, if there is one.

        Raises ValueError if it is not one of this very run, OtherCode if the code alone differs;
        nothing of it has then been used.
        """
        state = load_checkpoint(checkpoint)
        if state is None:
            save_checkpoint(checkpoint, self.kept)  # a place that cannot be written is found now
            return False
        try:
            there, here = state["identity"], self.identity
            if wrong := differences(there, here):
                by_code = there | {"code": here["code"]} == here
                raise (OtherCode if by_code else ValueError)("; ".join(wrong[:3]))
            self._restore(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            self.go_back()
            raise (OtherCode if isinstance(error, OtherCode) else ValueError)(
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
            if any(adam[name].shape != like[name].shape for name in like):
                raise ValueError("Adam's moments have other shapes than the parameters")
            moments[number] = {
                name: torch.empty_like(like[name]).copy_(adam[name]) for name in like
            }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
