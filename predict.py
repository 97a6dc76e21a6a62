"""Read a picture of a digit: python -m predict digit.png, or prepare and read in a notebook.

prepare brings any picture of one digit to the form of MNIST's images, which is what the networks
are given. How sure they are is their softmax, in per cent. They know the ten digits and nothing
else, and take a letter for a digit as surely.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import nn

from DataPipeline import normalize
from helpers.files import read_file
from helpers.mnist_form import mnist_form
from helpers.weights import load_weights

NAMES = ("v1", "v2", "final")
WEIGHTS = Path(__file__).resolve().parent / "results"
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # EPS would run a program
LARGEST = 1000  # pixels along the longer side; a larger picture is shrunk to it first


def prepare(image: str | Path | Image.Image) -> torch.Tensor:
    """A picture of one digit as MNIST would hold it: uint8 [1, 28, 28], ink 255 on paper 0.

    image: a file in one of FORMATS, or a Pillow image; of any size, mode and colors, dark on light
        or light on dark. Around the digit its paper should be plain; it may be unevenly lit, lined,
        gridded or framed.

    Raises OSError for a file that cannot be read, TypeError for an array or a tensor, and
    ValueError for what is no picture, is damaged or too large, or shows no single digit.
    """
    if not isinstance(image, str | Path | Image.Image):
        raise TypeError(
            f"prepare takes a file or a Pillow image, not a {type(image).__name__}: "
            "PIL.Image.fromarray makes one of a uint8 array [height, width] or [height, width, 3]."
        )
    name = "the image" if isinstance(image, Image.Image) else str(image)
    pixels = _pixels(image, name)
    try:
        return mnist_form(pixels)
    except ValueError as error:
        raise ValueError(f"{name} shows no single digit: {error}.") from None


def load_networks(folder: str | Path = WEIGHTS) -> dict[str, nn.Module]:
    """The three trained networks by name, ready to use, from the weights in a folder.

    Raises FileNotFoundError if they are not there, and what load_weights raises.
    """
    paths = {name: Path(folder) / f"{name}.safetensors" for name in NAMES}
    try:
        return {name: load_weights(path) for name, path in paths.items()}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} is missing: make notebooks trains the networks and saves them."
        ) from error


def read(picture: torch.Tensor, networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """What each network sees: the probabilities of the ten digits, float32 [10], by its name.

    picture: uint8 [1, 28, 28], as prepare returns it and MNIST holds it.
    networks: in evaluation mode on the CPU, as load_networks returns them.

    Raises ValueError if the picture or a network is in another state.
    """
    if picture.dtype != torch.uint8 or picture.shape != (1, 28, 28):
        raise ValueError(
            f"the picture is {picture.dtype} {list(picture.shape)}; expected torch.uint8 "
            "[1, 28, 28], 0 to 255, as prepare returns it."
        )
    for name, network in networks.items():
        if network.training:
            raise ValueError(f"{name} is in training mode: call its eval() first.")
    images = normalize(picture[None] / 255)
    with torch.inference_mode():
        return {name: network(images).softmax(dim=1)[0] for name, network in networks.items()}


def verdict(readings: Mapping[str, torch.Tensor]) -> int | None:
    """The digit that all networks see, in what read returns; None where they disagree."""
    digits = {probabilities.argmax().item() for probabilities in readings.values()}
    return digits.pop() if len(digits) == 1 else None


def as_text(picture: torch.Tensor) -> str:
    """A picture, uint8 [1, 28, 28], as 14 lines of 28 half blocks in the terminal's text color."""
    dark = (picture[0] > 127).tolist()
    rows = zip(dark[::2], dark[1::2], strict=True)
    return "\n".join("".join(" ▄▀█"[2 * a + b] for a, b in zip(*row, strict=True)) for row in rows)


def _pixels(image: str | Path | Image.Image, name: str) -> np.ndarray:
    """The pixels of a picture as mnist_form takes them; errors as for prepare."""
    if not isinstance(image, Image.Image):
        content = io.BytesIO(read_file(image))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not isinstance(image, Image.Image):
                image = Image.open(content, formats=FORMATS)
            image = ImageOps.exif_transpose(image)
            if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip at 255
                values = np.array(image, dtype=np.float64)
                if not np.isfinite(values).all():
                    raise ValueError("it holds NaN or infinity")
                values -= min(values.min(), 0)
                image = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
            image = image.convert("RGBA").convert("RGBa")
            image.thumbnail((LARGEST, LARGEST))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        million = Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"{name} has over {million} million pixels: shrink it first.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is no picture in {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        raise ValueError(f"{name} is damaged ({error}): save or send it once more.") from error
    return np.asarray(image, dtype=np.float32)


def _sure(probabilities: torch.Tensor) -> str:
    """The likeliest digit and how sure the network is, and the next if it is in the running."""
    (first, second), (digit, other) = (t.tolist() for t in probabilities.topk(2))
    sure = "> 99.9 %" if first >= 0.9995 else f"{100 * first:.1f} %"
    return f"{digit}, {sure} sure" + f" (or {other}: {100 * second:.1f} %)" * (second >= 0.01)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the pictures named on the command line; the exit status, 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m predict", description="Say which digit a picture shows."
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="a picture of one digit, or a folder of them"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the picture that the networks are given"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each picture")
    parser.add_argument(
        "--weights",
        default=WEIGHTS,
        metavar="FOLDER",
        help="with those of v1, v2 and final (%(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        networks = load_networks(options.weights)
    except (OSError, ValueError) as error:
        _complain(error)
        return 1
    return max([_say(picture, networks, options) for picture in options.pictures])


def _say(path: str, networks: Mapping[str, nn.Module], options: argparse.Namespace) -> int:
    """Read a picture, or those in a folder, as main is asked to; its exit status."""
    try:
        inside = _pictures(path) if os.path.isdir(path) else []
        picture = None if inside else prepare(path)
    except (OSError, ValueError) as error:
        _complain(error)
        return 1
    if inside:
        return max([_say(name, networks, options) for name in inside])
    readings = read(picture, networks)
    digit = verdict(readings)
    if options.json:
        probabilities = {name: likely.tolist() for name, likely in readings.items()}
        print(json.dumps({"picture": path, "digit": digit, "probabilities": probabilities}))
    else:
        details = "; ".join(f"{name}: {_sure(likely)}" for name, likely in readings.items())
        print(f"{path}: {'unsure' if digit is None else digit} ({details})")
    if options.show:
        print(as_text(picture))
    return 0


def _pictures(folder: str) -> list[str]:
    """The pictures in a folder; ValueError if it has none."""
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    found = sorted(str(p) for p in Path(folder).iterdir() if p.suffix.lower() in suffixes)
    if not found:
        raise ValueError(f"{folder} holds no picture in {', '.join(FORMATS)}.")
    return found


def _complain(error: Exception) -> None:
    """What an error says, on stderr, without Python's number for it."""
    strerror = getattr(error, "strerror", None)
    print(f"{error.filename}: {strerror}." if strerror else error, file=sys.stderr)


def _run() -> int:
    """main, where stdout or stderr may be closed, full or a pipe that nobody reads any more."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    sys.stdout.reconfigure(errors="replace")  # a terminal without blocks shows question marks
    try:
        status = main()
        sys.stdout.flush()
        return status
    except OSError as error:  # main reports every other one
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python flushes as it ends
        if not isinstance(error, BrokenPipeError):
            print(f"The output could not be written: {error.strerror}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_run())
