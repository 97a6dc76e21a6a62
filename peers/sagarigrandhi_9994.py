"""sagarigrandhi/EVA4, S5/Assignment_5_F7.ipynb (99cb87c); the one-cycle steps once an epoch."""

from torch import nn, optim

from helpers.transforms import random_affine
from TrainingHelper import TrainingConfig

CLAIM = 99.6  # test accuracy of the last epoch, percent; one run
CONFIG = TrainingConfig(epochs=15, batch_size=32, patience=15)
INTERVAL = "epoch"


def network():
    def block(inputs, outputs, kernel=3, padding=0):
        return [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 10), *block(10, 30), *block(30, 10, 1), nn.MaxPool2d(2), *block(10, 14),
        *block(14, 14), *block(14, 14), *block(14, 14, 3, 1), nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(14, 10, 1, bias=False), nn.Flatten(),
    )


def augment(images, generator):
    return random_affine(images, generator, degrees=10, fill=1) / 255


def optimizer(model):
    return optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def scheduler(optimizer, steps):
    return optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=15)
