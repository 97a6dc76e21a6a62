"""The networks: small CNNs of four blocks, or three, for MNIST, as lists one can read aloud.

There are three settings. *From the page*: the widths that were guessed from what the publication's
page says (17,938 parameters, 18,434 with batch normalization). *As run*: the network that its
notebooks define (17,938 and 18,278). docs/choices.md sets these two side by side. *Recipe*: what
the one-cycle recipe's choice compared them with, and a network of half the size (9,872).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from helpers.publication import FINAL, V1, V2, Published

IMAGE = (1, 28, 28)  # channels, rows, columns
CLASSES = 10
GOAL = 99.4  # test accuracy in per cent; the publication's, within 20 epochs


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
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        if batch_norm:
            self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Feature maps, float32 [B, outputs, H, W], of maps, float32 [B, inputs, H, W]."""
        return F.relu(super().forward(x), inplace=True)


class MaxPool(nn.Sequential):
    """nn.MaxPool2d(2), hidden from torchsummary, which skips containers.

    The publication's notebooks pool by a function, so the memory they print does not count it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The maximum of each 2x2 square: float32 [B, C, H // 2, W // 2]."""
        return F.max_pool2d(x, 2)


class Network(nn.Sequential):
    """Blocks of layers, by name and in order: Network(block1=[...], ..., head=[...])."""

    def __init__(self, **blocks: list[nn.Module]) -> None:
        super().__init__()
        for name, layers in blocks.items():
            self.add_module(name, nn.Sequential(*layers))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, float32 [B, 10], of normalized images, float32 [B, 1, 28, 28].

        Raises ValueError if the images are not of that shape.
        """
        if images.shape[1:] != IMAGE:
            raise ValueError(
                f"the images have shape {tuple(images.shape)}; expected (batch, 1, 28, 28)."
            )
        return super().forward(images)


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# --- variants -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What a setting's variants share.

    blocks: per block one (kernel size, output channels) pair per convolution.
    bias: whether convolutions have one.
    pool, pooled: makes a pooling layer, and how many blocks, from the first on, end in one.
    """

    blocks: tuple[tuple[tuple[int, int], ...], ...]
    bias: bool
    pool: Callable[[], nn.Module]
    pooled: int


_PAGE = Layout(
    (
        ((3, 8), (3, 8), (3, 16), (1, 16)),  # 28x28 -> 14x14
        ((3, 16), (3, 16), (1, 16)),  # 14x14 -> 7x7
        ((3, 8), (3, 8), (3, 32), (1, 32)),  # 7x7 -> 3x3
        ((3, 8), (3, 32), (1, 32)),  # 3x3 -> 1x1
    ),
    bias=False,
    pool=partial(nn.MaxPool2d, 2),
    pooled=4,
)
_AS_RUN = Layout(
    (
        ((3, 6), (3, 12), (3, 24), (1, 8)),  # 28x28 -> 14x14
        ((3, 16), (3, 16), (1, 8)),  # 14x14 -> 7x7
        ((3, 16), (3, 16)),  # 7x7 -> 3x3
        ((3, 16), (3, 32)),  # 3x3, which the average pooling of the head takes
    ),
    bias=True,
    pool=MaxPool,
    pooled=3,
)
_HALF = replace(
    _AS_RUN,
    blocks=(
        ((3, 6), (3, 12), (3, 14), (1, 8)),  # 28x28 -> 14x14
        ((3, 16), (3, 16), (1, 8)),  # 14x14 -> 7x7
        ((3, 16), (3, 16)),  # 7x7, which the average pooling of the head takes
    ),
    pooled=2,
)


@dataclass(frozen=True)
class Variant:
    """One variant of the network: the Dropout2d rate after each block, and batch normalization.

    published: what the publication says of it; None for a variant of this study's own.
    """

    layout: Layout
    dropout: tuple[float, ...]
    batch_norm: bool
    published: Published | None = None

    def network(self) -> Network:
        """A network of this variant, its weights drawn from torch's global generator."""
        blocks, channels = {}, IMAGE[0]
        for number, (convs, rate) in enumerate(
            zip(self.layout.blocks, self.dropout, strict=True), start=1
        ):
            blocks[f"block{number}"] = layers = []
            for kernel, width in convs:
                layers.append(Conv(channels, width, kernel, self.batch_norm, self.layout.bias))
                channels = width
            if number <= self.layout.pooled:
                layers.append(self.layout.pool())
            if rate:
                layers.append(nn.Dropout2d(rate))
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        return Network(**blocks, head=head)


_NONE, _EARLY, _LATE = (0.0, 0.0, 0.0, 0.0), (0.1, 0.1, 0.0, 0.0), (0.0, 0.0, 0.1, 0.1)
_ALL = (0.1, 0.1, 0.1, 0.1)

# Early dropout, late dropout and batch normalization, each with and without; and the page's Final.
VARIANTS = {
    "none": Variant(_PAGE, _NONE, False),
    "v2": Variant(_PAGE, _EARLY, False, V2),
    "late": Variant(_PAGE, _LATE, False),
    "v1": Variant(_PAGE, _ALL, False, V1),
    "none_bn": Variant(_PAGE, _NONE, True),
    "v2_bn": Variant(_PAGE, _EARLY, True),
    "late_bn": Variant(_PAGE, _LATE, True),
    "v1_bn": Variant(_PAGE, _ALL, True),
    "final": Variant(_PAGE, (0.1, 0.1, 0.1, 0.0), True, FINAL),
}
# The same as run, where Final is v2 with batch normalization.
FINAL_AS_RUN = "v2_bn"
AS_RUN = {
    name: replace(
        variant, layout=_AS_RUN, published=FINAL if name == FINAL_AS_RUN else variant.published
    )
    for name, variant in VARIANTS.items()
    if name != "final"
}
# The page's convolutions on larger maps, for study/rounds.py; and the network as run without its
# fourth block and with fewer channels in the first, for study/one_cycle.py.
RECIPE = {
    "three_pools": Variant(replace(_PAGE, pooled=3), _NONE, True),
    "two_pools": Variant(replace(_PAGE, pooled=2), _NONE, True),
    "three_blocks": Variant(_HALF, _NONE[:3], True),
}
SETTINGS = {"from the page": VARIANTS, "as run": AS_RUN, "recipe": RECIPE}


@cache
def _known() -> dict[str, tuple[str, str]]:
    """Setting and name of every variant, by what its network prints."""
    with torch.device("meta"):  # draws no weights from the global generator
        return {
            repr(variant.network()): (setting, name)
            for setting, variants in SETTINGS.items()
            for name, variant in variants.items()
        }


def identify(model: nn.Module) -> tuple[str, str] | None:
    """The setting and the name of the variant that a network is one of, or None."""
    return _known().get(repr(model)) if type(model) is Network else None


def receptive_fields(layout: Layout = _PAGE) -> list[int]:
    """After each block, the side in pixels of the square of the input that one place can depend on.

    A place is one position of the block's output, after its pooling. Near the edge, and in the last
    two blocks everywhere, a part of the square lies outside the image, in the padding.
    """
    fields, side, step = [], 1, 1  # step: pixels of the input between two neighboring places
    for number, block in enumerate(layout.blocks, start=1):
        side += step * sum(kernel - 1 for kernel, _ in block)
        if number <= layout.pooled:
            side += step
            step *= 2
        fields.append(side)
    return fields
