"""My network: what python -m study check, run and compare take. Only network() is required."""

import torch
from torch import nn

from TrainingHelper import TrainingConfig

CONFIG = TrainingConfig(epochs=15, batch_size=64)


def network() -> nn.Module:
    """Logits [B, 10] of normalized images, float32 [B, 1, 28, 28]."""
    layers, channels = [], 1
    for width in (8, 16, "pool", 16, 24, 24, 24):
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
