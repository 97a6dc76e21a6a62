"""The trained networks for torch.hub: torch.hub.load("OWNER/NAME", "final").

Each is in evaluation mode on the CPU. It takes float32 images [B, 1, 28, 28] of light digits on
black, in [0, 1] and then normalized, (images - 0.1307) / 0.3081, and returns logits [B, 10].
"""

from pathlib import Path

from helpers.weights import load_weights
from torch import nn

dependencies = ["torch", "numpy", "msgspec", "safetensors"]

_RESULTS = Path(__file__).parent / "results"


def v1() -> nn.Module:
    """Dropout after all four blocks, no batch normalization; trained by its notebook."""
    return load_weights(_RESULTS / "v1.safetensors")


def v2() -> nn.Module:
    """Dropout after the first two blocks, no batch normalization; trained by its notebook."""
    return load_weights(_RESULTS / "v2.safetensors")


def final() -> nn.Module:
    """Dropout after the first three blocks, batch normalization; trained by its notebook."""
    return load_weights(_RESULTS / "final.safetensors")


def one_cycle() -> nn.Module:
    """The network as run, batch normalization and no dropout; trained by the OneCycle notebook."""
    return load_weights(_RESULTS / "one_cycle.safetensors")
