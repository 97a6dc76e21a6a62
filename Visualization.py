"""Figures of the digits, the training and the mistakes: every public function returns one.

Nothing is shown, saved or registered with pyplot, and no global setting is touched: end a notebook
cell with the call and the figure appears once. Colors are Okabe and Ito's, safe for the color-
blind; line style and marker differ as well, so that the figures also read in gray. The ground is
white, on a dark page too. What a notebook passes is checked: a ValueError says what is wrong.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from models import CLASSES, GOAL, VARIANTS, Variant, receptive_fields

if TYPE_CHECKING:
    from helpers.history import History

BLUE, VERMILLION, YELLOW, GREEN = "#0072B2", "#D55E00", "#F0E442", "#009E73"
GRAY = "#595959"
WIDTH = 8  # inches, at 100 dpi: about what GitHub shows of a notebook's output
SMALL = 9  # points
PARTS = {
    "train": {"color": VERMILLION, "linestyle": "--", "marker": "s"},
    "test": {"color": BLUE, "linestyle": "-", "marker": "o"},
}


class NotebookFigure(Figure):
    """A Figure that notebooks show as a picture.

    They show a plain one as text unless a pyplot backend is active, which is global state.
    """

    def __init__(self, height: float) -> None:
        super().__init__(figsize=(WIDTH, height), dpi=100, facecolor="white", layout="constrained")

    def png(self, dpi: float | str = "figure") -> bytes:
        """The figure as a PNG file's bytes; dpi: 100 unless given."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=dpi)
        return file.getvalue()

    _repr_png_ = png  # what IPython asks a result for


def sample_digits(images: torch.Tensor, labels: torch.Tensor) -> Figure:
    """The first two examples of each digit, one column per digit, from 0.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N], digits 0 to 9. Where the data has fewer
    examples of a digit, its column ends early or says "none".
    """
    _check(images=images, labels=labels)
    found = [images[(labels == digit).nonzero().flatten()[:2]] for digit in range(CLASSES)]
    cells = []
    for row in range(2):
        for digit, examples in enumerate(found):
            caption = f"{digit}" if len(examples) else f"{digit}: none"
            picture = examples[row] if row < len(examples) else None
            cells.append((picture, "" if row else caption))
    return pictures(cells, CLASSES, "The first examples of each digit")


def augmentations(image: torch.Tensor, augmented: torch.Tensor) -> Figure:
    """One image, and then its augmentations.

    image: uint8 [1, 28, 28], 0 to 255; augmented: float [K, 1, 28, 28] in [0, 1], K at least 1.
    """
    _check(image=image, augmented=augmented)
    low, high = augmented.min().item(), augmented.max().item()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # resampling may round past the ends
        raise ValueError(
            f"augmented: got values from {low:.3g} to {high:.3g}; expected [0, 1], as before "
            "normalization."
        )
    cells = [(image, "original")]
    cells += [(picture, f"augmented {k}") for k, picture in enumerate(augmented, start=1)]
    return pictures(cells, min(len(cells), 6), "One training image and its augmentations")


def training_curves(
    history: History,
    band: Sequence[History] = (),
    published: Sequence[Mapping[str, float]] = (),
) -> Figure:
    """Accuracy (%), loss and learning rate against the epoch; the first two of train and test set.

    The accuracy axis is logarithmic in the error, so that the first epochs (about 70 %) and the
    differences that matter (98 to 100 %) are both in view. A star marks the first epoch with a test
    accuracy of 99 % or more, a vertical line between two epochs a step of the learning rate.
    The train values are taken with dropout and augmentation, and so may be worse than the test's.

    history: its variant, seed, epochs (numbered from 1; accuracies in per cent, 0 to 100),
        first_epoch_at_99 (None if not reached) and its config's schedule are read.
    band: other runs, drawn as their mean and their range in the epochs that all have.
    published: a log, drawn dotted: per epoch train_loss, train_accuracy, test_loss, test_accuracy.
    """
    epochs, first = history.epochs, history.first_epoch_at_99
    records = [*epochs, *(record for run in band for record in run.epochs), *published]
    figure = NotebookFigure(height=8)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(6, 4, 2))
    for axes, what in ((top, "accuracy"), (middle, "loss")):
        for part in PARTS:
            _curves(axes, part, f"{part}_{what}", epochs, band, published)
    reached = "" if first else ", not reached in the test"
    top.axhline(99, color=GRAY, linestyle=":", label=f"99 %{reached}")
    top.axhline(GOAL, color=GRAY, linestyle="-.", label=f"{GOAL} %, the goal")
    if first:
        accuracy = epochs[first - 1]["test_accuracy"]
        star = {"marker": "*", "markersize": 16, "color": YELLOW, "markeredgecolor": "black"}
        label = f"first 99 %+ in the test: epoch {first}, {accuracy:.2f} %"
        top.plot([first], [accuracy], linestyle="none", zorder=3, label=label, **star)
    _stretch_axis(top, [record[f"{part}_accuracy"] for record in records for part in PARTS])
    top.set_ylabel("accuracy (%)\nlog scale of the error")

    middle.set_ylabel("cross-entropy (nats)")
    if all(record[f"{part}_loss"] > 0 for record in records for part in PARTS):
        middle.set_yscale("log")  # which would hide a loss of 0
        middle.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        middle.set_ylabel("cross-entropy (nats)\nlog scale")

    rates = [record["learning_rate"] for record in epochs]
    in_steps = history.config.get("schedule", "step") == "step"  # and not after every batch
    steps = {"drawstyle": "steps-mid"} if in_steps else {}
    bottom.plot(range(1, len(rates) + 1), rates, color="black", marker=".", **steps)
    bottom.margins(y=0.2)
    bottom.set(xlabel="epoch", ylabel="learning rate")
    if in_steps:
        bottom.set_yscale("log")
        bottom.set_ylabel("learning rate\nlog scale")
        if len(set(rates)) <= 4:
            bottom.yaxis.set_major_locator(FixedLocator(sorted(set(rates))))
        for epoch, (before, after) in enumerate(pairwise(rates), 2):
            if before != after:
                for axes in figure.axes:
                    axes.axvline(epoch - 0.5, color="0.5", linewidth=0.8, zorder=1)
    for axes in (middle, bottom):
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    bottom.set_xlim(0.5, max(len(epochs), len(published)) + 0.5)
    whole = MaxNLocator(20, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    bottom.xaxis.set_major_locator(whole)
    figure.align_ylabels()
    figure.suptitle(f"{history.variant}, seed {history.seed}")
    legend = {"loc": "outside lower center", "ncols": 3, "fontsize": SMALL}
    figure.legend(*top.get_legend_handles_labels(), **legend)
    return figure


def _curves(
    axes: Axes,
    part: str,
    key: str,
    epochs: Sequence[Mapping[str, float]],
    band: Sequence[History],
    published: Sequence[Mapping[str, float]],
) -> None:
    """One part's values of that key, over those of the band and the published ones."""
    axes.grid(color="0.9")
    style = PARTS[part]
    if band:
        shared = min(len(epochs), *(len(run.epochs) for run in band))
        values = np.array([[record[key] for record in run.epochs[:shared]] for run in band])
        numbers = range(1, shared + 1)
        shade = {"color": style["color"], "alpha": 0.25, "linewidth": 0}
        label = f"{part}, range of {len(band)} runs"
        axes.fill_between(numbers, values.min(axis=0), values.max(axis=0), label=label, **shade)
        thin = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 0.8}
        axes.plot(numbers, values.mean(axis=0), label=f"{part}, mean of them", **thin)
    dotted = style | {"linestyle": ":", "markerfacecolor": "white"}
    for records, label, look in ((published, f"{part}, published", dotted), (epochs, part, style)):
        if records:
            values = [record[key] for record in records]
            every = math.ceil(len(values) / 40)  # more markers than that hide the line
            look = look | {"markersize": 5, "markevery": every, "clip_on": False}
            axes.plot(range(1, len(values) + 1), values, label=label, **look)


def confusion_matrix(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often each digit (rows) was taken for each digit (columns): 10 x 10 counts.

    Only the mistakes are shaded, by their share of the true digit's images (%); on a scale with the
    diagonal none would be visible.

    labels, predictions: int64 [N] each, digits 0 to 9.
    """
    counts = _confusion(labels, predictions)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share = np.ma.masked_array(share, mask=np.eye(CLASSES, dtype=bool))
    most = share.max()
    figure = NotebookFigure(height=6.5)
    axes = figure.subplots()
    shades = colormaps["Oranges"].with_extremes(bad="0.9")
    image = axes.imshow(share, cmap=shades, vmin=0, vmax=most)
    for true, predicted in np.ndindex(counts.shape):
        color = "white" if share.filled(0)[true, predicted] > 0.78 * most else "black"
        center = {"color": color, "ha": "center", "va": "center"}
        axes.text(predicted, true, f"{counts[true, predicted]}", **center)
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted digit", ylabel="true digit")
    axes.set_title(f"Confusion matrix: {_summary(counts)}")
    figure.colorbar(image, label="mistakes (% of the true digit's images)", shrink=0.8)
    return figure


def confident_mistakes(images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> Figure:
    """The up to 12 wrong predictions the network was surest of, the surest first.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N], digits 0 to 9; logits: float [N, 10], finite.
    The caption's per cent is the softmax of the logits.
    """
    _check(images=images, labels=labels, logits=logits)
    if not logits.isfinite().all():
        raise ValueError("logits: got NaN or infinity; expected numbers: training diverged.")
    # In float32 the softmax of many mistakes rounds to 1, which would leave no order.
    confidence, predictions = logits.detach().cpu().double().softmax(dim=1).max(dim=1)
    counts = _confusion(labels, predictions)
    wrong = (predictions != labels.cpu()).nonzero().flatten()
    order = confidence[wrong].argsort(descending=True, stable=True)
    cells = []
    for index in wrong[order[:12]].tolist():
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
    """
    counts = _confusion(labels, predictions)
    totals, right = counts.sum(axis=1), counts.diagonal()
    digits = np.flatnonzero(totals)
    accuracy = 100 * right[digits] / totals[digits]
    overall = 100 * right.sum() / totals.sum()
    figure = NotebookFigure(height=4)
    axes = figure.subplots()
    axes.axhline(overall, color=GRAY, linestyle="--", label=f"all digits: {overall:.2f} %")
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


def _stretch_axis(axes: Axes, accuracies: Sequence[float]) -> None:
    """A logarithmic axis of the error, labeled with the accuracy; 0.1 keeps 100 % finite."""
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


_EXPECTED = {  # N is 1 or more
    "images": "uint8 [N, 1, 28, 28]",
    "image": "uint8 [1, 28, 28]",
    "augmented": "float [N, 1, 28, 28]",
    "logits": f"float [N, {CLASSES}]",
    "probabilities": f"float [{CLASSES}]",
    "labels": "int64 [N]",
    "predictions": "int64 [N]",
}


def _check(**tensors: torch.Tensor) -> None:
    """Raise ValueError unless the tensors are as _EXPECTED says, with the same N."""
    for name, tensor in tensors.items():
        got, expected = type(tensor).__name__, _EXPECTED[name]
        if isinstance(tensor, torch.Tensor):
            got = f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")
        pattern = re.escape(expected).replace("N", "[1-9][0-9]*").replace("float", "float[0-9]+")
        if not re.fullmatch(pattern, got):
            raise ValueError(f"{name}: got {got}; expected a tensor, {expected}.")
        if "int64" in expected and not 0 <= tensor.min() <= tensor.max() < CLASSES:
            got = f"{tensor.min()} to {tensor.max()}"
            raise ValueError(f"{name}: got digits from {got}; expected 0 to {CLASSES - 1}.")
    lengths = {name: len(tensor) for name, tensor in tensors.items() if "N" in _EXPECTED[name]}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"got the lengths {lengths}; expected as many of each.")


PUBLISHED = {name: VARIANTS[name] for name in ("v1", "v2", "final")}


def network(variants: Mapping[str, Variant] = PUBLISHED) -> Figure:
    """The network block by block, and where each variant differs.

    Above, each block with its convolutions (kernel, channels out), the size of its maps and the
    receptive field after it, in pixels of the input. Below, one row per variant: a disc after each
    block that Dropout2d follows, and whether batch normalization follows the convolutions.

    variants: by name, in the order of the rows.
    """
    layout = next(iter(variants.values())).layout
    rows = len(variants)
    figure = NotebookFigure(height=3.4 + 0.24 * rows)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-1.05, 5.0), ylim=(-rows - 1.0, 7.5))
    write = partial(axes.text, va="center", fontsize=SMALL)
    arrow = partial(axes.annotate, "", arrowprops={"arrowstyle": "->"})
    size = 28
    blocks = zip(layout.blocks, receptive_fields(layout), strict=True)
    for block, (convs, field) in enumerate(blocks):
        height, middle = 1.2 + 4 * size / 28, block + 0.47
        box = Rectangle((block + 0.08, 0.9), 0.78, height, facecolor="0.93", edgecolor=GRAY)
        axes.add_patch(box)
        lines = "\n".join(f"{kernel}x{kernel}, {width}" for kernel, width in convs)
        write(middle, 0.9 + height / 2, lines, ha="center")
        write(middle, 1.1 + height, f"block {block + 1}\n{size}x{size}", ha="center", va="bottom")
        arrow((block + 1.08, 1.6), (block + 0.86, 1.6))
        write(block + 0.97, 0.2, f"{field}x{field}", ha="center")
        if block < layout.pooled:
            size //= 2
    arrow((0.08, 1.6), (-0.14, 1.6))
    write(-0.2, 1.6, "one digit\n28x28", ha="right")
    write(4.12, 1.6, f"average pool,\nlinear:\n{CLASSES} logits")
    write(-1.0, 0.2, "receptive field after it", style="italic")
    write(-1.0, -0.55, "Dropout2d after it (disc)", style="italic")
    for row, (name, variant) in enumerate(variants.items(), 1):
        y = -0.4 - row
        write(-1.0, y, name, fontweight="bold" if variant.published else "normal")
        axes.plot([-0.2, 4.1], [y, y], color="0.85", linewidth=0.8, zorder=0)
        for block, rate in enumerate(variant.dropout):
            color, face = (BLUE, BLUE) if rate else ("0.75", "white")
            axes.plot(block + 0.97, y, marker="o", color=color, markerfacecolor=face, markersize=7)
        if variant.batch_norm:
            write(4.2, y, "batch norm")
    return figure


def reading(picture: torch.Tensor, probabilities: Mapping[str, torch.Tensor]) -> Figure:
    """The picture that the networks were given, and beside it how likely each takes each digit.

    picture: uint8 [1, 28, 28]; probabilities: of one or more networks by name, float [10] each,
    as predict.prepare and predict.read return them. Bars are in per cent, and labeled from 1 % on.
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
