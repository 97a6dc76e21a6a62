"""Read a picture of a digit: python -m predict digit.png, or prepare and read in a notebook.

Any picture of one digit is first brought to the form of MNIST's images, as their authors describe
it (LeCun, Bottou, Bengio and Haffner 1998): fitted into 20x20 pixels with its aspect kept,
antialiased, and placed in 28x28 by its centre of mass. What the networks were given is shown beside
what they say.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from DataPipeline import normalise
from models import SmallMNISTNet4Block, load_weights

NAMES = ("v1", "v2", "final")
STROKES = (2.2, 4.0)  # pixels of 28; MNIST's lie between 1.7 and 4.3, nine tenths of them
LARGEST = 1000  # pixels along the longer side; a larger picture is shrunk to it first


def prepare(image: str | Path | Image.Image) -> torch.Tensor:
    """A picture of one digit as MNIST would hold it: uint8 [1, 28, 28], ink 255 on paper 0.

    image: a file that Pillow reads, or a Pillow image; of any size, colours and mode, dark on light
        or light on dark. The digit's paper is what surrounds it: plain, though unevenly lit.

    Raises OSError for a file that cannot be opened, and ValueError for one that is no picture, is
    damaged or too large, or shows no digit.
    """
    name = "the image" if isinstance(image, Image.Image) else str(image)
    ink, threshold = _ink(_pixels(image, name))
    if not (ink > threshold).any():
        raise ValueError(f"{name} shows no digit: it is of one colour, or nearly so.")
    return _in_mnists_form(_digit(ink, threshold), threshold)


def read(
    picture: torch.Tensor, networks: Mapping[str, SmallMNISTNet4Block]
) -> dict[str, torch.Tensor]:
    """What each network sees: the probabilities of the ten digits, float32 [10], by its name.

    picture: uint8 [1, 28, 28], from prepare or MNIST; networks: as load_networks returns them.
    """
    with torch.inference_mode():
        images = normalise(picture[None] / 255)
        return {name: net(images).softmax(dim=1)[0] for name, net in networks.items()}


def load_networks(folder: str | Path = "results") -> dict[str, SmallMNISTNet4Block]:
    """The three trained networks by name; raises FileNotFoundError if there are none there."""
    try:
        return {name: load_weights(Path(folder) / f"{name}.safetensors") for name in NAMES}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} is missing: make notebooks trains the networks and writes it."
        ) from error


def as_text(picture: torch.Tensor) -> str:
    """A picture, uint8 [1, 28, 28], as 14 lines of text, its ink in the terminal's text colour."""
    dark = (picture[0] > 127).tolist()
    pairs = zip(dark[::2], dark[1::2], strict=True)
    return "\n".join("".join(" ▄▀█"[2 * a + b] for a, b in zip(*pair, strict=True)) for pair in pairs)


def _pixels(image: str | Path | Image.Image, name: str) -> np.ndarray:
    """Float32 [H, W, 4], 0 to 255: red, green and blue, each times alpha, and alpha."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = image if isinstance(image, Image.Image) else Image.open(image)
            image = ImageOps.exif_transpose(image)
            if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip at 255
                values = np.asarray(image, dtype=np.float64)
                image = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
            image = image.convert("RGBA").convert("RGBa")
            image.thumbnail((LARGEST, LARGEST))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        million = Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"{name} has over {million} million pixels: make it smaller.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} holds no picture of a kind that Pillow reads.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{name} is damaged ({error}): save or send it once more.") from error
    return np.asarray(image, dtype=np.float32)


def _ink(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel is from the paper's colour, float [H, W], and from where on it is ink."""
    height, width, _ = pixels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    # The paper's colour under uneven light: a quadratic surface through the picture's rim. Least
    # absolute deviations, by weighted least squares, pass over what crosses the rim.
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    rim = np.ones((height, width), dtype=bool)
    margin = max(1, min(height, width) // 50)
    rim[margin:-margin, margin:-margin] = False
    a, b, weights = terms[rim], pixels[rim], np.ones((rim.sum(), 1))
    for _ in range(20):
        surface = np.linalg.lstsq(a.T @ (weights * a), a.T @ (weights * b), rcond=None)[0]
        weights = 1 / np.maximum(np.linalg.norm(b - a @ surface, axis=1, keepdims=True), 1)
    difference = pixels - terms @ surface
    # Along the direction in which colours differ most, whatever the colours of pen and paper.
    flat = difference.reshape(-1, 4)
    ink = difference @ np.linalg.eigh(flat.T @ flat)[1][:, -1]
    ink *= np.sign((ink * np.abs(ink)).sum())
    noise = 1.5 * np.median(np.abs(ink[rim]))
    floor = max(4 * noise, 12)
    return ink, max(floor, _otsu(np.where(ink > floor, ink, 0)))


def _otsu(values: np.ndarray) -> float:
    """The threshold that divides values into the two most different classes (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = counts.cumsum(), (counts * middles).cumsum()
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nan_to_num(between).argmax()])


def _digit(ink: np.ndarray, threshold: float) -> np.ndarray:
    """The ink of the digit alone, cut out: no specks, nor what runs along the picture's rim."""
    near = ndimage.binary_dilation(ink > threshold, iterations=max(1, max(ink.shape) // 100))
    parts, count = ndimage.label(near, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    sizes = np.array([max(s.stop - s.start for s in box) for box in boxes])
    rim = np.concatenate([parts[0], parts[-1], parts[1:-1, 0], parts[1:-1, -1]])
    on_rim = np.bincount(rim, minlength=count + 1)[1:] > len(rim) / 8
    inside = sizes * ~on_rim
    if inside.max() < max(ink.shape) / 10:
        inside = sizes
    keep = inside >= inside.max() / 8
    region = np.isin(parts, 1 + np.flatnonzero(keep))
    rows, columns = ndimage.find_objects(region.astype(int))[0]
    return (ink * region)[rows, columns]


def _in_mnists_form(ink: np.ndarray, threshold: float) -> torch.Tensor:
    """Cut-out ink as uint8 [1, 28, 28]: in a 20x20 box, strokes no thinner than a pen's."""
    scale = max(1, 400 / max(ink.shape))
    size = [round(scale * side) for side in reversed(ink.shape)]
    mask = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size)) > threshold
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    mask = mask[rows, columns]
    length = max(mask.shape)
    mask = np.pad(mask, length // 4)
    inside = ndimage.distance_transform_edt(mask)
    ridge = mask & (inside == ndimage.maximum_filter(inside, 3))
    width = 2 * np.median(inside[ridge]) - 1
    wanted = np.clip(20 * width / length, *STROKES)
    # Widened by this on either side, and then fitted into 20 pixels, strokes are as wide as wanted.
    widen = (wanted * length - 20 * width) / (20 - wanted) / 2
    distance = np.where(mask, inside - 0.5, 0.5 - ndimage.distance_transform_edt(~mask))
    mask = np.clip(distance + widen + 0.5, 0, 1)
    rows, columns = ndimage.find_objects((mask > 0).astype(int))[0]
    mask = Image.fromarray((255 * mask[rows, columns]).astype(np.uint8))
    size = [max(1, round(20 * side / max(mask.size))) for side in mask.size]
    digit = np.asarray(mask.resize(size, Image.Resampling.BOX))
    canvas = np.zeros((28, 28), dtype=np.uint8)
    corner = [
        int(np.clip(np.ceil(13.5 - centre), 0, 28 - side))
        for centre, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True)
    ]
    canvas[tuple(slice(c, c + s) for c, s in zip(corner, digit.shape, strict=True))] = digit
    return torch.from_numpy(canvas)[None]
