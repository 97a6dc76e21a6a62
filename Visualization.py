"""Figures of the digits, the training and the mistakes: every function returns one Figure.

Nothing is shown, saved or registered with pyplot, and no global setting is touched: end a notebook
cell with the call and the figure appears once. Colours are Okabe and Ito's, safe for the colour-
blind; line style and marker differ as well, so that the figures also read in grey.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from models import CLASSES, VARIANTS, Variant, receptive_fields

if TYPE_CHECKING:
    from helpers.history import History

BLUE, VERMILLION, YELLOW, GREEN = "#0072B2", "#D55E00", "#F0E442", "#009E73"
GREY = "#595959"
WIDTH = 8  # inches, at 100 dpi: about what GitHub shows of a notebook's output
SMALL = 9  # points
# Of an argument: its dtype (None: any float), its shape (None: 1 or more), and what to do.
_DIGITS = (torch.int64, (None,), "pass one digit, 0 to 9, for each of one or more images")
_EXPECTED = {
    "images": (torch.uint8, (None, 1, 28, 28), "pass one or more images as MNIST stores them"),
    "image": (torch.uint8, (1, 28, 28), "pass one image as MNIST stores it"),
    "augmented": (None, (None, 1, 28, 28), "pass one or more augmentations of the image"),
    "logits": (None, (None, CLASSES), "pass the network's outputs for the images"),
    "probabilities": (None, (CLASSES,), "pass what predict.read returns"),
    "labels": _DIGITS,
    "predictions": _DIGITS,
}
PARTS = {
    "train": {"color": VERMILLION, "linestyle": "--", "marker": "s"},
    "test": {"color": BLUE, "linestyle": "-", "marker": "o"},
}


class NotebookFigure(Figure):
    """A Figure that notebooks show as a picture.

    They show a plain one as text unless a pyplot backend is active, which is global state.
    """

    def __init__(self, height: float) -> None:
        super().__init__(figsize=(WIDTH, height), dpi=100, layout="constrained")

    def png(self, dpi: float | str = "figure") -> bytes:
        """The figure as a PNG file's bytes; dpi: 100 unless given."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=dpi)
        return file.getvalue()

    _repr_png_ = png  # what IPython asks a result for


def sample_digits(
    images: torch.Tensor, labels: torch.Tensor, columns: int = 10, rows: int = 2
) -> Figure:
    """The first examples of each digit, one column per digit, from 0.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N], digits 0 to 9.
    columns: how many digits, 1 to 10; rows: how many examples of each, at least 1. Where the data
    has fewer examples of a digit, its column ends early or says "none".

    Raises ValueError if a tensor, columns or rows is not as described.
    """
    _check(images=images, labels=labels)
    if not 1 <= columns <= 10 or rows < 1:
        raise ValueError(
            f"columns is {columns} and rows is {rows}; expected 1 to 10 columns, one per "
            "digit, and at least 1 row: choose numbers in these ranges."
        )
    found = [(labels == digit).nonzero().flatten()[:rows].tolist() for digit in range(columns)]
    cells = []
    for row in range(rows):
        for digit, indices in enumerate(found):
            caption = f"{digit}" if indices else f"{digit}: none"
            picture = images[indices[row]] if row < len(indices) else None
            cells.append((picture, "" if row else caption))
    return pictures(cells, columns, "The first examples of each digit")


def augmentations(image: torch.Tensor, augmented: torch.Tensor) -> Figure:
    """One image, and then its augmentations.

    image: uint8 [1, 28, 28], 0 to 255; augmented: float [K, 1, 28, 28] in [0, 1], K at least 1.

    Raises ValueError if a tensor is not as described.
    """
    _check(image=image, augmented=augmented)
    low, high = augmented.min().item(), augmented.max().item()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # resampling may round past the ends
        raise ValueError(
            f"augmented has values from {low:.3g} to {high:.3g}; expected [0, 1]: pass the images "
            "as they are before normalisation."
        )
    cells = [(image, "original")]
    cells += [(picture, f"augmented {k}") for k, picture in enumerate(augmented, start=1)]
    return pictures(cells, min(len(cells), 6), "One training image and its augmentations")


def training_curves(history: History) -> Figure:
    """Accuracy (%) and loss against the epoch, of the train and the test set.

    The accuracy axis is logarithmic in the error, so that the first epochs (about 70 %) and the
    differences that matter (98 to 100 %) are both in view. A vertical line between two epochs marks
    a step of the learning rate; a star the first epoch with a test accuracy of 99 % or more.
    The train values are taken with dropout and augmentation, and so may be worse than the test's.

    history: its variant, seed, epochs (one record per epoch, numbered from 1; accuracies in per
    cent, 0 to 100), first_epoch_at_99 (None if not reached) and its config's schedule are read.

    Raises ValueError if there is no epoch, or a record is incomplete or not in per cent.
    """
    epochs = history.epochs
    if not epochs:
        raise ValueError("the history has no epochs; expected one or more: train first.")
    for number, record in enumerate(epochs, start=1):
        accuracies = [record.get(f"{part}_accuracy", -1) for part in ("train", "test")]
        complete = {"train_loss", "test_loss", "learning_rate"} <= record.keys()
        if not complete or not all(0 <= accuracy <= 100 for accuracy in accuracies):
            raise ValueError(
                f"epoch {number} of the history is {record}; expected losses, a learning rate and "
                "accuracies from 0 to 100 %: pass a history as fit returns it."
            )
    numbers, first = list(range(1, len(epochs) + 1)), history.first_epoch_at_99
    figure = NotebookFigure(height=6.5)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    every = math.ceil(len(epochs) / 40)  # more markers than that hide the line
    for axes, what in ((top, "accuracy"), (bottom, "loss")):
        for part, style in PARTS.items():
            style = {**style, "markersize": 5, "markevery": every, "clip_on": False}
            axes.plot(numbers, [e[f"{part}_{what}"] for e in epochs], label=part, **style)
        axes.set_title(what.capitalize())
        axes.grid(color="0.9")

    reached = "99 %" if first else "99 % (not reached by the test accuracy)"
    top.axhline(99, color=GREY, linestyle=":", label=reached)
    if first:
        accuracy = epochs[first - 1]["test_accuracy"]
        star = {"marker": "*", "markersize": 16, "color": YELLOW, "markeredgecolor": "black"}
        label = f"first test accuracy of 99 %+: epoch {first} ({accuracy:.2f} %)"
        top.plot([first], [accuracy], linestyle="none", zorder=3, label=label, **star)
    stretch_axis(
        top, [record[key] for record in epochs for key in ("train_accuracy", "test_accuracy")]
    )
    top.set_ylabel("accuracy (%)\nlog scale of the error")

    bottom.set_ylabel("cross-entropy (nats)")
    if all(record[key] > 0 for record in epochs for key in ("train_loss", "test_loss")):
        bottom.set_yscale("log")  # which would hide a loss of 0
        bottom.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bottom.yaxis.set_minor_locator(NullLocator())
        bottom.yaxis.set_major_formatter("{x:g}")
        bottom.set_ylabel("cross-entropy (nats)\nlog scale")
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0.5, len(epochs) + 0.5)
    whole = MaxNLocator(20, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    bottom.xaxis.set_major_locator(whole)

    rates = [record["learning_rate"] for record in epochs]
    in_steps = history.config.get("schedule", "step") == "step"  # and not after every batch
    changes = [epoch for epoch in numbers[1:] if in_steps and rates[epoch - 1] != rates[epoch - 2]]
    beside = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    beside |= {"xytext": (3, -4), "rotation": 90, "va": "top", "fontsize": SMALL}
    for k, epoch in enumerate(changes):
        for axes in (top, bottom):
            axes.axvline(epoch - 0.5, color=GREY, linestyle="-.", linewidth=0.8, zorder=1)
        if k % math.ceil(len(changes) / 30) == 0:  # more labels than that overlap
            bottom.annotate(f"lr {rates[epoch - 1]:g}", (epoch - 0.5, 1), **beside)
    figure.suptitle(f"{history.variant}, seed {history.seed}")
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def confusion_matrix(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often each digit (rows) was taken for each digit (columns): 10 x 10 counts.

    Only the mistakes are shaded, by their share of the true digit's images (%); on a scale with the
    diagonal none would be visible.

    labels, predictions: int64 [N] each, digits 0 to 9.

    Raises ValueError if a tensor is not as described.
    """
    counts = _confusion(labels, predictions)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share = np.ma.masked_array(share, mask=np.eye(10, dtype=bool))
    figure = NotebookFigure(height=6.5)
    axes = figure.subplots()
    shades = colormaps["Oranges"].with_extremes(bad="0.9")
    image = axes.imshow(share, cmap=shades, vmin=0, vmax=share.max() or 1)
    for true, predicted in np.ndindex(10, 10):
        red, green, blue, _ = image.to_rgba(share)[true, predicted]
        luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        colour = "black" if luminance > 0.18 else "white"  # whichever has the higher contrast
        centre = {"color": colour, "ha": "center", "va": "center"}
        axes.text(predicted, true, f"{counts[true, predicted]}", **centre)
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted digit", ylabel="true digit")
    axes.set_title(f"Confusion matrix: {_summary(counts)}")
    figure.colorbar(image, label="mistakes (% of the true digit's images)", shrink=0.8)
    return figure


def confident_mistakes(
    images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor, count: int = 12
) -> Figure:
    """The wrong predictions the network was surest of, the surest first.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N], digits 0 to 9; logits: float [N, 10], finite.
    count: how many at most, at least 1. The caption's per cent is the softmax of the logits.

    Raises ValueError if a tensor or count is not as described.
    """
    _check(images=images, labels=labels, logits=logits)
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1: say how many mistakes to show.")
    if not logits.isfinite().all():
        raise ValueError(
            "logits hold NaN or infinity; expected numbers: see where training diverged."
        )
    # In float32 the softmax of many mistakes rounds to 1, which would leave no order.
    confidence, predictions = logits.detach().cpu().double().softmax(dim=1).max(dim=1)
    counts = _confusion(labels, predictions)
    wrong = (predictions != labels.cpu()).nonzero().flatten()
    order = confidence[wrong].argsort(descending=True, stable=True)
    cells = []
    for index in wrong[order[:count]].tolist():
        percent = 100 * confidence[index].item()
        sure = f"{percent:.1f} %" if percent < 99.95 else "> 99.9 %"
        caption = f"true {labels[index]}, predicted {predictions[index]}, {sure}"
        cells.append((images[index], caption))
    if cells:
        return pictures(cells, 4, f"The surest {len(cells)} of {_summary(counts)}")
    figure = NotebookFigure(height=1.5)
    figure.text(0.5, 0.5, f"Nothing to show: {_summary(counts)}", ha="center", va="center")
    return figure


def digit_accuracy(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """The accuracy (%) of each digit, its errors counted below, and that of all digits.

    labels, predictions: int64 [N] each, digits 0 to 9. A digit without images has no point.

    Raises ValueError if a tensor is not as described.
    """
    counts = _confusion(labels, predictions)
    totals, right = counts.sum(axis=1), counts.diagonal()
    digits = np.flatnonzero(totals)
    accuracy = 100 * right[digits] / totals[digits]
    overall = 100 * right.sum() / totals.sum()
    figure = NotebookFigure(height=4)
    axes = figure.subplots()
    axes.axhline(overall, color=GREY, linestyle="--", label=f"all digits: {overall:.2f} %")
    axes.vlines(digits, overall, accuracy, color=BLUE)
    axes.plot(digits, accuracy, color=BLUE, linestyle="none", marker="o")
    for digit, percent in zip(digits, accuracy, strict=True):
        y, va = (6, "bottom") if percent >= overall else (-6, "top")  # clear of the dashed line
        place = {"xytext": (0, y), "textcoords": "offset points", "ha": "center", "va": va}
        axes.annotate(f"{percent:.2f}", (digit, percent), fontsize=SMALL, **place)
    names = [
        f"{digit}\n{total - hits} wrong\nof {total:,}" if total else f"{digit}\nno\nimages"
        for digit, (total, hits) in enumerate(zip(totals, right, strict=True))
    ]
    axes.set_xticks(range(10), names, fontsize=SMALL)
    axes.set(xlim=(-0.6, 9.6), xlabel="true digit", ylabel="accuracy (%)")
    span = max(100 - accuracy.min(), 0.5)
    axes.set_ylim(100 - 1.2 * span, 100 + 0.2 * span)
    axes.set_yticks([tick for tick in axes.get_yticks() if 100 - 1.2 * span <= tick <= 100])
    axes.set_title(f"Accuracy of each digit: {_summary(counts)}")
    figure.legend(loc="outside lower center")
    return figure


def _stretch(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(100.1 - accuracy)


def _unstretch(y: np.ndarray) -> np.ndarray:
    return 100.1 - 10.0**-y


def stretch_axis(axes: Axes, accuracies: Sequence[float]) -> None:
    """A logarithmic axis of the error, labelled with the accuracy; 0.1 keeps 100 % finite."""
    low, high = _stretch(min(*accuracies, 98)), _stretch(max(*accuracies, 99.5))
    room = (high - low) / 20
    axes.set_ylim(_unstretch(low - room), _unstretch(high + room))
    axes.set_yscale("function", functions=(_stretch, _unstretch))
    axes.yaxis.set_major_locator(FixedLocator([0, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 100]))
    axes.yaxis.set_major_formatter("{x:g}")


def pictures(cells: list[tuple[torch.Tensor | None, str]], columns: int, title: str) -> Figure:
    """A grid of (picture or None, caption), row by row; uint8 pictures 0 to 255, others 0 to 1."""
    rows = math.ceil(len(cells) / columns)
    figure = NotebookFigure(height=0.6 + rows * (0.85 * WIDTH / columns + 0.2))
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
        axes.set_box_aspect(1)
    for axes, (picture, caption) in zip(grid, cells, strict=False):
        axes.set_title(caption, fontsize=SMALL)
        if picture is not None:
            white = 255 if picture.dtype == torch.uint8 else 1
            pixels = picture[0].detach().float().cpu().numpy() / white
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    figure.suptitle(title)
    return figure


def _confusion(labels: torch.Tensor, predictions: torch.Tensor) -> np.ndarray:
    """int64 [10, 10] counts: true digit, predicted digit."""
    _check(labels=labels, predictions=predictions)
    pairs = labels.cpu() * 10 + predictions.cpu()
    return pairs.bincount(minlength=100).reshape(10, 10).numpy()


def _summary(counts: np.ndarray) -> str:
    total = counts.sum()
    mistakes = total - counts.trace()
    return f"{mistakes:,} mistake{'' if mistakes == 1 else 's'} in {total:,} images"


def _check(**tensors: torch.Tensor) -> None:
    """Raise ValueError unless the tensors are as _EXPECTED says, with as many images each."""
    lengths = {}
    for name, tensor in tensors.items():
        dtype, shape, advice = _EXPECTED[name]
        if shape[0] is None:
            lengths[name] = len(tensor)
        as_expected = (
            isinstance(tensor, torch.Tensor)
            and (tensor.dtype == dtype if dtype else tensor.is_floating_point())
            and len(tensor.shape) == len(shape)
            and all(n == m if m else n > 0 for n, m in zip(tensor.shape, shape, strict=True))
            and (dtype is not torch.int64 or (tensor.min() >= 0 and tensor.max() < CLASSES))
        )
        if not as_expected:
            got = type(tensor).__name__
            if isinstance(tensor, torch.Tensor):
                got = f"{tensor.dtype} {list(tensor.shape)}"
                if tensor.dtype == torch.int64 and tensor.numel():
                    got += f" with values from {tensor.min()} to {tensor.max()}"
            spelled = ", ".join("N" if m is None else str(m) for m in shape)
            raise ValueError(
                f"{name}: got {got}; expected {dtype or 'a float tensor'} [{spelled}]: {advice}."
            )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the lengths are {lengths}; expected the same N: pass tensors of the same images."
        )


def network(variants: Mapping[str, Variant] = VARIANTS) -> Figure:
    """The network block by block, and where each variant differs.

    Above, each block with its convolutions (kernel, channels out), the size of its maps and the
    receptive field after it, in pixels of the input. Below, one row per variant: a disc after each
    block that Dropout2d follows, and whether batch normalisation follows the convolutions.

    variants: by name, in the order of the rows.
    """
    layout = next(iter(variants.values())).layout
    figure = NotebookFigure(height=3.4 + 0.24 * len(variants))
    axes = figure.subplots()
    axes.set_axis_off()
    rows = len(variants)
    axes.set(xlim=(-1.05, 5.0), ylim=(-rows - 1.0, 7.5))
    size = 28
    for block, (convs, field) in enumerate(zip(layout.blocks, receptive_fields(layout), strict=True)):
        height = 1.2 + 4 * size / 28
        box = Rectangle((block + 0.08, 0.9), 0.78, height, facecolor="0.93", edgecolor=GREY)
        axes.add_patch(box)
        lines = "\n".join(f"{kernel}x{kernel}, {width}" for kernel, width in convs)
        axes.text(block + 0.47, 0.9 + height / 2, lines, ha="center", va="center", fontsize=SMALL)
        heading = f"block {block + 1}\n{size}x{size}"
        axes.text(block + 0.47, 1.1 + height, heading, ha="center", va="bottom", fontsize=SMALL)
        axes.annotate("", (block + 1.08, 1.6), (block + 0.86, 1.6), arrowprops={"arrowstyle": "->"})
        axes.text(block + 0.97, 0.2, f"{field}x{field}", ha="center", va="center", fontsize=SMALL)
        size //= 2
    axes.annotate("", (0.08, 1.6), (-0.14, 1.6), arrowprops={"arrowstyle": "->"})
    axes.text(-0.2, 1.6, "one digit\n28x28", ha="right", va="center", fontsize=SMALL)
    ending = f"average pool,\nlinear:\n{CLASSES} logits"
    axes.text(4.12, 1.6, ending, va="center", fontsize=SMALL)
    left = {"va": "center", "fontsize": SMALL, "style": "italic"}
    axes.text(-1.0, 0.2, "receptive field after it", **left)
    axes.text(-1.0, -0.55, "Dropout2d after it (disc)", **left)
    for row, (name, variant) in enumerate(variants.items(), 1):
        y = -0.4 - row
        bold = "bold" if variant.published else "normal"
        axes.text(-1.0, y, name, va="center", fontsize=SMALL, fontweight=bold)
        axes.plot([-0.2, 4.1], [y, y], color="0.85", linewidth=0.8, zorder=0)
        for block, rate in enumerate(variant.dropout):
            face = BLUE if rate else "white"
            axes.plot(block + 0.97, y, marker="o", color=BLUE if rate else "0.75", mfc=face, ms=7)
        norm = "batch norm" if variant.batch_norm else ""
        axes.text(4.2, y, norm, va="center", fontsize=SMALL)
    return figure


def reading(picture: torch.Tensor, probabilities: Mapping[str, torch.Tensor]) -> Figure:
    """The picture that the networks were given, and beside it how likely each takes each digit.

    picture: uint8 [1, 28, 28]; probabilities: of one or more networks by name, float [10] each,
    as predict.prepare and predict.read return them. Bars are in per cent, and labelled from 1 % on.

    Raises ValueError if a tensor is not as described.
    """
    _check(image=picture)
    figure = NotebookFigure(height=0.9 + 0.9 * len(probabilities))
    grid = figure.add_gridspec(len(probabilities), 2, width_ratios=(1, 2))
    given = figure.add_subplot(grid[:, 0])
    given.imshow(picture[0].cpu().numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    given.set_axis_off()
    given.set_title("what the networks are given", fontsize=SMALL)
    for row, (name, likely) in enumerate(probabilities.items()):
        _check(probabilities=likely)
        percent = (100 * likely).tolist()
        axes = figure.add_subplot(grid[row, 1])
        bars = axes.bar(range(CLASSES), percent, color=BLUE)
        labels = [f"{p:.0f} %" if 1 <= p < 99.5 else "> 99 %" if p >= 99.5 else "" for p in percent]
        axes.bar_label(bars, labels, fontsize=SMALL, padding=1)
        axes.set(xticks=range(CLASSES), yticks=(0, 100), ylim=(0, 135))
        axes.tick_params(labelsize=SMALL, labelbottom=row == len(probabilities) - 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        if row == 0:
            axes.set_title("how likely each digit is (%)", fontsize=SMALL)
    return figure
