"""snehanshu-raj/ERA, assignment_6/model_3.py (bcde181)."""

from torch import nn

from helpers.transforms import random_affine
from TrainingHelper import TrainingConfig

CLAIM = 99.5  # test accuracy of the last epoch, percent; one run
CONFIG = TrainingConfig(epochs=15, batch_size=64, learning_rate=0.005, step_size=8, patience=15)


def network():
    def block(inputs, outputs, kernel=3, padding=0):
        return [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 10, 3, 1), *block(10, 10, 3, 1), *block(10, 10, 3, 1), nn.MaxPool2d(2),
        *block(10, 16), *block(16, 16), *block(16, 8), *block(8, 8), *block(8, 8, 1), *block(8,
        16, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 10, 1, bias=False), nn.Flatten(),
    )


def augment(images, generator):
    return random_affine(images, generator, degrees=7) / 255
