"""pmgarg/ERAV4_Session5, Session5_model_training_adam.ipynb (71c4b0f)."""

from torch import nn, optim

from helpers.transforms import random_affine, random_erasing
from TrainingHelper import TrainingConfig

CLAIM = 99.61  # test accuracy of the last epoch, percent; one run
CONFIG = TrainingConfig(epochs=20, batch_size=128, patience=20, label_smoothing=0.05)
INTERVAL = "step"


def network():
    def block(inputs, outputs, padding=0):
        return [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 14), *block(14, 14), *block(14, 16), nn.MaxPool2d(2), *block(16, 18),
        *block(18, 20), nn.MaxPool2d(2), *block(20, 22, 1), *block(22, 22),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(22, 10),
    )


def augment(images, generator):
    images = random_affine(images, generator, degrees=7, shift=0.08)
    return random_erasing(images, generator, 0.05, (0.02, 0.05), (0.3, 3.3), 255 * 0.1307) / 255


def optimizer(model):
    return optim.Adam(model.parameters(), lr=0.001, weight_decay=1e-4)


def scheduler(optimizer, steps):
    rates = {"pct_start": 0.2, "div_factor": 10, "final_div_factor": 100}
    return optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=20 * steps, **rates)
