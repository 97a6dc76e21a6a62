"""From a picture to MNIST's form, and what the trained networks read in it."""

import json
from functools import cache, partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from DataPipeline import load_mnist, make_loaders
from predict import classify, load_networks, main, preprocess, verdict
from tests.helpers import PROJECT

RED, CREAM, NAVY, WHITE, BLACK = (200, 30, 40), (250, 245, 220), (20, 30, 90), (255,) * 3, (0,) * 3
networks = cache(load_networks)


@cache
def clear():
    """The first 20 test images that all networks read for sure, uint8 [28, 28], with digits."""
    data = load_mnist(PROJECT / "data")
    pairs = zip(data.test_images[:60], data.test_labels[:60].tolist(), strict=True)
    sure = [(x, y) for x, y in pairs if all(p[y] > 0.9 for p in classify(x, networks()).values())]
    return [(x[0].numpy(), y) for x, y in sure[:20]]


@cache
def distance(number):
    """How far each pixel is from the thinned strokes of a clear digit, 80 high, float [H, W]."""
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
    """A clear digit drawn with a pen: ink, 0 to 1, cut to its box."""
    far = ndimage.zoom(distance(number) * height / 80, height / 80, order=1, mode="nearest")
    return cut(np.clip(width / 2 + 0.5 - far, 0, 1))


def page(ink, shape=(400, 400), place=(0.5, 0.4)):
    """Ink on a larger page, at a place from (0, 0) to (1, 1)."""
    whole = np.zeros(shape)
    y, x = (int((n - m) * p) for n, m, p in zip(shape, ink.shape, place, strict=True))
    whole[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
    return whole


def image(ink, color=BLACK, paper=WHITE):
    colors = np.array(paper) + ink[..., None] * np.subtract(color, paper)
    return Image.fromarray(colors.round().astype(np.uint8))


def transparent(number):
    ink = page(pen(number, 14))
    return Image.fromarray(np.uint8(np.dstack([*np.full((3, 400, 400), 40), 255 * ink])))


def mnist(number, change=lambda pixels: pixels, resize=None, **how):
    picture = Image.fromarray(change(clear()[number][0]))
    return ImageOps.scale(picture, 10, resize) if resize is not None else picture


PLAIN = {
    "pen on white": lambda n: image(page(pen(n, 14))),
    "white on black": lambda n: image(page(pen(n, 14)), WHITE, BLACK),
    "red on cream": lambda n: image(page(pen(n, 12)), RED, CREAM),
    "cream on navy": lambda n: image(page(pen(n, 12)), CREAM, NAVY),
    "thin pen": lambda n: image(page(pen(n, 2))),
    "thick marker": lambda n: image(page(pen(n, 34))),
    "small on a large page": lambda n: image(page(pen(n, 5, 60), (1200, 900), (0.8, 0.7))),
    "at the edge": lambda n: image(page(pen(n, 14), place=(0, 0.3))),
    "cut to its box": lambda n: image(pen(n, 20)),
    "transparent": transparent,
    "MNIST": mnist,
    "MNIST cut": partial(mnist, change=cut),
    "MNIST cut, enlarged smoothly": partial(mnist, change=cut, resize=Image.Resampling.BICUBIC),
    "MNIST cut, enlarged in blocks": partial(mnist, change=cut, resize=Image.Resampling.NEAREST),
    "8x8": lambda n: ImageOps.pad(mnist(n, cut), (8, 8), Image.Resampling.BOX),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_nineteen_of_twenty_plain_pictures_are_read(kind):
    right = 0
    for number, (_, digit) in enumerate(clear()):
        try: right += verdict(classify(preprocess(PLAIN[kind](number)), networks())) == digit
        except ValueError as e: print(e)
    print(kind, right)
    assert right >= 19
