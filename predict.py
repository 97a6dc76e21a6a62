"""Read a picture of a digit: python -m predict digit.png, or prepare and read in a notebook.

prepare brings any picture of one digit to the form of MNIST's images; what the networks were given
is shown beside what they say. How sure they are is their softmax, in per cent. They know the ten
digits and nothing else, and take a letter for a digit as surely.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from DataPipeline import normalise
from helpers.mnist_form import mnist_form
from helpers.weights import load_weights
from models import SmallMNISTNet4Block

NAMES = ("v1", "v2", "final")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # EPS would run a program
LARGEST = 1000  # pixels along the longer side; a larger picture is shrunk to it first


def prepare(image: str | Path | Image.Image) -> torch.Tensor:
    """A picture of one digit as MNIST would hold it: uint8 [1, 28, 28], ink 255 on paper 0.

    image: a file in one of FORMATS, or a Pillow image; of any size, mode and colours, dark on light
        or light on dark. Around the digit its paper should be plain; it may be unevenly lit.

    Raises OSError for a file that cannot be opened, and ValueError for one that is no picture, is
    damaged or too large, or shows no digit.
    """
    name = "the image" if isinstance(image, Image.Image) else str(image)
    try:
        return mnist_form(_pixels(image, name))
    except ValueError as error:
        raise ValueError(f"{name} shows no single digit: {error}.") from None


def load_networks(folder: str | Path = "results") -> dict[str, SmallMNISTNet4Block]:
    """The three trained networks by name, ready to use, from the weights in a folder.

    Raises FileNotFoundError if they are not there, ValueError if they are not of this project.
    """
    try:
        return {name: load_weights(Path(folder) / f"{name}.safetensors") for name in NAMES}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} is missing: make notebooks trains the networks and saves them."
        ) from error


def read(
    picture: torch.Tensor, networks: Mapping[str, SmallMNISTNet4Block]
) -> dict[str, torch.Tensor]:
    """What each network sees: the probabilities of the ten digits, float32 [10], by its name.

    picture: uint8 [1, 28, 28], as prepare returns it and MNIST holds it.
    networks: in evaluation mode on the CPU, as load_networks returns them.
    """
    images = normalise(picture[None] / 255)
    with torch.inference_mode():
        return {name: network(images).softmax(dim=1)[0] for name, network in networks.items()}


def as_text(picture: torch.Tensor) -> str:
    """A picture, uint8 [1, 28, 28], as 14 lines of 28 half blocks in the terminal's text colour."""
    dark = (picture[0] > 127).tolist()
    rows = zip(dark[::2], dark[1::2], strict=True)
    return "\n".join("".join(" ▄▀█"[2 * a + b] for a, b in zip(*row, strict=True)) for row in rows)


def _pixels(image: str | Path | Image.Image, name: str) -> np.ndarray:
    """The pixels of a picture as mnist_form takes them; errors as for prepare."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not isinstance(image, Image.Image):
                with Image.open(image, formats=FORMATS) as image:
                    image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip at 255
                values = np.asarray(image, dtype=np.float64)
                image = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
            image = image.convert("RGBA").convert("RGBa")
            image.thumbnail((LARGEST, LARGEST))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        million = Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"{name} has over {million} million pixels: shrink it first.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is no picture in {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{name} is damaged ({error}): save or send it once more.") from error
    return np.asarray(image, dtype=np.float32)


def _says(probabilities: torch.Tensor) -> str:
    """The likeliest digit and how sure the network is, and the next if it is in the running."""
    (first, second), (digit, other) = (t.tolist() for t in probabilities.topk(2))
    sure = f"{100 * first:.1f} %" if first < 0.9995 else "> 99.9 %"
    return f"{digit}, {sure} sure" + (f" (or {other}: {100 * second:.1f} %)" * (second >= 0.01))


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the pictures named on the command line; the exit status, 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m predict", description="Say which digit a picture shows."
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a picture of one digit")
    parser.add_argument(
        "--weights", default="results", metavar="FOLDER", help="of v1, v2 and final (%(default)s)"
    )
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # a terminal without blocks shows question marks
    try:
        networks = load_networks(options.weights)
    except (OSError, ValueError) as error:
        print(_sentence(error), file=sys.stderr)
        return 1
    status = 0
    for path in options.pictures:
        try:
            picture = prepare(path)
        except (OSError, ValueError) as error:
            print(_sentence(error), file=sys.stderr)
            status = 1
            continue
        print(f"{path}, as the networks are given it:\n{as_text(picture)}")
        for name, probabilities in read(picture, networks).items():
            print(f"{name:>8}: {_says(probabilities)}")
    return status


def _sentence(error: Exception) -> str:
    """What an error says, without Python's number for it."""
    strerror = getattr(error, "strerror", None)
    return f"{error.filename}: {strerror}." if strerror else str(error)


if __name__ == "__main__":
    sys.exit(main())
