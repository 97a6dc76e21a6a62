"""Batches on their way from a loader to the network: what they must be, checked in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from helpers.config import memory_format
from models import CLASSES, IMAGE

Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]


def checked(
    loader: Loader, device: torch.device, name: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The loader's batches on the device, each checked before it is used.

    name: "train" or "test", for messages.

    Raises ValueError for a batch that is not as the network takes it, and if there is none.
    """
    step = 0
    for step, batch in enumerate(loader, 1):
        if wrong := _wrong_with(batch, name):
            raise ValueError(
                f"batch {step} of the {name} loader holds {wrong}; expected a pair of images, "
                "finite float32 [B, 1, 28, 28], and labels, int64 [B] from 0 to 9 (or, to train "
                "by, probabilities: float32 [B, 10])."
            )
        images, labels = batch
        # From memory that is not pinned a copy that is not waited for may come too late (on MPS it
        # corrupts in silence: pytorch/pytorch issue 189690).
        pinned = device.type == "cuda" and images.is_pinned() and labels.is_pinned()
        yield (
            images.to(device, non_blocking=pinned, memory_format=memory_format(device)),
            labels.to(device, non_blocking=pinned),
        )
    if step == 0:
        raise ValueError(f"the {name} loader yields no batch; give it at least one image.")


def _wrong_with(batch: object, name: str) -> str | None:
    """What about a batch is not as the network takes it, or None; name: as for checked."""
    match batch:
        case [torch.Tensor() as images, torch.Tensor() as labels]:
            pass
        case _:
            return f"a {type(batch).__name__}"
    if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1:] != IMAGE:
        return f"images that are {images.dtype} {list(images.shape)}"
    shares = name == "train" and labels.is_floating_point()  # of each label, by digit
    expected = (torch.float32, (len(images), CLASSES)) if shares else (torch.int64, (len(images),))
    if (labels.dtype, labels.shape) != expected or len(labels) == 0:
        return f"labels that are {labels.dtype} {list(labels.shape)} for {len(images)} images"
    # To look at values on an accelerator would make the host wait for it in every step.
    if labels.device.type == "cpu":
        if not (labels.min() >= 0 and labels.max() < CLASSES):
            return f"labels from {labels.min()} to {labels.max()}"
        if shares and not (labels.sum(1) - 1).abs().max() < 1e-3:
            return "probabilities that do not add up to 1"
    if images.device.type == "cpu" and not images.abs().amax().isfinite():
        return "images with NaN or infinity"
    return None
