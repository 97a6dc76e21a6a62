"""A network tried on two pictures before it is trained: what cannot be trained is said at once."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from models import CLASSES, IMAGE_SHAPE


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last where it is faster; contiguous on MPS, where it is wrong.

    On MPS the backward pass of BatchNorm2d returns wrong gradients for channels_last inputs
    (pytorch/pytorch issue 175189): training would diverge without an error.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def trial_logits(model: nn.Module, device: torch.device) -> torch.Tensor:
    """Move a network to a device and its fastest layout; its logits of two pictures.

    The pictures and the weights are fixed ones, in training mode, so that the logits, float32
    [2, 10] on the CPU, tell the code of the forward pass. The network keeps its own weights.

    Raises ValueError, in a sentence, for a network without parameters, with lazy layers, that does
    not take images, or whose output is no logits; warns if it is probabilities.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the network has no parameters that train: add some, or unfreeze them.")
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        call = "call it once, say on torch.zeros(2, 1, 28, 28), before fit."
        raise ValueError(f"the network has lazy layers: {call}")
    before, was_training = {k: v.clone() for k, v in model.state_dict().items()}, model.training
    pictures = torch.rand(2, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(0))
    try:
        for layout in (memory_format(device), torch.contiguous_format):
            model.to(device, memory_format=layout)
            try:
                logits = _forward(model.train(), pictures.to(device, memory_format=layout))
                break
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
                reason = error  # as of x.view, which takes contiguous maps only
        else:
            what = f"the network does not take images, float32 [B, 1, 28, 28] ({reason})."
            raise ValueError(what) from reason
    finally:
        model.load_state_dict(before)
        model.train(was_training)
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != [len(pictures), CLASSES]:
        raise ValueError(
            f"the network returns {shape} for two images; expected logits [2, 10], one per digit."
        )
    logits = logits.float().cpu()
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < 1e-4:
        advice = "cross-entropy takes logits: leave out its softmax."
        warnings.warn(f"the network returns probabilities, and {advice}", stacklevel=3)
    return logits


@torch.no_grad()
def _forward(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            numbers = torch.arange(tensor.numel(), device=tensor.device)
            tensor.copy_(numbers.sin().view(tensor.shape))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return model(pictures)
