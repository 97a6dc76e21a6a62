"""piygr/s6erav1, S6/Part2/S6.ipynb (0ffa8f5)."""

from torch import nn, optim

from helpers.transforms import random_affine, random_crop
from TrainingHelper import TrainingConfig

CLAIM = 99.58  # test accuracy of the last epoch, percent; one run
CONFIG = TrainingConfig(epochs=20, batch_size=64, patience=20)


def network():
    def block(inputs, outputs, padding=1):
        return [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU(), nn.BatchNorm2d(outputs),
                nn.Dropout2d(0.02)]

    return nn.Sequential(
        *block(1, 8), *block(8, 8), nn.MaxPool2d(2), *block(8, 16), *block(16, 16), *block(16,
        32, 0), nn.MaxPool2d(2), *block(32, 32, 0), nn.Conv2d(32, 10, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )


def augment(images, generator):
    images = random_crop(images, generator, side=22, p=0.1)
    return random_affine(images, generator, degrees=15) / 255


def optimizer(model):
    return optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def scheduler(optimizer, steps):
    return optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
