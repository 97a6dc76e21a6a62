"""dine1717/ERA2, Session7/Step_5.ipynb (5c8bbbb), its network as in dine1717/EV8, Step_5.ipynb."""

from torch import nn, optim

from helpers.transforms import random_affine
from TrainingHelper import TrainingConfig

CLAIM = 99.57  # test accuracy of the last epoch, percent; one run
CONFIG = TrainingConfig(epochs=15, batch_size=64, patience=15)
INTERVAL = "step"


def network():
    def block(inputs, outputs, padding=0):
        return [nn.Conv2d(inputs, outputs, 3, padding=padding, bias=False), nn.BatchNorm2d(outputs),
                nn.ReLU(), nn.Dropout(0.05)]

    return nn.Sequential(
        *block(1, 12, 1), *block(12, 12, 1), nn.MaxPool2d(2), *block(12, 12), *block(12, 12),
        *block(12, 12), *block(12, 12), *block(12, 12), nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(12, 10, 1, bias=False), nn.Flatten(),
    )


def augment(images, generator):
    return random_affine(images, generator, degrees=15, fill=1) / 255


def optimizer(model):
    return optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def scheduler(optimizer, steps):
    return optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs=15, steps_per_epoch=steps)
