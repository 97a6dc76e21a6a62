"""Training: the loop, fit, with Adam, the learning rate's schedule and early stopping; evaluation.

One seed rules a run. fit seeds every generator from (seed, epoch) when an epoch starts, so nothing
that happened before it, a killed process included, changes a bit of what follows.
"""

from __future__ import annotations

import copy
import math
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.batches import Loader, checked
from helpers.checkpoint import differences, load_checkpoint, save_checkpoint
from helpers.config import TrainingConfig, derive_seed, get_device, memory_format, set_seed
from helpers.history import History, environment
from helpers.interrupts import Interrupts
from helpers.progress import Progress


class EarlyStopping:
    """Stop when the loss has not fallen under its best - min_delta for `patience` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.bad_epochs = 0

    def step(self, loss: float) -> bool:
        """Take note of an epoch's loss; True if training should stop."""
        if loss < self.best - self.min_delta:
            self.best = loss
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience


# --- evaluation -----------------------------------------------------------------------------------


def predict(
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
    """Mean cross-entropy loss and accuracy (per cent) over a loader; errors as for predict."""
    return _loss_and_accuracy(*predict(model, loader, device))


def _loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    hits = (logits.argmax(1) == labels).sum().item()
    return F.cross_entropy(logits, labels).item(), 100 * hits / len(labels)


# --- the run, and the loop ------------------------------------------------------------------------


class _Run:
    """The objects of one run, and the state that a checkpoint holds and an interrupt restores.

    The state is the network, Adam's moments and the history. The learning rate and early stopping
    follow from the history, so that they cannot contradict it.
    """

    def __init__(
        self, model: nn.Module, config: TrainingConfig, device: torch.device, data: dict
    ) -> None:
        self.model = model.to(device, memory_format=memory_format(device))
        self.config = config
        self.steps = data["train"]["batches"]
        variant = getattr(model, "variant", type(model).__name__)
        network = {
            "variant": variant,
            "parameters": [[name, list(p.shape)] for name, p in model.named_parameters()],
            "modules": repr(model),
        }
        self.identity = {"network": network, "config": config.as_dict(), "data": data}
        self.history = History(
            variant=variant,
            seed=config.seed,
            config=config.as_dict(),
            environment=environment(device),
        )
        self.start()

    def start(self) -> None:
        """Begin with the first epoch; the network stays as it is."""
        config = self.config
        on_mps = next(self.model.parameters()).device.type == "mps"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=None if on_mps else True,
        )
        self.scheduler = _schedule(self.optimizer, config, self.steps)
        self.history.epochs = []
        self.history.status = "interrupted"

    def end_step(self) -> None:
        """Take the schedule's step after a batch, if it takes one."""
        last = self.config.epochs * self.steps - 1
        if self.config.schedule == "one-cycle" and self.scheduler.last_epoch < last:
            self.scheduler.step()

    def end_epoch(self, record: dict[str, float]) -> None:
        """Note the epoch, and take the schedule's and early stopping's step."""
        self.history.epochs.append(record)
        self.history.status = _status(self.history.epochs, self.config)
        if self.config.schedule == "step":
            self.scheduler.step()

    def state(self) -> dict:
        """The run as it stands, copied."""
        return copy.deepcopy(
            {
                "identity": self.identity,
                "model": dict(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict()["state"],
                "history": asdict(self.history),
            }
        )

    def restore(self, state: dict) -> None:
        """Go back, or on, to a state of this very run."""
        self.model.load_state_dict(state["model"])
        self._replay(state["history"]["epochs"])
        for name in ("train_images", "mistakes"):
            setattr(self.history, name, state["history"][name])
        # Fused Adam trusts its state to lie in memory as the parameter does, apart from all else.
        blank = self._adam()
        with torch.no_grad():
            adam = {
                number: {k: torch.empty_like(blank[number][k]).copy_(v) for k, v in moments.items()}
                for number, moments in state["optimizer"].items()
            }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})

    def _replay(self, records: list[dict[str, float]]) -> None:
        """Begin, and go through these epochs without training."""
        self.start()
        with warnings.catch_warnings():  # the schedule misses the optimiser's steps
            warnings.simplefilter("ignore")
            for record in records:
                if self.history.status == "interrupted":
                    for _ in range(self.steps):
                        self.end_step()
                    rate = self.optimizer.param_groups[0]["lr"]
                    self.end_epoch({**record, "learning_rate": rate})

    def _adam(self) -> dict[int, dict[str, torch.Tensor]]:
        """What Adam holds of each parameter that is trained, by number, in kind."""
        return {
            number: {"step": torch.tensor(0.0), "exp_avg": p.detach(), "exp_avg_sq": p.detach()}
            for number, p in enumerate(self.model.parameters())
            if p.requires_grad
        }

    def resume(self, path: str | Path) -> bool:
        """Go on from a checkpoint, if there is one.

        Raises ValueError if it is not one of this very run; nothing of it has then been used.
        """
        state = load_checkpoint(path)
        if state is None:
            return False
        if wrong := self._compare(state):
            raise ValueError(
                f"the checkpoint {path} belongs to another run: {wrong}. It was left alone; choose "
                "another path, or delete it to start from the beginning."
            )
        there, here = state["history"]["environment"], self.history.environment
        if moved := "; ".join(differences(there, here)):
            warnings.warn(
                f"the checkpoint {path} was written elsewhere: {moved}. Training resumes, but not "
                "bit for bit as it would have there.",
                stacklevel=3,
            )
        self.restore(state)
        return True

    def _compare(self, state: object) -> str:
        """What a loaded state has that no state of this run can have, or ""."""
        try:
            history = History.from_dict(state.get("history") if type(state) is dict else state)
        except ValueError as error:
            found = [f"history: {error}"]
        else:
            self._replay(history.epochs)
            expected = self.state()
            expected["history"]["environment"] = history.environment
            if history.epochs:
                expected["optimizer"] = self._adam()
                for name in ("train_images", "mistakes", "clean_train"):
                    expected["history"][name] = getattr(history, name)
            found = differences(state, expected) or self._contradictions(state)
        wrong = " ".join("; ".join(found[:3]).split())
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        return wrong[:500] + more

    def _contradictions(self, state: dict) -> list[str]:
        """What cannot be in a state whose names, types and shapes are right."""
        history, adam = state["history"], state["optimizer"].values()
        epochs, images = len(history["epochs"]), history["train_images"]
        if not epochs:
            return []
        if None in (images, history["mistakes"]):
            return ["history: train_images or mistakes of its last epoch are missing"]
        steps = sorted({moments["step"].item() / epochs for moments in adam})
        batches = self.steps or steps[0]  # 0: it cannot tell
        if steps != [batches] or batches % 1 or not 1 <= batches <= images:
            return [f"optimizer: the steps it has taken are not {epochs} epochs'"]
        if any((moments["exp_avg_sq"] < 0).any() for moments in adam):
            return ["optimizer: a mean of squares is negative"]
        return []


def _schedule(
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


def _status(records: list[dict[str, float]], config: TrainingConfig) -> str:
    """What early stopping and the number of epochs say of a run with these records."""
    stopping = EarlyStopping(config.patience, config.min_delta)
    stops = [stopping.step(record["test_loss"]) for record in records]
    if len(records) >= config.epochs:
        return "finished"
    return "early stopping" if any(stops) else "interrupted"


def _train_epoch(
    run: _Run, batches: Iterable, epoch: int, show: Progress
) -> tuple[float, float, int]:
    """Mean loss, accuracy (per cent) and number of the images of one epoch of training."""
    losses, hits, sizes = [], [], []
    model, optimizer = run.model.train(), run.optimizer
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
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
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} in epoch {epoch}, step {step}; lower the learning "
                "rate."
            )
    accuracy = 100 * torch.stack(hits).sum().item() / sum(sizes)
    return float(np.average(losses, weights=sizes)), accuracy, sum(sizes)


def fit(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    config: TrainingConfig | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[History], None] = True,
) -> History:
    """Train by the protocol of config: Adam, its schedule, early stopping on the test loss.

    model: trained in place, and left on the device with the weights of the last complete epoch,
        however fit ends.
    train_loader, test_loader: iterables of (images float32 [B, 1, 28, 28], labels int64 [B]). One
        with a method set_epoch is told each epoch's number, from 1.
    config: the published protocol unless given.
    device: as for get_device.
    checkpoint: a file that holds the run after each complete epoch. Called again with the same
        arguments, fit resumes there; on a CPU, with the same versions and threads, exactly. A
        finished run is not trained again: its weights go into the model and its history comes back.
        Delete the file once the history is saved. Each loader needs an attribute checksum then, to
        tell other data by; those of make_loaders have it.
    progress: a live bar and a line per epoch; False for silence; or a function to call instead with
        the history after each epoch.

    An interrupt (Ctrl-C, or the notebook's stop button) ends fit with the complete epochs so far
    and status "interrupted"; so does SIGTERM, which then takes its course.

    Raises ValueError for a loader without batches, malformed batches, a loader made for another
    seed or batch size, and a checkpoint of another run (which is left alone) or for loaders without
    checksums; FloatingPointError for a loss that is not finite; OSError if the checkpoint cannot be
    written; RuntimeError if a worker of the loader dies.
    """
    config = config or TrainingConfig()
    device = get_device(device)
    _check_made_for(train_loader, config)
    data = {
        name: {"checksum": getattr(loader, "checksum", None), "batches": length_hint(loader)}
        for name, loader in (("train", train_loader), ("test", test_loader))
    }
    if checkpoint is not None and None in (part["checksum"] for part in data.values()):
        raise ValueError(
            "a checkpoint must know its data, and a loader has no attribute checksum: make the "
            "loaders by make_loaders, give them one, or leave the checkpoint out."
        )
    if config.schedule == "one-cycle" and not data["train"]["batches"]:
        raise ValueError(
            "the one-cycle schedule must know how many batches an epoch has, and the train loader "
            'has no length: give it one, or train by the schedule "step".'
        )
    run = _Run(model, config, device, data)
    history = run.history
    show = Progress(progress, history, run.steps)
    if checkpoint is not None and run.resume(checkpoint):
        show.resumed(checkpoint)

    with Interrupts() as interrupts, show:
        state = run.state()
        try:
            if checkpoint is not None and not history.epochs:
                save_checkpoint(checkpoint, state)  # a place that cannot be written is found now
            while history.status == "interrupted":
                started = time.perf_counter()
                epoch = len(history.epochs) + 1
                set_seed(derive_seed(config.seed, epoch))
                if hasattr(train_loader, "set_epoch"):
                    train_loader.set_epoch(epoch)

                batches = interrupts.between(checked(train_loader, device, "train"))
                train_loss, train_accuracy, images = _train_epoch(run, batches, epoch, show)
                logits, labels = predict(model, test_loader, device)
                test_loss, test_accuracy = _loss_and_accuracy(logits, labels)
                if not math.isfinite(test_loss):
                    raise FloatingPointError(
                        f"the test loss is {test_loss} after epoch {epoch}; lower the learning "
                        "rate."
                    )

                run.end_epoch(
                    {
                        "train_loss": train_loss,
                        "test_loss": test_loss,
                        "train_accuracy": train_accuracy,
                        "test_accuracy": test_accuracy,
                        "learning_rate": run.optimizer.param_groups[0]["lr"],
                        "seconds": time.perf_counter() - started,
                    }
                )
                history.train_images = images
                history.mistakes = _mistakes(logits, labels)
                whole = run.state()
                if checkpoint is not None:
                    save_checkpoint(checkpoint, whole)
                state = whole
                show.epoch()
        except BaseException as error:
            interrupts.hold()
            run.restore(state)
            _raise_unless_asked_for(error, interrupts, len(history.epochs) + 1, checkpoint)
        finally:
            if hasattr(train_loader, "stop_workers"):
                train_loader.stop_workers()  # one that dies later would disturb another cell
    show.end()
    if signal.SIGTERM in interrupts.arrived:
        signal.raise_signal(signal.SIGTERM)
    return history


def _check_made_for(loader: Loader, config: TrainingConfig) -> None:
    """Raise ValueError if a loader that knows its config was made for another one."""
    made_for = getattr(loader, "config", config)
    for name in ("seed", "batch_size"):
        there, here = getattr(made_for, name), getattr(config, name)
        if there != here:
            raise ValueError(
                f"the train loader was made for {name} {there}, and the config says {here}; "
                "make the loaders with the same config."
            )


def _mistakes(logits: torch.Tensor, labels: torch.Tensor) -> list[list[int]]:
    """[index, predicted digit] of every image that the logits get wrong."""
    predictions = logits.argmax(1)
    wrong = (predictions != labels).nonzero().flatten()
    return torch.stack([wrong, predictions[wrong]], dim=1).tolist()


def _raise_unless_asked_for(
    error: BaseException, interrupts: Interrupts, epoch: int, checkpoint: str | Path | None
) -> None:
    """Raise what broke an epoch off, in words, unless the user's interrupt did."""
    worker_died = _is_of_a_dead_worker(error)
    # Workers that got the signal too may fail in many ways.
    if signal.SIGTERM in interrupts.arrived or (interrupts.arrived and worker_died):
        return
    if worker_died:
        raise RuntimeError(
            f"a worker process of the data loader died in epoch {epoch} ({error}), perhaps because "
            "memory ran out; call fit again"
            + (" to resume from the checkpoint." if checkpoint is not None else ".")
        ) from error
    if not isinstance(error, KeyboardInterrupt):
        raise error


def _is_of_a_dead_worker(error: BaseException) -> bool:
    """Whether torch says that a worker died, or the connection to it broke before torch looked."""
    if isinstance(error, (ConnectionError, EOFError)):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        return frame.f_globals["__name__"].startswith("multiprocessing")
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
