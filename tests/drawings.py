"""Clear test images of MNIST, drawn anew with pens of any width on pages of any size."""

from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

from DataPipeline import load_mnist
from predict import classify, load_networks
from tests.helpers import PROJECT

networks = cache(load_networks)


@cache
def clear():  # the first 20 test images that all networks read for sure, and their digits
    data = load_mnist(PROJECT / "data")
    pairs = zip(data.test_images[:60], data.test_labels[:60].tolist(), strict=True)
    sure = [(x, y) for x, y in pairs if all(p[y] > 0.9 for p in classify(x, networks()).values())]
    return [(x[0].numpy(), y) for x, y in sure[:20]]


@cache
def distance(number):  # of each pixel from the thinned strokes of a digit 80 pixels long
    image = Image.fromarray(clear()[number][0]).resize((112, 112), Image.Resampling.BICUBIC)
    line = ndimage.gaussian_filter(np.asarray(image) / 255, 1.5) > 0.45
    edge = [[0, 0, 0], [0, 1, 0], [1, 1, 1]], [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    corner = [[0, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    for turns in 14 * [0, 1, 2, 3]:
        for pair in (edge, corner):
            line = line & ~ndimage.binary_hit_or_miss(line, *(np.rot90(p, turns) for p in pair))
    for _ in range(4):  # without the spurs that thinning leaves
        line = line & (ndimage.convolve(line.astype(int), np.ones((3, 3), int)) > 2)
    return ndimage.distance_transform_edt(~np.pad(cut(line), 30)) * 80 / max(cut(line).shape)


def cut(ink):
    return ink[ndimage.find_objects((ink > 0).astype(int))[0]]


def pen(number, width, height=200):
    far = ndimage.zoom(distance(number) * height / 80, height / 80, order=1, mode="nearest")
    return cut(np.clip(width / 2 + 0.5 - far, 0, 1))


def page(ink, shape=(400, 400), place=(0.5, 0.4)):
    free = np.subtract(shape, ink.shape)
    before = (free * place).astype(int)
    return np.pad(ink, np.transpose([before, free - before]))
