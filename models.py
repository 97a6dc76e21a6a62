"""SmallMNISTNet4Block: a 4-block CNN for MNIST with under 20,000 parameters, and its variants.

The published study names the blocks, the pooling and the parameter counts (17,938 without and
18,434 with batch normalisation), not the channel widths. LAYOUT satisfies all of the counts and
the published torchsummary memory; docs/choices.md says which part of it is derived.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

# One row per block, one (kernel size, output channels) pair per convolution.
LAYOUT = (
    ((3, 8), (3, 8), (3, 16), (1, 16)),  # 28x28 -> 14x14
    ((3, 16), (3, 16), (1, 16)),  # 14x14 -> 7x7
    ((3, 8), (3, 8), (3, 32), (1, 32)),  # 7x7 -> 3x3
    ((3, 8), (3, 32), (1, 32)),  # 3x3 -> 1x1
)
CLASSES = 10
GOAL = 99.4  # test accuracy in per cent; the publication's, within 20 epochs


@dataclass(frozen=True)
class Published:
    """What the publication reports of one variant, from one run; accuracies in per cent."""

    parameters: int
    final_accuracy: float
    first_epoch_at_99: int
    accuracy_at_99: float
    convergence_rate: float
    epoch_1_train_accuracy: float
    epoch_1_test_accuracy: float
    gap: float | None = None  # points of accuracy; published for v1 only


@dataclass(frozen=True)
class Variant:
    """One variant of the network: the Dropout2d rate after each block, and batch normalisation.

    published: what the publication reports of it; None for a variant of this study's own.
    """

    dropout: tuple[float, float, float, float]
    batch_norm: bool
    published: Published | None = None

    def network(self) -> SmallMNISTNet4Block:
        """A network of this variant, its weights drawn from torch's global generator."""
        return SmallMNISTNet4Block(self.dropout, self.batch_norm)


_NONE, _EARLY, _LATE = (0.0, 0.0, 0.0, 0.0), (0.1, 0.1, 0.0, 0.0), (0.0, 0.0, 0.1, 0.1)
_ALL = (0.1, 0.1, 0.1, 0.1)

# Early dropout, late dropout and batch normalisation, each with and without; and the published
# Final.
VARIANTS = {
    "none": Variant(_NONE, batch_norm=False),
    "v2": Variant(
        _EARLY,
        batch_norm=False,
        published=Published(17_938, 99.38, 6, 99.20, 1.0, 77.69, 96.68),
    ),
    "late": Variant(_LATE, batch_norm=False),
    "v1": Variant(
        _ALL,
        batch_norm=False,
        published=Published(17_938, 99.36, 8, 99.13, 0.75, 70.51, 93.59, gap=2.4),
    ),
    "none_bn": Variant(_NONE, batch_norm=True),
    "v2_bn": Variant(_EARLY, batch_norm=True),
    "late_bn": Variant(_LATE, batch_norm=True),
    "v1_bn": Variant(_ALL, batch_norm=True),
    "final": Variant(
        (0.1, 0.1, 0.1, 0.0),
        batch_norm=True,
        published=Published(18_434, 99.55, 4, 99.18, 1.5, 90.31, 98.76),
    ),
}


class SmallMNISTNet4Block(nn.Module):
    """Four blocks of convolutions, global average pooling, one linear layer.

    Every convolution is followed by [BatchNorm2d and] ReLU, every block by MaxPool2d(2) and, where
    its rate is not 0, Dropout2d. No convolution has a bias, so batch normalisation adds exactly its
    gamma and beta.

    dropout: the Dropout2d rate after each of the four blocks, each in [0, 1); 0 for no dropout.
    batch_norm: BatchNorm2d (momentum 0.1) after every convolution.

    Raises ValueError if there are not four rates, or one lies outside [0, 1).
    """

    def __init__(
        self, dropout: tuple[float, ...] = (0.1, 0.1, 0.1, 0.1), batch_norm: bool = False
    ) -> None:
        super().__init__()
        dropout = tuple(dropout)
        if len(dropout) != len(LAYOUT):
            raise ValueError(
                f"dropout has {len(dropout)} rates; expected {len(LAYOUT)}, one after each block."
            )
        for block, rate in enumerate(dropout, start=1):
            if not 0 <= rate < 1:
                raise ValueError(
                    f"dropout after block {block} is {rate}; expected a rate in [0, 1), 0 for none."
                )
        self.dropout = dropout
        self.batch_norm = bool(batch_norm)

        # nn.ModuleList and nn.Sequential only: torchsummary counts the output of any other
        # container once more.
        self.convs = nn.ModuleList()
        self.pools = nn.ModuleList()
        channels = 1
        for block, rate in zip(LAYOUT, dropout, strict=True):
            convs = nn.ModuleList()
            for kernel, width in block:
                conv = [nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)]
                if batch_norm:
                    conv.append(nn.BatchNorm2d(width))
                convs.append(nn.Sequential(*conv))
                channels = width
            self.convs.append(convs)
            pool = [nn.MaxPool2d(2)]
            if rate:
                pool.append(nn.Dropout2d(rate))
            self.pools.append(nn.Sequential(*pool))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, CLASSES)

    @property
    def variant(self) -> str:
        """The network's name in VARIANTS, or else its dropout and batch_norm spelled out."""
        for name, variant in VARIANTS.items():
            if (variant.dropout, variant.batch_norm) == (self.dropout, self.batch_norm):
                return name
        return f"dropout={self.dropout}, batch_norm={self.batch_norm}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, float32 [B, 10], of images, float32 [B, 1, 28, 28].

        Raises ValueError if the images are not of that shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (1, 28, 28):
            raise ValueError(
                f"the images have shape {tuple(images.shape)}; "
                "expected (batch, 1, 28, 28), one channel of 28x28 pixels."
            )
        x = images
        for convs, pool in zip(self.convs, self.pools, strict=True):
            for conv in convs[:-1]:
                x = F.relu(conv(x), inplace=True)
            # The block's last ReLU comes after its pooling: the larger of two numbers is the same
            # before and after it, and there is a quarter of them left.
            x = F.relu(pool(convs[-1](x)), inplace=True)
        return self.classifier(self.gap(x).flatten(1))


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def receptive_fields() -> list[int]:
    """After each block, the side in pixels of the square of the input that one place can depend on.

    A place is one position of the block's output, after its pooling. Near the edge, and in the last
    two blocks everywhere, a part of the square lies outside the image, in the padding.
    """
    fields, side, step = [], 1, 1  # step: pixels of the input between two neighbouring places
    for block in LAYOUT:
        side += step * sum(kernel - 1 for kernel, _ in block)
        side += step  # MaxPool2d(2)
        step *= 2
        fields.append(side)
    return fields
