"""A user's picture of a digit, of any size and colors, brought to the form of MNIST's images."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

STROKES = (2.2, 4.0)  # widths in pixels of 28; nine tenths of MNIST's lie between 1.7 and 4.3
CLEAN = 0.9  # of the variance; a drawing's two colors explain more, a photograph's less
CONTRAST = 5  # standard deviations from paper to ink; noise alone has 2.7, blank photographs 4.2
BLOT = 0.5  # a stroke as wide as this share of the digit's length; a broad marker's have 0.2
FULL = 0.8  # of the box filled with ink: no digit, but for a 1


def mnist_form(pixels: np.ndarray) -> torch.Tensor:
    """The digit as MNIST would hold it, uint8 [1, 28, 28], ink 255 on paper 0.

    MNIST's authors (LeCun, Bottou, Bengio and Haffner 1998) fit a digit into 20x20 pixels, keeping
    its aspect, with antialiasing, and place it in 28x28 by its center of mass. Before that, strokes
    thinner or thicker than theirs are brought to their width.

    pixels: float32 [H, W, 4], 0 to 255: red, green and blue, each times alpha, and alpha.

    Raises ValueError, which says what is there instead, if there is no single digit.
    """
    ink, threshold = _ink(pixels)
    if sheet := _sheet(ink > threshold):
        return mnist_form(pixels[sheet])
    ink = _cut_out(ink, threshold)
    # Enlarged, if small, so that its outline is finer than the pixels of 28.
    scale = max(1, 400 / max(ink.shape))
    height, width = (round(scale * side) for side in ink.shape)
    ink = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height)))
    digit = _fitted(_usual_strokes(ink > threshold))
    if digit.mean() > 255 * FULL and digit.shape[1] > digit.shape[0] / 2:
        raise ValueError("its ink fills a whole box")
    return _centered(digit)


# --- ink and paper --------------------------------------------------------------------------------


def _ink(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel is from the paper's color, float64 [H, W], and above what it is ink."""
    margin = max(1, min(pixels.shape[:2]) // 50)
    rim = np.ones(pixels.shape[:2], dtype=bool)
    rim[margin:-margin, margin:-margin] = False
    ink, threshold = _against(np.median(pixels[rim], axis=0), pixels)
    within, explained = _divided(ink, threshold)
    if explained < CLEAN:
        # Against the noise of a camera, whose pictures are not small.
        blur = min(1, min(pixels.shape[:2]) / 200)
        pixels = ndimage.gaussian_filter(pixels, (blur, blur, 0))
        ink, threshold = _against(_unevenly_lit_paper(pixels), pixels)
        within, _ = _divided(ink, threshold)
    dark = ink > threshold
    if not dark.any() or ink[dark].mean() - ink[~dark].mean() < CONTRAST * within:
        raise ValueError("nothing stands out from its background")
    return ink, threshold


def _against(paper: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """As _ink, given the paper's color, [4] or [H, W, 4]."""
    difference = (pixels - paper).astype(np.float64)
    # Along the direction in which the colors vary most: any pen shows on any paper.
    flat = difference.reshape(-1, 4)
    ink = difference @ np.linalg.eigh(flat.T @ flat)[1][:, -1]
    ink *= np.sign((ink * np.abs(ink)).sum())
    # Otsu's cut into two: where the two means explain most of the variance.
    counts, edges = np.histogram(ink, 256)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[-2::-1]
    off = np.cumsum(counts * centers)[:-1] / np.maximum(below, 1)
    on = np.cumsum((counts * centers)[::-1])[-2::-1] / np.maximum(above, 1)
    cut = (below * above * (on - off) ** 2).argmax()
    return ink, max(12, (on[cut] + off[cut]) / 2)


def _divided(ink: np.ndarray, threshold: float) -> tuple[float, float]:
    """The standard deviation within ink and paper, and the share of variance between them."""
    dark = ink > threshold
    within = sum(part.var() * part.size for part in (ink[dark], ink[~dark]) if part.size) / ink.size
    return within**0.5, 1 - within / max(ink.var(), 1e-12)


def _unevenly_lit_paper(pixels: np.ndarray) -> np.ndarray:
    """The paper's color everywhere, [H, W, 4]: a quadratic surface through most of the picture.

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


def _sheet(dark: np.ndarray) -> tuple[slice, slice] | None:
    """The inside of a wide frame, where its color was taken for the paper's and the paper for ink.

    That is ink that fills its box but for the digit.
    """
    parts, _count = ndimage.label(dark)
    largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    rows, columns = box = _box(largest)
    if 2 * largest[box].size < dark.size:
        return None
    filled = ndimage.binary_fill_holes(largest[box])
    if not (filled.mean() > 0.9 and 0.6 < largest[box].mean() < 0.995):
        return None
    rim = 2 + min(filled.shape) // 100
    if min(filled.shape) <= 2 * rim:
        return None
    return slice(rows.start + rim, rows.stop - rim), slice(columns.start + rim, columns.stop - rim)


def _without_lines(dark: np.ndarray) -> np.ndarray:
    """Ink without the lines that run from edge to edge, as ruled and squared paper has them.

    They go only where that frees what is left from the edges: a digit cropped closely may run from
    edge to edge itself.
    """
    for steps in ((), (0,), (1,), (0, 1)):  # as it is, without those across, down, both
        left = dark
        for axis in steps:
            left = left & ~(_lines(left) if axis == 0 else _lines(left.T).T)
        parts, sizes = _parts(left)
        if sizes.max(initial=0) > max(dark.shape) / 8 and not _on_rim(parts)[sizes.argmax()]:
            return left
    return dark if left.sum() > dark.sum() / 10 else left


def _lines(dark: np.ndarray) -> np.ndarray:
    """The thin lines across that run from edge to edge, without what is thicker: bool [H, W].

    So it stays where a stroke crosses a line or lies on it.
    """
    height, width = dark.shape
    near = max(height, width) // 50
    thickness = _runs(dark.T).T
    parts, _ = ndimage.label(_runs(dark) >= max(3, width // 8), np.ones((3, 3)))
    lines = np.zeros_like(dark)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        line = parts == number
        across = np.arange(box[1].start, box[1].stop)
        usual = np.median(thickness[line[:, across].argmax(axis=0), across])
        ends = [(x, np.flatnonzero(line[:, x])) for x in across[[0, -1]]]
        if usual < min(height, width) / 25 and all(
            min(x, width - 1 - x, y[0], height - 1 - y[-1]) <= near for x, y in ends
        ):
            lines |= line & (thickness <= 1.25 * usual + 1)
    return lines


def _runs(dark: np.ndarray) -> np.ndarray:
    """For each pixel of ink how long the run of ink across is that it lies in, int [H, W]."""
    runs, _ = ndimage.label(dark, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    return np.where(dark, np.bincount(runs.ravel())[runs], 0)


def _parts(dark: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the ink, numbered from 1, int [H, W], and the longer side of each, [parts].

    Small gaps, as of chalk, divide nothing.
    """
    near = ndimage.binary_dilation(dark, iterations=max(1, max(dark.shape) // 100))
    parts, _ = ndimage.label(near, np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    return parts, np.array([max(s.stop - s.start for s in box) for box in boxes])


def _on_rim(parts: np.ndarray) -> np.ndarray:
    """How many pixels of each part lie along the picture's rim, [parts]."""
    rim = np.concatenate([parts[0], parts[-1], parts[1:-1, 0], parts[1:-1, -1]])
    return np.bincount(rim, minlength=parts.max() + 1)[1:]


def _cut_out(ink: np.ndarray, threshold: float) -> np.ndarray:
    """The digit's part of the ink: no specks, lines or frames, nothing along the picture's rim."""
    dark = _without_lines(ink > threshold)
    parts, sizes = _parts(dark)
    around, on_rim = _outlines(parts, sizes), _on_rim(parts)
    inside = sizes[(on_rim == 0) & ~around].max(initial=0)
    # The edge of a desk, a frame or a shadow; but a digit cropped closely may touch the rim too.
    share = on_rim / (2 * sum(ink.shape))
    foreign = around | (on_rim > 0) & (sizes < inside) | (share > 0.5)
    if inside > max(ink.shape) / 10:
        foreign |= share > 1 / 8
    largest = sizes[~foreign].max(initial=0)
    digit = ~foreign & (sizes > largest / 8)
    if not 0 < digit.sum() <= 8:
        raise ValueError("it shows specks, or nothing but lines")
    boxes = ndimage.find_objects(parts)
    large = [boxes[number] for number in np.flatnonzero(digit & (sizes > largest / 2))]
    for axis in (0, 1):
        ends = sorted((box[axis].start, box[axis].stop) for box in large)
        if any(start - stop > largest / 8 for (_, stop), (start, _) in pairwise(ends)):
            raise ValueError("it shows several parts, each as large as a digit")
    digit = np.isin(parts, 1 + np.flatnonzero(digit))
    line = (ink > threshold) & ~dark
    return np.where(digit & ~line, ink, 0)[_box(digit)]


def _outlines(parts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which parts go around another one that is no speck beside them, as a frame does: bool."""
    around = np.zeros(len(sizes), dtype=bool)
    for number in np.flatnonzero(sizes > sizes.max(initial=0) / 4):
        within = ndimage.binary_fill_holes(parts == number + 1) & (parts != number + 1)
        inner = np.unique(parts[within])
        around[number] = any(sizes[inner[inner > 0] - 1] > sizes[number] / 4)
    return around


def _usual_strokes(digit: np.ndarray) -> np.ndarray:
    """A digit, bool [H, W], drawn with a pen of MNIST's width: float64 [H', W'], 0 to 1."""
    digit = digit[_box(digit)]
    length = max(digit.shape)
    digit = np.pad(digit, length // 4)
    inside = ndimage.distance_transform_edt(digit)
    outside = ndimage.distance_transform_edt(~digit)
    ridge = digit & (inside == ndimage.maximum_filter(inside, 3))  # the middle of the strokes
    width = 2 * np.median(inside[ridge]) - 1
    if width > BLOT * length:
        raise ValueError("its ink is a blot")
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


def _centered(digit: np.ndarray) -> torch.Tensor:
    """A digit of at most 20x20 in 28x28: its center of mass where MNIST has it, in pixel 14."""
    corner = np.ceil(13.5 - np.array(ndimage.center_of_mass(digit))).astype(int)
    top, left = np.clip(corner, 0, 28 - np.array(digit.shape))
    canvas = torch.zeros(1, 28, 28, dtype=torch.uint8)
    height, width = digit.shape
    canvas[0, top : top + height, left : left + width] = torch.tensor(digit)
    return canvas


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest box around what is True."""
    return ndimage.find_objects(mask.astype(int))[0]
