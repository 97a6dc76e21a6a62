"""A user's picture of a digit, of any size and colours, brought to the form of MNIST's images."""

from __future__ import annotations

import math

import numpy as np
import torch
from kornia.filters import otsu_threshold
from PIL import Image
from scipy import ndimage

STROKES = (2.2, 4.0)  # widths in pixels of 28; nine tenths of MNIST's lie between 1.7 and 4.3
CLEAN = 0.9  # of the variance; a drawing's two colours explain more, a photograph's less


def mnist_form(pixels: np.ndarray) -> torch.Tensor | None:
    """The digit as MNIST would hold it, uint8 [1, 28, 28], ink 255 on paper 0; None without one.

    MNIST's authors (LeCun, Bottou, Bengio and Haffner 1998) fit a digit into 20x20 pixels, keeping
    its aspect, with antialiasing, and place it in 28x28 by its centre of mass. Before that, strokes
    thinner or thicker than theirs are brought to their width.

    pixels: float32 [H, W, 4], 0 to 255: red, green and blue, each times alpha, and alpha.
    """
    ink, threshold = _ink(pixels)
    if not (ink > threshold).any():
        return None
    ink = _cut_out(ink, threshold)
    # Enlarged, if small, so that its outline is finer than the pixels of 28.
    scale = max(1, 400 / max(ink.shape))
    height, width = (round(scale * side) for side in ink.shape)
    ink = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height)))
    return _centred(_fitted(_usual_strokes(ink > threshold)))


# --- ink and paper --------------------------------------------------------------------------------


def _ink(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel is from the paper's colour, float64 [H, W], and above what it is ink."""
    margin = max(1, min(pixels.shape[:2]) // 50)
    rim = np.ones(pixels.shape[:2], dtype=bool)
    rim[margin:-margin, margin:-margin] = False
    ink, threshold, explained = _against(np.median(pixels[rim], axis=0), pixels)
    if explained < CLEAN:
        pixels = ndimage.gaussian_filter(pixels, (1, 1, 0))  # against the noise of a camera
        ink, threshold, _ = _against(_unevenly_lit_paper(pixels), pixels)
    return ink, threshold


def _against(paper: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """As _ink, given the paper's colour, [4] or [H, W, 4]; and how well ink and paper divide.

    That is the share of the variance that the division into two explains, 0 to 1.
    """
    difference = (pixels - paper).astype(np.float64)
    # Along the direction in which the colours vary most: any pen shows on any paper.
    flat = difference.reshape(-1, 4)
    ink = difference @ np.linalg.eigh(flat.T @ flat)[1][:, -1]
    ink *= np.sign((ink * np.abs(ink)).sum())
    dark = ink > otsu_threshold(torch.from_numpy(ink))[1].item()
    if not dark.any():
        return ink, math.inf, 0.0
    on, off = ink[dark], ink[~dark]
    explained = 1 - (on.var() * on.size + off.var() * off.size) / (ink.var() * ink.size)
    return ink, max(12, (on.mean() + off.mean()) / 2), explained


def _unevenly_lit_paper(pixels: np.ndarray) -> np.ndarray:
    """The paper's colour everywhere, [H, W, 4]: a quadratic surface through most of the picture.

    Least absolute deviations, by weighted least squares, pass over the ink.
    """
    height, width, _ = pixels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    step = max(1, max(height, width) // 100)
    a, b = terms[::step, ::step].reshape(-1, 6), pixels[::step, ::step].reshape(-1, 4)
    weights = 1
    for _ in range(20):
        surface = np.linalg.lstsq(a.T @ (weights * a), a.T @ (weights * b), rcond=None)[0]
        weights = 1 / np.maximum(np.linalg.norm(b - a @ surface, axis=1, keepdims=True), 1)
    return terms @ surface


# --- from ink to 28x28 ----------------------------------------------------------------------------


def _cut_out(ink: np.ndarray, threshold: float) -> np.ndarray:
    """The digit's part of the ink: no specks, and nothing that runs along the picture's rim."""
    near = ndimage.binary_dilation(ink > threshold, iterations=max(1, max(ink.shape) // 100))
    parts, count = ndimage.label(near, structure=np.ones((3, 3)))
    sizes = np.array([max(s.stop - s.start for s in box) for box in ndimage.find_objects(parts)])
    rim = np.concatenate([parts[0], parts[-1], parts[1:-1, 0], parts[1:-1, -1]])
    on_rim = np.bincount(rim, minlength=count + 1)[1:]
    inside = sizes[on_rim == 0].max(initial=0)
    # The edge of a desk, a frame or a shadow; but a digit cropped closely may touch the rim too.
    foreign = (on_rim > 0) & (sizes < inside)
    if inside > max(ink.shape) / 10:
        foreign |= on_rim > len(rim) / 8
    digit = np.isin(parts, 1 + np.flatnonzero(~foreign & (sizes > sizes[~foreign].max() / 8)))
    return np.where(digit, ink, 0)[_box(digit)]


def _usual_strokes(digit: np.ndarray) -> np.ndarray:
    """A digit, bool [H, W], drawn with a pen of MNIST's width: float64 [H', W'], 0 to 1."""
    digit = digit[_box(digit)]
    length = max(digit.shape)
    digit = np.pad(digit, length // 4)
    inside = ndimage.distance_transform_edt(digit)
    outside = ndimage.distance_transform_edt(~digit)
    ridge = digit & (inside == ndimage.maximum_filter(inside, 3))  # the middle of the strokes
    width = 2 * np.median(inside[ridge]) - 1
    wanted = np.clip(20 * width / length, *STROKES)
    # As much wider on either side: then (width + 2 wider) / (length + 2 wider) = wanted / 20.
    wider = (wanted * length - 20 * width) / (20 - wanted) / 2
    drawn = np.clip(np.where(digit, inside - 0.5, 0.5 - outside) + wider + 0.5, 0, 1)
    return drawn[_box(drawn > 0)]


def _fitted(digit: np.ndarray) -> np.ndarray:
    """A digit, float [H, W], 0 to 1, as uint8 with 20 pixels along its longer side."""
    height, width = (max(1, round(20 * side / max(digit.shape))) for side in digit.shape)
    image = Image.fromarray((255 * digit).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _centred(digit: np.ndarray) -> torch.Tensor:
    """A digit of at most 20x20 in 28x28: its centre of mass where MNIST has it, in pixel 14."""
    corner = np.ceil(13.5 - np.array(ndimage.center_of_mass(digit))).astype(int)
    top, left = np.clip(corner, 0, 28 - np.array(digit.shape))
    canvas = torch.zeros(1, 28, 28, dtype=torch.uint8)
    height, width = digit.shape
    canvas[0, top : top + height, left : left + width] = torch.tensor(digit)
    return canvas


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest box around what is True."""
    return ndimage.find_objects(mask.astype(int))[0]
