"""Training: fit, the protocol; train_epoch, its loop; evaluation; device and seeds.

One seed controls a run. fit seeds every generator from (seed, epoch) when an epoch starts, so
nothing that happened before it, a killed process included, changes a bit of what follows.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import math
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from DataPipeline import ChunkLoader
from helpers.checkpoint import code_digest, load_checkpoint, save_checkpoint, weights_digest
from helpers.config import TrainingConfig, derive_seed, require_seed
from helpers.history import History, environment
from helpers.trial import trial_logits
from models import network_name

__all__ = ["EarlyStopping", "History", "TrainingConfig", "compute_logits", "evaluate", "fit"]
__all__ += ["get_device", "set_seed", "train_epoch"]

Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]


def train_epoch(
    model: nn.Module,
    batches: Loader,
    optimizer: torch.optim.Optimizer,
    scheduler: lr_scheduler.LRScheduler | None = None,
    label_smoothing: float = 0.0,
    bfloat16: bool = False,
) -> tuple[float, float, int]:
    """Train on each batch once; the mean loss, the accuracy (%) and the number of the images.

    batches: images, float32 [B, 1, 28, 28], and labels, int64 [B], on the model's device.
    scheduler: one that takes a step after each batch, such as OneCycleLR.
    bfloat16: whether convolutions compute in it; the weights stay float32.
    """
    model.train()
    losses, hits, sizes = [], [], []
    for images, labels in batches:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == labels).sum())
        sizes.append(len(labels))
    # Read once per epoch: every look makes the host wait for an accelerator.
    mean_loss = float(np.average(torch.stack(losses).tolist(), weights=sizes))
    return mean_loss, 100 * torch.stack(hits).sum().item() / sum(sizes), sum(sizes)


# --- fit ------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    train_loader: ChunkLoader,
    test_loader: ChunkLoader,
    config: TrainingConfig | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | Callable[[History], None] = True,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: lr_scheduler.LRScheduler | None = None,
    interval: str = "epoch",
    name: str | None = None,
) -> History:
    """Train by a protocol: Adam, a schedule of the learning rate, early stopping.

    model: trained in place; however fit ends, it has the weights of the last complete epoch.
    train_loader, test_loader: what make_loaders gives for this config; other data go into it.
    config: the protocol of the publication's page unless given.
    device: as for get_device.
    checkpoint: a file that holds the run after each complete epoch. Called again with the same
        arguments, fit resumes there; on a CPU, with the same versions and threads, exactly. Of a
        finished run it returns the weights and the history.
    progress: a line per epoch; False for silence; or a function to call with the history instead.
    optimizer, scheduler: torch's own in place of the config's, made anew for this model and call.
    interval: whether a scheduler that is given takes a step after each "epoch" or each "step".
    name: of the network; its name in models.NETWORKS, or its class's, unless given.

    Ctrl-C, or the notebook's stop button, ends fit with the complete epochs so far.

    Raises ValueError for a network that cannot be trained, loaders that are not for this config, a
    scheduler that is not new, and a checkpoint of another run (which is left alone);
    FloatingPointError for a loss that is not finite; OSError if the checkpoint cannot be written.
    """
    config, device = config or TrainingConfig(), get_device(device)
    if any(getattr(x, "config", None) != config for x in (train_loader, test_loader)):
        raise ValueError("a loader is not for this config; make both: make_loaders(data, config).")
    if interval not in ("epoch", "step"):
        raise ValueError(f"interval is {interval!r}; expected 'epoch' or 'step'.")
    steps, trial = len(train_loader), trial_logits(model, device)
    if optimizer is None:
        optimizer = scheduler.optimizer if scheduler else make_optimizer(model, config)
    plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    if scheduler and (plateau or scheduler.last_epoch > 0 or scheduler.optimizer is not optimizer):
        needs = "must be new, of the optimizer that is given, and not ReduceLROnPlateau"
        raise ValueError(f"the scheduler {needs}, which would see the loss of the test set.")
    if scheduler is None:
        scheduler = make_scheduler(optimizer, config, steps)
        interval = "step" if config.schedule == "one-cycle" else "epoch"
    history = History(
        network=name or network_name(model),
        seed=config.seed,
        config=json.loads(json.dumps(asdict(config))),  # plain numbers, if there are NumPy's
        environment=environment(device),
        code=code_digest(),
        data=train_loader.checksum,
    )
    shapes = [[key, *tensor.shape] for key, tensor in model.state_dict().items()]
    identity = {
        "network": [history.network, repr(model), shapes],
        "forward": trial,  # which tells the same layers with another rate or order from these
        "config": history.config,
        "optimizer": repr(optimizer),
        "scheduler": [type(scheduler).__name__, interval, scheduler.state_dict()],
        "data": [history.data, steps, str(train_loader.augmentation)],
        "code": history.code,
    }
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    def state() -> dict:
        """The run as it is now, in copies."""
        states = {key: part.state_dict() for key, part in parts.items()}
        return copy.deepcopy({"identity": identity, **states, "history": asdict(history)})

    last = state()  # at the end of the last complete epoch
    if checkpoint is not None:
        last = _resume(checkpoint, last)
        for key, part in parts.items():
            part.load_state_dict(last[key])
        vars(history).update(copy.deepcopy(last["history"]))

    def tell(text: str) -> None:
        if progress is True:
            print(text, flush=True)

    show = progress if callable(progress) else lambda history: tell(history.last_line())
    if done := len(history.epochs):
        complete = history.status != "interrupted"
        end = "complete: delete it to train again" if complete else f"up to epoch {done}"
        tell(f"{checkpoint} holds this run, {end}.")
    try:
        while history.status == "interrupted":  # and neither finished nor stopped early
            started, epoch = time.perf_counter(), len(history.epochs) + 1
            set_seed(derive_seed(config.seed, epoch))
            train_loader.set_epoch(epoch)
            batches = _on_device(train_loader, device, model)
            each_step = scheduler if interval == "step" else None
            train_loss, train_accuracy, history.train_images = train_epoch(
                model, batches, optimizer, each_step, config.label_smoothing, config.bfloat16
            )
            logits, labels = compute_logits(model, test_loader, device)
            predictions, test_loss = logits.argmax(1), F.cross_entropy(logits, labels).item()
            if not math.isfinite(train_loss + test_loss):
                raise FloatingPointError(
                    f"the training loss is {train_loss} and the test loss {test_loss} in epoch "
                    f"{epoch}: training diverged; lower the learning rate."
                )
            wrong = (predictions != labels).nonzero().flatten()
            record = {
                "train_loss": train_loss,
                "test_loss": test_loss,
                "train_accuracy": train_accuracy,
                "test_accuracy": 100 * (len(labels) - len(wrong)) / len(labels),
                "learning_rate": float(optimizer.param_groups[0]["lr"]),
            }
            if interval == "epoch":
                scheduler.step()
            history.epochs.append(record)
            history.misclassified = torch.stack([wrong, predictions[wrong]], 1).tolist()
            history.weights = weights_digest(model)
            history.status = status(history.epochs, config)
            record["seconds"] = time.perf_counter() - started
            last = state()
            if checkpoint is not None:
                save_checkpoint(checkpoint, last)
            show(history)
    except BaseException as error:
        model.load_state_dict(last["model"])
        vars(history).update(last["history"])
        error.history = history
        if not isinstance(error, KeyboardInterrupt):
            raise
    minutes = sum(record["seconds"] for record in history.epochs) / 60
    tell(f"{history.status} after {len(history.epochs)} epochs, {minutes:.1f} minutes")
    return history


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam, or with a one-cycle schedule AdamW, by the config."""
    on_mps = next(model.parameters()).device.type == "mps"
    return torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        decoupled_weight_decay=config.schedule == "one-cycle",  # AdamW's
        fused=None if on_mps else True,
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> lr_scheduler.LRScheduler:
    """StepLR, which takes a step per epoch, or OneCycleLR, which takes one after each batch.

    steps: batches per epoch, for OneCycleLR (arXiv:1708.07120).
    """
    if config.schedule == "step":
        return lr_scheduler.StepLR(optimizer, config.step_size, config.gamma)
    total = config.epochs * steps
    return lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=total,
        # By a warm-up of a single step torch divides by its length less one.
        pct_start=config.pct_start if config.pct_start * total > 1 else 0.0,
        cycle_momentum=config.cycle_momentum,
    )


class EarlyStopping:
    """Stop when a loss has not fallen under its best - min_delta for `patience` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best, self.bad_epochs = math.inf, 0

    def step(self, loss: float) -> bool:
        """Take note of an epoch's loss, or minus its accuracy; True if training should stop."""
        if loss < self.best - self.min_delta:
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience


def status(records: list[dict[str, float]], config: TrainingConfig) -> str:
    """What early stopping and the number of epochs say of a run with these records."""
    stopping = EarlyStopping(config.patience, config.min_delta)
    sign = -1 if config.monitor == "test_accuracy" else 1
    stops = [stopping.step(sign * record[config.monitor]) for record in records]
    if len(records) >= config.epochs:
        return "finished"
    return "early stopping" if any(stops) else "interrupted"


def _resume(checkpoint: str | Path, new: dict) -> dict:
    """The state to begin with: the checkpoint's, or the new one where there is no checkpoint.

    Raises ValueError if the checkpoint is not of the run that is about to begin.
    """
    saved = load_checkpoint(checkpoint)
    if saved is None:
        save_checkpoint(checkpoint, new)  # a place that cannot be written is noticed now
        return new
    theirs, ours = saved["identity"], new["identity"]
    differing = [k for k in ours if k != "forward" and theirs.get(k) != ours[k]]
    if not differing and not torch.allclose(theirs["forward"], ours["forward"], rtol=1e-3):
        differing = ["network's forward pass"]
    if differing:
        raise ValueError(
            f"the checkpoint {checkpoint} belongs to another run (different: "
            f"{', '.join(differing)}) and was left alone; choose another path, or delete it."
        )
    if saved["history"]["status"] != "interrupted":
        return saved
    theirs, ours = saved["history"]["environment"], new["history"]["environment"]
    if moved := [name for name in ours if theirs.get(name) != ours[name]]:
        warnings.warn(
            f"the checkpoint {checkpoint} was written in another environment "
            f"({', '.join(moved)}): training resumes, but not bit for bit as it would have there.",
            stacklevel=3,
        )
    saved["history"]["environment"] = ours
    return saved


# --- batches and evaluation -----------------------------------------------------------------------


def _on_device(batches: Loader, device: torch.device, model: nn.Module) -> Loader:
    """The batches on a device, in the layout of a model's convolutions."""
    strided = any(t.ndim == 4 and not t.is_contiguous() for t in model.parameters())
    layout = torch.channels_last if strided else torch.contiguous_format
    for images, labels in batches:
        # Copies are waited for: on MPS others corrupt in silence (pytorch/pytorch issue 189690).
        yield images.to(device, memory_format=layout), labels.to(device)


def compute_logits(
    model: nn.Module, loader: Loader, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 [N, 10] and labels int64 [N] of a loader's images, on the CPU.

    The model, which must be on the device, is put in evaluation mode meanwhile.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            pairs = [(model(x), y) for x, y in _on_device(loader, device, model)]
    finally:
        model.train(was_training)
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def evaluate(model: nn.Module, loader: Loader, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy loss and accuracy (%) over a loader; otherwise as compute_logits."""
    logits, labels = compute_logits(model, loader, device)
    hits = (logits.argmax(1) == labels).sum().item()
    return F.cross_entropy(logits, labels).item(), 100 * hits / len(labels)


# --- device and seeds -----------------------------------------------------------------------------


def get_device(preferred: str | torch.device | None = None) -> torch.device:
    """The device to train on: `preferred`, or else the first available of CUDA, MPS and CPU.

    It also sets torch up for small steps. Raises ValueError if the device is not available, or
    OMP_NUM_THREADS, if it is set, is no number of threads.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    name = present[0] if preferred is None else str(preferred)
    if name not in present:
        raise ValueError(f"there is no device {name!r} here; choose from {', '.join(present)}.")
    _set_up_cpu()
    return torch.device(name)


def set_seed(seed: int = 42) -> None:
    """Seed random, NumPy and torch (every backend); deterministic algorithms where there are any.

    Raises ValueError unless seed is an integer from 0 to 2**32 - 1 (NumPy's range).
    """
    require_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Filling fresh memory would cost time and hides nothing here: all of it is written first.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def _set_up_cpu() -> None:
    """Set torch and the C library up for small steps; benchmarks/README.md has the measurements.

    One thread, unless OMP_NUM_THREADS is set: in hundreds of small operations a step two wait for
    each other, and a run's bits would depend on the cores. glibc is asked to keep large freed
    blocks, which it would give back to the system: each step's activations would be mapped anew.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:  # torch would take any number, in silence
        raise ValueError(f"OMP_NUM_THREADS is {threads!r}; expected an integer from 1 on.")
    torch.set_num_threads(int(threads))
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None)
            libc.mallopt(trim_threshold, 2**31 - 1)
            libc.mallopt(mmap_threshold, 2**30)
