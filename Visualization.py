"""The notebooks' figures: end a cell with the call, and the figure that it returns appears once.

Pyplot and its settings stay untouched. Colors are Okabe and Ito's, safe for the color-blind.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator
from torch import Tensor

from helpers.history import History
from models import CLASSES, TARGET_ACCURACY

BLUE, VERMILLION, YELLOW, GRAY = "#0072B2", "#D55E00", "#F0E442", "#595959"
WIDTH, DPI = 6.4, 125  # inches; 800 pixels, on which matplotlib's 10 points read on a phone, too
PARTS = {
    "train": {"color": VERMILLION, "linestyle": "--", "marker": "s", "markersize": 4},
    "test": {"color": BLUE, "linestyle": "-", "marker": "o", "markersize": 4},
}


class NotebookFigure(Figure):
    """A Figure, sized in inches, that notebooks show as a picture without a pyplot backend."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        super().__init__((width, height), DPI, facecolor="white", layout="constrained")

    def png(self, dpi: float | str = "figure") -> bytes:
        """The figure as a PNG file's bytes; dpi: 125 unless given."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=dpi)
        return file.getvalue()

    _repr_png_ = png  # what IPython asks a result for


def plot_pictures(cells: Sequence[tuple], columns: int, title: str) -> NotebookFigure:
    """A grid of (picture or None, caption); pictures: [1, 28, 28], uint8 or float from 0 to 1."""
    rows = math.ceil(len(cells) / columns)
    captioned = {index // columns for index, (_, caption) in enumerate(cells) if caption}
    figure = NotebookFigure(0.4 + rows * 0.98 * WIDTH / columns + 0.2 * len(captioned))
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw={"box_aspect": 1}).flat
    for axes, (picture, caption) in zip_longest(grid, cells, fillvalue=(None, "")):
        axes.set_axis_off()
        axes.set_title(caption, fontsize="medium", pad=3)
        if picture is not None:
            white = 255 if picture.dtype == torch.uint8 else 1
            axes.imshow(picture[0].numpy(force=True), cmap="gray", vmin=0, vmax=white)
    return figure


def plot_digits(images: Tensor, labels: Tensor) -> NotebookFigure:
    """The first two images of each digit; images: uint8 [N, 1, 28, 28], labels: int64 [N]."""
    examples = [[*images[labels == digit][:2], None, None] for digit in range(CLASSES)]
    cells = [(pictures[0], f"{digit}") for digit, pictures in enumerate(examples)]
    cells += [(pictures[1], "") for pictures in examples]
    return plot_pictures(cells, CLASSES, "The first two examples of each digit")


def plot_augmentations(image: Tensor, augmented: Tensor) -> NotebookFigure:
    """An image, uint8 [1, 28, 28], and its augmentations, float [K, 1, 28, 28] in [0, 1]."""
    cells = [(image, "original"), *((picture, "") for picture in augmented)]
    return plot_pictures(cells, 6, "A training image and its augmentations")


def plot_training_curves(
    history: History, published: Sequence[Mapping[str, float]] = ()
) -> NotebookFigure:
    """Accuracy, loss and learning rate against the epoch; accuracy is logarithmic in the error.

    Training values include dropout and augmentation. A history without epochs raises ValueError.
    published: a log: per epoch train_loss, train_accuracy, test_loss and test_accuracy.
    """
    first = history.first_epoch_at(99)
    logs = (history.epochs, published)
    run, log = (pd.DataFrame(epochs, range(1, len(epochs) + 1)) for epochs in logs)
    figure = NotebookFigure(6.4)
    figure.suptitle(f"{history.network}, seed {history.seed}")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(6, 4, 2))
    stretch = (lambda x: -np.log10(100.1 - x), lambda y: 100.1 - 10.0**-y)  # finite at 100%
    top.set_yscale("function", functions=stretch)
    middle.set_yscale("log")
    for axes, what in ((top, "accuracy"), (middle, "loss")):
        for part, style in PARTS.items():
            key = f"{part}_{what}"
            if len(log):
                hollow = style | {"linestyle": ":", "markerfacecolor": "white"}
                axes.plot(log[key], label=f"{part}, published", **hollow)
            axes.plot(run[key], label=part, **style)
    top.axhline(99, color=GRAY, linestyle=(0, (1, 3)), label="99%")
    top.axhline(TARGET_ACCURACY, color=GRAY, ls="-.", label=f"the {TARGET_ACCURACY}% target")
    if first:
        star = {"color": YELLOW, "marker": "*", "ms": 14, "markeredgecolor": "black", "ls": ""}
        top.plot(first, run.test_accuracy[first], label=f"first epoch at 99%: {first}", **star)
    (line,) = bottom.plot(run.learning_rate, color="black", marker=".")
    if history.config["schedule"] == "step":  # and not after every batch
        line.set_drawstyle("steps-mid")
        bottom.set_yscale("log")
        bottom.yaxis.set_major_locator(LogLocator(numticks=9))
    top.yaxis.set_major_locator(FixedLocator([0, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 100]))
    middle.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    bottom.set(xlabel="epoch", xlim=(0.5, max(len(run), len(log)) + 0.5), ymargin=0.2)
    names = ("accuracy (%),\nlog scale of the error", "loss, log scale", "learning\nrate")
    for axes, name in zip(figure.axes, names, strict=True):
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel(name)
        axes.grid(color="0.9")
    figure.align_ylabels()
    figure.legend(handles=top.get_legend_handles_labels()[0], loc="outside lower center", ncols=3)
    return figure


def plot_confusion_matrix(labels: Tensor, predictions: Tensor) -> NotebookFigure:
    """How often each digit is taken for each one, the errors shaded; both int64 [N], 0 to 9."""
    pairs = (labels * CLASSES + predictions).cpu()
    counts = pairs.bincount(minlength=CLASSES**2).reshape(CLASSES, CLASSES).numpy()
    errors = counts.sum() - counts.trace()
    wrong = np.where(np.eye(CLASSES, dtype=bool), np.nan, counts)
    axes = NotebookFigure(5.6).subplots()
    axes.set(facecolor="0.9", title=f"Confusion matrix: {errors:,} of {counts.sum():,} are errors")
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=2 * max(np.nanmax(wrong), 1))
    for true, predicted in np.argwhere(counts):
        axes.text(predicted, true, f"{counts[true, predicted]}", ha="center", va="center")
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted digit", ylabel="true digit")
    return axes.figure


def plot_confident_errors(images: Tensor, labels: Tensor, logits: Tensor) -> NotebookFigure:
    """Up to 12 errors, the surest first; uint8 [N, 1, 28, 28], int64 [N], 0 to 9, float [N, 10]."""
    # In float32 the softmax of many errors rounds to 1, which would leave no order.
    confidence, predictions = logits.double().softmax(dim=1).max(dim=1)
    wrong = (predictions != labels).nonzero().flatten()
    cells = []
    for index in wrong[confidence[wrong].argsort(descending=True, stable=True)][:12].tolist():
        percent = 100 * confidence[index].item()
        sure = f"{percent:.1f}%" if percent < 99.95 else "> 99.9%"
        cells.append((images[index], f"{labels[index]} → {predictions[index]}, {sure}"))
    title = f"The most confident of {len(wrong)} errors: true → predicted"
    return plot_pictures(cells or [(None, "")], 4, title)
