"""The networks: small CNNs of three or four blocks for MNIST, each under a name in NETWORKS.

PAGE has widths that satisfy what the publication's page says (17,938 parameters, 18,434 with batch
normalization), ORIGINAL the network of its notebooks (17,938 and 18,278): see docs/choices.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

IMAGE_SHAPE = (1, 28, 28)  # channels, rows, columns
CLASSES = 10
TARGET_ACCURACY = 99.4  # test accuracy in percent; the publication's, within 20 epochs


class Conv(nn.Sequential):
    """A convolution that keeps the map's size, BatchNorm2d if asked for, and ReLU (not printed)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        batch_norm: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding="same", bias=bias)
        if batch_norm:
            self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Feature maps, float32 [B, outputs, H, W], of maps, float32 [B, inputs, H, W]."""
        for layer in self:
            x = layer(x)
        return F.relu(x, inplace=True)


class Network(nn.Sequential):
    """Blocks of layers, by name and in order: Network(block1=[...], ..., head=[...]).

    It takes normalized images, float32 [B, 1, 28, 28], and returns logits, float32 [B, 10].
    """

    def __init__(self, **blocks: list[nn.Module]) -> None:
        super().__init__()
        for name, layers in blocks.items():
            self.add_module(name, nn.Sequential(*layers))


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def receptive_fields(model: nn.Module) -> dict[str, int]:
    """Per layer of a chain that widens it, by name, the side in pixels of its receptive field.

    That is the square of the input that one place of the layer's output can depend on, padding
    included.
    """
    fields, side, step = {}, 1, 1  # step: pixels of the input between two neighboring places
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.PixelUnshuffle)):
            fold = getattr(layer, "downscale_factor", 1)
            sizes = (getattr(layer, "kernel_size", fold), getattr(layer, "stride", fold))
            sizes += (getattr(layer, "dilation", 1),)
            # A pooling's size is an int, a convolution's a pair.
            kernel, stride, dilation = (max(n) if isinstance(n, tuple) else n for n in sizes)
            side += step * dilation * (kernel - 1)
            step *= stride
            fields[name] = side
    return fields


@dataclass(frozen=True)
class Variant:
    """One variant of a network."""

    blocks: tuple[tuple[tuple[int, int], ...], ...]  # (kernel size, channels) per convolution
    dropout: tuple[float, ...]  # the rate of Dropout2d after each block
    batch_norm: bool
    pooled: int  # so many blocks, from the first on, end in MaxPool2d(2)
    bias: bool = False  # of the convolutions
    fold: int = 1  # each square of fold x fold pixels becomes so many channels first

    def build(self) -> Network:
        """A network of this variant, its weights drawn from torch's global generator."""
        network, channels = {}, IMAGE_SHAPE[0] * self.fold**2
        if self.fold > 1:
            network["fold"] = [nn.PixelUnshuffle(self.fold)]
        for number, (convs, rate) in enumerate(zip(self.blocks, self.dropout, strict=True), 1):
            network[f"block{number}"] = layers = []
            for kernel, width in convs:
                layers.append(Conv(channels, width, kernel, self.batch_norm, self.bias))
                channels = width
            if number <= self.pooled:
                layers.append(nn.MaxPool2d(2))
            if rate:
                layers.append(nn.Dropout2d(rate))
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        return Network(**network, head=head)


PAGE_BLOCKS = (
    ((3, 8), (3, 8), (3, 16), (1, 16)),  # 28x28 -> 14x14
    ((3, 16), (3, 16), (1, 16)),  # 14x14 -> 7x7
    ((3, 8), (3, 8), (3, 32), (1, 32)),  # 7x7 -> 3x3
    ((3, 8), (3, 32), (1, 32)),  # 3x3 -> 1x1
)
ORIGINAL_BLOCKS = (
    ((3, 6), (3, 12), (3, 24), (1, 8)),  # 28x28 -> 14x14
    ((3, 16), (3, 16), (1, 8)),  # 14x14 -> 7x7
    ((3, 16), (3, 16)),  # 7x7 -> 3x3
    ((3, 16), (3, 32)),  # 3x3, which the average pooling of the head takes
)
HALF_BLOCKS = (((3, 6), (3, 12), (3, 14), (1, 8)), *ORIGINAL_BLOCKS[1:3])  # 9,872 parameters

PLACEMENTS = {  # of dropout: its rate after each block
    "none": (0.0, 0.0, 0.0, 0.0),
    "v2": (0.1, 0.1, 0.0, 0.0),
    "late": (0.0, 0.0, 0.1, 0.1),
    "v1": (0.1, 0.1, 0.1, 0.1),
}
PAGE = {
    name + "_bn" * batch_norm: Variant(PAGE_BLOCKS, rates, batch_norm, pooled=4, bias=False)
    for batch_norm in (False, True)
    for name, rates in PLACEMENTS.items()
}
ORIGINAL = {  # Final is v2 with batch normalization in the publication's notebooks
    f"original_{name.replace('v2_bn', 'final')}": replace(
        variant, blocks=ORIGINAL_BLOCKS, pooled=3, bias=True
    )
    for name, variant in PAGE.items()
}
PAGE["final"] = replace(PAGE["none_bn"], dropout=(0.1, 0.1, 0.1, 0.0))
FAST_BLOCKS = (((3, 16),), ((3, 32), (3, 32), (3, 16)))  # 14x14 -> 7x7
OTHERS = {  # the first one-cycle recipe's of half the size; MNIST_Classifier_OneCycle.ipynb's
    "half": Variant(HALF_BLOCKS, (0.0, 0.0, 0.0), True, pooled=2, bias=True),
    "fast": Variant(FAST_BLOCKS, (0.0, 0.0), True, pooled=1, fold=2),
}
NETWORKS = PAGE | ORIGINAL | OTHERS


@cache
def _names() -> dict[tuple, str]:
    with torch.device("meta"):  # draws no weights from the global generator
        models = {name: variant.build() for name, variant in NETWORKS.items()}
    return {(repr(model), *model.state_dict()): name for name, model in models.items()}


def network_name(model: nn.Module) -> str:
    """The name in NETWORKS of a network of these layers; of any other network its class's name.

    Any other is also one with buffers that a tool added, or with a layer of the reader's own class.
    """
    own = any(type(m).__module__.split(".")[0] not in ("torch", __name__) for m in model.modules())
    known = None if own else _names().get((repr(model), *model.state_dict()))
    return known or type(model).__name__
