"""Read a picture of a digit: python -m predict digit.png, or preprocess and classify in Python.

preprocess takes one dark or light digit on plain paper, with or without a margin. The networks know
ten digits and nothing else: they read a letter as a digit, too.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import nn

from DataPipeline import normalize
from helpers.checkpoint import load_weights
from helpers.files import read_file

WEIGHTS = Path(__file__).resolve().parent / "results"
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # EPS would run a program
LARGEST = 1000  # pixels along the longer side; a larger picture is shrunk to it first
CONTRAST = 25  # least distance between the colors of paper and ink, of 441 from black to white
SEPARATION = 3.8  # the same in standard deviations; noise and shading stay below 3.7
STROKES = (2.2, 4.0)  # widths in pixels of 28; nine tenths of MNIST's lie between 1.7 and 4.3
SIDES = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])  # of a picture


def preprocess(image: str | Path | Image.Image) -> torch.Tensor:
    """A picture of one digit in the form of MNIST's: uint8 [1, 28, 28], ink 255 on paper 0.

    image: a file in one of FORMATS or a Pillow image, of any size, mode and colors.

    Raises OSError for a file that cannot be read, and ValueError for one that is damaged or no
    picture and for a picture of anything but one digit.
    """
    name = "the image" if isinstance(image, Image.Image) else str(image)
    pixels = _pixels(image, name)
    try:
        return _mnist_form(_digit(_ink(pixels)))
    except ValueError as error:
        raise ValueError(f"{name} shows no single digit: {error}.") from None


def load_networks(folder: str | Path = WEIGHTS) -> dict[str, nn.Module]:
    """The trained networks by name, in evaluation mode on the CPU; raises as load_weights does."""
    return {name: load_weights(Path(folder, f"{name}.safetensors")) for name in ("v1", "v2", "final")}


def classify(picture: torch.Tensor, networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """The probabilities of the ten digits, float32 [10], by the name of the network.

    picture: uint8 [1, 28, 28], as preprocess returns it; ValueError for any other.
    networks: in evaluation mode on the CPU, as load_networks returns them.
    """
    if picture.dtype != torch.uint8 or picture.shape != (1, 28, 28):
        raise ValueError(
            f"the picture is {picture.dtype} {list(picture.shape)}; expected torch.uint8 "
            "[1, 28, 28], 0 to 255, as preprocess returns it."
        )
    images = normalize(picture[None] / 255)
    with torch.inference_mode():
        return {name: network(images).softmax(dim=1)[0] for name, network in networks.items()}


def verdict(probabilities: Mapping[str, torch.Tensor]) -> int | None:
    """The digit that all networks read, given what classify returns; None where they disagree."""
    digits = {p.argmax().item() for p in probabilities.values()}
    return digits.pop() if len(digits) == 1 else None


def _pixels(image: str | Path | Image.Image, name: str) -> np.ndarray:
    """Red, green and blue, each times alpha, and alpha: float64 [H, W, 4], 0 to 255."""
    content = None if isinstance(image, Image.Image) else io.BytesIO(read_file(image))
    try:
        image = ImageOps.exif_transpose(Image.open(content, formats=FORMATS) if content else image)
        if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip at 255
            levels = np.nan_to_num(np.array(image, dtype=np.float64))
            levels = (levels - levels.min()) * (255 / max(np.ptp(levels), 1))
            image = Image.fromarray(levels.astype(np.uint8))
        image = image.convert("RGBA").convert("RGBa")
        image.thumbnail((LARGEST, LARGEST))
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no picture in {', '.join(FORMATS)}.") from None
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        raise ValueError(f"{name} is damaged or too large ({error}): save it anew.") from error
    return np.asarray(image, dtype=np.float64)


def _ink(pixels: np.ndarray) -> np.ndarray:
    """How inky each pixel is, about 0 on paper and 1 on ink: float64 [H, W]."""
    colors = (pixels - pixels.mean(axis=(0, 1))).reshape(-1, 4)
    # Along the direction in which the colors vary most: any pen shows on any paper.
    values = (colors @ np.linalg.eigh(colors.T @ colors)[1][:, -1]).reshape(pixels.shape[:2])
    low, high, noise = values.min(), values.max(), 0
    if high - low > CONTRAST:
        for _ in range(50):  # Ridler and Calvard: the threshold lies halfway between the means
            light = values > (low + high) / 2
            low, high = values[~light].mean(), values[light].mean()
        noise = np.std(values - np.where(light, high, low))
    if high - low <= max(CONTRAST, SEPARATION * noise):
        raise ValueError("nothing stands out from its background; draw darker, in even light")
    # Without a margin, ink covers parts of all sides, but on average less than half of them.
    dark_ink = np.mean([light[side].mean() for side in SIDES]) > 0.5
    return (high - values if dark_ink else values - low) / (high - low)


def _digit(ink: np.ndarray) -> np.ndarray:
    """The digit, enlarged if it is shorter than 400 pixels: bool [H, W]."""
    parts, _ = ndimage.label(ink > 0.4, np.ones((3, 3)))  # faint ink joins strokes
    lengths = np.array([max(s.stop - s.start for s in box) for box in ndimage.find_objects(parts)])
    large = np.append(False, lengths > lengths.max() / 8)[parts]
    specks = (parts > 0) & ~large
    covered = [large[side].mean() for side in SIDES]
    inner = np.setdiff1d(parts[large], np.concatenate([parts[side] for side in SIDES]))
    left, top, right, bottom = Image.fromarray(large).getbbox()
    image = Image.fromarray(np.where(specks, 0, ink).astype(np.float32))
    image = image.crop((left - 2, top - 2, right + 2, bottom + 2))  # where there is none, paper
    scale = max(1, 400 / max(image.size))
    digit = np.asarray(image.resize([round(scale * side) for side in image.size])) > 0.5
    filled = ndimage.binary_fill_holes(digit)
    holes = ndimage.binary_erosion(filled & ~digit, iterations=max(digit.shape) // 40)
    for problem, true in {
        "it is full of specks; clean it, or crop it to one digit": specks.sum() > large.sum() / 10,
        "it has several large parts; crop it to one digit": sum(lengths > lengths.max() / 2) > 1,
        "something lies along its edge; crop it to the paper around the digit": (
            (max(covered) > 0.9 and min(covered) == 0) or (max(covered) > 0 and len(inner) > 0)
        ),
        "it is wider than a digit; crop it to one digit": right - left > 1.4 * (bottom - top),
        "it has more loops than a digit; crop it to one digit": ndimage.label(holes)[1] > 3,
        "it is a box, a frame or a sheet; crop it to the paper inside": _is_rectangle(filled),
    }.items():
        if true:
            raise ValueError(problem)
    return digit


def _is_rectangle(filled: np.ndarray) -> bool:
    """Whether a shape, bool [H, W], fills a turned rectangle that is not as narrow as a 1."""
    y, x = np.nonzero(filled & ~ndimage.binary_erosion(filled))
    turned = (x + 1j * y) * np.exp(1j * np.radians(np.arange(0, 90, 3)))[:, None]
    sides = np.sort([np.ptp(turned.real, axis=1), np.ptp(turned.imag, axis=1)], axis=0)
    short, long = sides[:, sides.prod(axis=0).argmin()]
    return filled.sum() > 0.85 * short * long and short > 0.45 * long


def _mnist_form(digit: np.ndarray) -> torch.Tensor:
    """A digit, bool [H, W], as MNIST's authors scaled theirs (LeCun, Bottou, Bengio, Haffner 1998).

    It fits into 20x20 pixels, with its center of mass in the center of 28x28. Before that, very
    thin and very thick strokes are brought to the width of MNIST's.
    """
    length = max(digit.shape)
    inside, outside = (ndimage.distance_transform_edt(np.pad(digit, length // 8) == ink) for ink in (True, False))
    if 2 * inside.max() > length / 2:
        raise ValueError("it is a blot, not strokes; use a thinner pen")
    # Twice the distance from the middle of a stroke to its edge.
    width = 2 * np.median(inside[(inside > 0) & (inside == ndimage.maximum_filter(inside, 3))]) - 1
    wanted = np.clip(20 * width / length, *STROKES)
    # As much wider on either side: then (width + 2 wider) / (length + 2 wider) = wanted / 20.
    wider = (wanted * length - 20 * width) / (20 - wanted) / 2
    image = Image.fromarray((255 * np.clip(np.where(inside > 0, inside, 1 - outside) + wider, 0, 1)).astype(np.uint8))
    image = ImageOps.contain(image.crop(image.getbbox()), (20, 20), Image.Resampling.BOX)
    center = ndimage.center_of_mass(np.asarray(image))
    top, left = (int(np.clip(np.ceil(13.5 - c), 0, 28 - n)) for c, n in zip(center, image.size[::-1]))
    picture = Image.new("L", (28, 28))
    picture.paste(image, (left, top))
    return torch.tensor(np.asarray(picture))[None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the pictures named on the command line; the exit status is 1 if anything went wrong."""
    parser = argparse.ArgumentParser("python -m predict", description="Say which digit is shown.")
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURE", help="a picture of one digit, or a folder")
    add("--show", action="store_true", help="print the picture that the networks are given")
    add("--json", action="store_true", help="print a line of JSON for each picture")
    add("--weights", default=WEIGHTS, metavar="FOLDER", help="of the networks (%(default)s)")
    options = parser.parse_args(arguments)
    networks, failed = load_networks(options.weights), False
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    for name in options.pictures:
        inside = sorted(str(p) for p in Path(name).glob("*") if p.suffix.lower() in suffixes)
        for path in inside or [name]:
            try:
                picture = preprocess(path)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None)
                print(f"{path}: {reason}." if reason else error, file=sys.stderr)
                failed = True
                continue
            probabilities = classify(picture, networks)
            digit = verdict(probabilities)
            ...
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
