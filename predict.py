"""Read a picture of a digit: python -m predict digit.png, or preprocess and classify in Python.

The networks know ten digits and nothing else: they read a letter as a digit, too.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from DataPipeline import normalize
from helpers.checkpoint import load_weights

WEIGHTS = Path(__file__).resolve().parent / "results"
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # EPS would run a program
THINNEST = 1.8  # stroke in pixels of 28; nine tenths of MNIST's digits have wider ones
SIDES = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])  # of a picture


def preprocess(image: str | Path | Image.Image) -> torch.Tensor:
    """One dark or light digit on plain paper, as MNIST would have it: uint8 [1, 28, 28], ink 255.

    image: a file in one of FORMATS or a Pillow image, of any size, mode and colors.

    Raises ValueError for a file that cannot be read and for a picture of anything but one digit.
    """
    try:
        return _mnist_form(_digit(_ink(image)))
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        name = image if isinstance(image, str | Path) else "the picture"
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}.") from error


def load_networks(folder: str | Path = WEIGHTS) -> dict[str, torch.nn.Module]:
    """The trained networks by name, in evaluation mode on the CPU; raises as load_weights does."""
    return {n: load_weights(Path(folder, f"{n}.safetensors")) for n in ("v1", "v2", "final")}


def classify(
    picture: torch.Tensor, networks: dict[str, torch.nn.Module]
) -> dict[str, torch.Tensor]:
    """The probabilities of the ten digits, float32 [10], by the name of the network.

    picture: uint8 [1, 28, 28], as preprocess returns it; ValueError for any other.
    networks: as load_networks returns them.
    """
    if picture.dtype != torch.uint8 or picture.shape != (1, 28, 28):
        raise ValueError(f"expected uint8 [1, 28, 28], not {picture.dtype} {list(picture.shape)}.")
    images = normalize(picture[None] / 255)
    with torch.inference_mode():
        return {name: network(images).softmax(dim=1)[0] for name, network in networks.items()}


def verdict(probabilities: dict[str, torch.Tensor]) -> int | None:
    """The digit that all networks read, given what classify returns; None where they disagree."""
    digits = {p.argmax().item() for p in probabilities.values()}
    return digits.pop() if len(digits) == 1 else None


def _ink(image: str | Path | Image.Image) -> np.ndarray:
    """How inky each pixel of a picture is, about 0 on paper and 1 on ink: float64 [H, W]."""
    image = image if isinstance(image, Image.Image) else Image.open(image, formats=FORMATS)
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip at 255
        levels = np.nan_to_num(np.array(image, dtype=np.float64))
        image = Image.fromarray(np.uint8(255 * (levels - levels.min()) / max(np.ptp(levels), 1)))
    image = image.convert("RGBA").convert("RGBa")  # colors times alpha, and alpha
    image.thumbnail((1000, 1000))
    colors = np.asarray(image, dtype=np.float64).reshape(-1, 4)
    colors -= colors.mean(axis=0)
    # Along the direction in which the colors vary most: any pen shows on any paper.
    values = (colors @ np.linalg.eigh(colors.T @ colors)[1][:, -1]).reshape(image.size[::-1])
    low, high, noise = values.min(), values.max(), 0
    if high > low:
        for _ in range(20):  # Ridler and Calvard: the threshold lies halfway between the means
            light = values > (low + high) / 2
            low, high = values[~light].mean(), values[light].mean()
        noise = np.std(values - np.where(light, high, low))
    # Black and white are 441 apart; noise and shading alone by less than 3.7 deviations.
    if high - low < max(25, 3.8 * noise):
        raise ValueError("nothing stands out from the background; draw darker, in even light")
    # Without a margin, ink covers parts of all sides, but on average less than half of them.
    dark_ink = np.mean([light[side].mean() for side in SIDES]) > 0.5
    return (high - values if dark_ink else values - low) / (high - low)


def _digit(ink: np.ndarray) -> np.ndarray:
    """The digit's ink cut to its box, enlarged if it is shorter than 400 pixels: float32 [H, W]."""
    parts, _ = ndimage.label(ink > 0.4, np.ones((3, 3)))  # faint ink joins strokes
    lengths = np.array([max(s.stop - s.start for s in box) for box in ndimage.find_objects(parts)])
    large = np.append(False, lengths > lengths.max() / 8)[parts]
    specks = (parts > 0) & ~large
    covered = [large[side].mean() for side in SIDES]
    inner = np.setdiff1d(parts[large], np.concatenate([parts[side] for side in SIDES]))
    image = Image.fromarray(np.where(specks, 0, ink).astype(np.float32))
    # Two pixels of margin, which beyond the picture is paper.
    image = image.crop(np.add(Image.fromarray(large).getbbox(), (-2, -2, 2, 2)).tolist())
    scale = max(1, 400 / max(image.size))
    ink = np.asarray(image.resize([round(scale * side) for side in image.size]))
    ink = ink[ndimage.find_objects((ink > 0.5).astype(int))[0]]
    filled = ndimage.binary_fill_holes(ink > 0.5)
    holes = np.bincount(ndimage.label(filled & (ink <= 0.5))[0].ravel())[1:]
    turned = [Image.fromarray(filled).rotate(angle, expand=True) for angle in range(0, 90, 3)]
    short, long = min((sorted(i.crop(i.getbbox()).size) for i in turned), key=np.prod)
    at_edge = (max(covered) > 0.9 and min(covered) == 0) or (max(covered) > 0 and inner.size > 0)
    frame = filled.sum() > 0.85 * short * long and short > 0.45 * long  # a narrower one is a 1
    for problem, shown in {
        "it is a box, a frame or a sheet; crop it to the paper inside": frame,
        "it is full of specks; clean it, or crop it to one digit": specks.sum() > large.sum() / 10,
        "it has several large parts; crop it to one digit": sum(lengths > lengths.max() / 2) > 1,
        "something lies along its edge; crop it to the paper around the digit": at_edge,
        "it is wider than a digit; crop it to one digit": ink.shape[1] > 1.4 * ink.shape[0],
        "it has more loops than a digit; crop it to one digit": sum(holes > ink.size / 800) > 3,
    }.items():
        if shown:
            raise ValueError(problem)
    return ink


def _mnist_form(ink: np.ndarray) -> torch.Tensor:
    """A digit in the size and place of MNIST's, its strokes no thinner: uint8 [1, 28, 28]."""
    length = max(ink.shape)
    ink = np.pad(ink, length // 8)
    inside, outside = map(ndimage.distance_transform_edt, (ink > 0.5, ink <= 0.5))
    if 2 * inside.max() > length / 2:
        raise ValueError("it is a blot, not strokes; use a thinner pen")
    ridge = (inside > 0) & (inside == ndimage.maximum_filter(inside, 3))  # the middle of strokes
    width = 2 * np.median(inside[ridge]) - 1
    # As much wider on either side: then (width + 2 wider) / (length + 2 wider) = THINNEST / 20.
    wider = (THINNEST * length - 20 * width) / (20 - THINNEST) / 2
    ink = np.clip(1 + wider - outside if wider > 0 else ink, 0, 1)
    # MNIST's authors fitted digits into 20x20 pixels and put the center of mass into the middle.
    image = Image.fromarray((255 * ink).astype(np.uint8))
    image = ImageOps.contain(image.crop(image.getbbox()), (20, 20), Image.Resampling.BOX)
    corner = np.ceil(13.5 - np.array(ndimage.center_of_mass(np.asarray(image)))).astype(int)
    top, left = np.clip(corner, 0, 28 - np.array(image.size[::-1])).tolist()
    return torch.tensor(np.asarray(image.crop((-left, -top, 28 - left, 28 - top))))[None]


def main(arguments: list[str] | None = None) -> int:
    """Read the pictures named on the command line; the exit status is 1 if anything went wrong."""
    parser = argparse.ArgumentParser("python -m predict", description="Say which digit is shown.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="one digit")
    parser.add_argument("--weights", default=WEIGHTS, metavar="FOLDER", help="of the networks")
    options = parser.parse_args(arguments)
    networks, failed = None, False
    for path in options.pictures:
        try:
            networks = networks or load_networks(options.weights)
            seen = classify(preprocess(path), networks)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        digit = verdict(seen)
        sure = {n: f"{p.argmax()}, {min(p.max(), 0.999):.1%} sure" for n, p in seen.items()}
        each = "; ".join(f"{n}: {text}" for n, text in sure.items())
        print(f"{path}: {'unsure' if digit is None else digit} ({each})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
