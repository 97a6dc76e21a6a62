"""The study's figures, of finished estimates and intervals: every function returns one Figure.

How a variant looks follows from the variant: color, marker and line say where its dropout is, and
a filled marker that it has batch normalization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from models import GOAL, VARIANTS
from Visualization import BLUE, GRAY, GREEN, SMALL, VERMILLION, NotebookFigure, pictures

PURPLE = "#CC79A7"
DPI = 200  # of the study's PNG files: twice what GitHub shows
# By the blocks that dropout follows: color, marker, line.
_LOOKS = {
    (): (GRAY, "^", ":"),
    (1, 2): (VERMILLION, "s", "--"),
    (3, 4): (GREEN, "D", "-."),
    (1, 2, 3, 4): (BLUE, "o", "-"),
    (1, 2, 3): (PURPLE, "v", (0, (5, 1, 1, 1, 1, 1))),
}


def _blocks(variant: str) -> tuple[int, ...]:
    """The blocks that dropout follows, from 1."""
    return tuple(block for block, rate in enumerate(VARIANTS[variant].dropout, 1) if rate)


def _marker(variant: str) -> dict[str, str]:
    """Keywords for the marker of a variant's runs."""
    color, marker, _ = _LOOKS[_blocks(variant)]
    face = color if VARIANTS[variant].batch_norm else "none"
    return {"color": color, "marker": marker, "markerfacecolor": face}


def _dropout(variant: str) -> str:
    """Where the dropout is, in words."""
    blocks = ", ".join(map(str, _blocks(variant)))
    return f"dropout after {blocks}" if blocks else "no dropout"


def _key(label: str, **style: object) -> Line2D:
    """What the legend shows of a style."""
    return Line2D([], [], label=label, **style)


def _legend(figure: Figure, keys: Sequence[Artist], columns: int) -> None:
    place = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles=keys, fontsize=SMALL, columnspacing=1.5, **place)


def _tidy(axes: Axes, **grid: str) -> None:
    axes.tick_params(labelsize=SMALL)
    axes.grid(**grid)
    axes.set_axisbelow(True)


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 50]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _errors_by_epoch(axes: Axes) -> None:
    _log_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _tidy(axes, color="0.92")


# --- effects --------------------------------------------------------------------------------------


class EffectRow(NamedTuple):
    """An effect in each setting: its estimate, its 95 % and its 90 % interval.

    decides: whether a verdict rests on it.
    """

    name: str
    settings: Sequence[tuple[float, tuple[float, float], tuple[float, float]]]
    decides: bool


class EffectPanel(NamedTuple):
    """Effects on one measure.

    margin: the smallest effect of interest.
    factor: whether effects and margin are factors, so that no effect is 1, and not 0.
    """

    title: str
    unit: str
    margin: float
    factor: bool
    rows: Sequence[EffectRow]


MARKERS = (("o", "from the page"), ("D", "as run"))  # of the settings
FACES = {True: VERMILLION, False: "white"}  # of an effect's marker: whether a verdict rests on it


def forest(panels: Sequence[EffectPanel]) -> Figure:
    """Effects with their intervals, a panel per measure, against the band of what does not matter.

    The thick bar is the 90 % interval: where it lies within the band, the effect is smaller than
    what matters. A filled marker has a verdict resting on it. Of two settings the second stands
    below the first, with another marker.

    panels: an even number, all with the same rows, which only the left ones name.
    """
    rows = panels[0].rows
    both = len(rows[0].settings) > 1
    each = 0.42 if both else 0.29  # inches
    figure = NotebookFigure(height=1.1 + len(panels) // 2 * (each * len(rows) + 0.75))
    grid = figure.subplots(len(panels) // 2, 2, squeeze=False, sharey=True).flatten()
    for axes, panel in zip(grid, panels, strict=True):
        nothing, low = (1, 1 / panel.margin) if panel.factor else (0, -panel.margin)
        axes.axvspan(low, panel.margin, color="0.88", zorder=0)
        axes.axvline(nothing, color=GRAY, linewidth=1, zorder=1)
        for place, row in enumerate(panel.rows):
            for k, (mean, interval, narrow) in enumerate(row.settings):
                y = place + (0.36 * k - 0.18 if both else 0)
                axes.hlines(y, *interval, color="black", linewidth=1.2)
                axes.hlines(y, *narrow, color="black", linewidth=3.5)
                style = {"marker": MARKERS[k][0], "markersize": 7 - k}
                axes.plot(mean, y, color="black", markerfacecolor=FACES[row.decides], **style)
        if panel.factor:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.unit, fontsize=SMALL)
        _tidy(axes, axis="x", color="0.9")
    grid[0].set_yticks(range(len(rows)), [row.name for row in rows])
    grid[0].set_ylim(len(rows) - 0.4, -0.6)
    dot = {"color": "black", "linestyle": "none", "markersize": 7}
    keys = [
        _key("a verdict rests on it", marker="o", markerfacecolor=FACES[True], **dot),
        _key("exploratory", marker="o", markerfacecolor=FACES[False], **dot),
        _key("95 % interval", color="black", linewidth=1.2),
        _key("90 % interval", color="black", linewidth=3.5),
        Patch(color="0.88", label="too small to matter"),
    ]
    if both:
        keys += [_key(name, marker=m, markerfacecolor=GRAY, **dot) for m, name in MARKERS]
    _legend(figure, keys, columns=4 if both else 5)
    return figure


# --- the publication ------------------------------------------------------------------------------


class Band(NamedTuple):
    """Errors (%) by epoch, of the test and the training images: of our runs, and as published.

    ours, published: by "test" and "train"; ours a list per run, all of one length.
    """

    title: str
    ours: Mapping[str, Sequence[Sequence[float]]]
    published: Mapping[str, Sequence[float]]


def inside_our_band(bands: Sequence[Band]) -> Figure:
    """The publication's curves against the range and the geometric mean of our runs, side by side.

    Errors are on a logarithmic axis; those of the training images are dashed.
    """
    figure = NotebookFigure(height=4.2)
    panels = figure.subplots(1, len(bands), sharey=True, squeeze=False).flatten()
    for axes, band in zip(panels, bands, strict=True):
        for part, line, marker in (("test", "-", "x"), ("train", "--", ".")):
            runs = np.array(band.ours[part])
            epochs = range(1, runs.shape[1] + 1)
            ends = {"color": BLUE, "alpha": 0.25, "linewidth": 0}
            axes.fill_between(epochs, runs.min(axis=0), runs.max(axis=0), **ends)
            axes.plot(epochs, np.exp(np.log(runs).mean(axis=0)), line, color=BLUE, linewidth=1.2)
            published = band.published[part]
            look = {"color": "black", "linewidth": 1.2, "marker": marker, "markersize": 5}
            axes.plot(range(1, len(published) + 1), published, line, **look)
        _errors_by_epoch(axes)
        axes.set_title(band.title, fontsize=11)
        axes.set_xlabel("epoch", fontsize=SMALL)
    panels[0].set_ylabel("error (%), log scale", fontsize=SMALL)
    keys = [
        _key("published, test", color="black", marker="x", markersize=5),
        _key("published, training", color="black", linestyle="--", marker=".", markersize=5),
        _key("our mean (geometric), test", color=BLUE),
        _key("our mean, training", color=BLUE, linestyle="--"),
        Patch(color=BLUE, alpha=0.25, linewidth=0, label="range of our runs"),
    ]
    _legend(figure, keys, columns=3)
    return figure


# --- runs -----------------------------------------------------------------------------------------


class RunsPanel(NamedTuple):
    """One measure of every run.

    values: by variant, one per run. means: by variant, with the ends of the interval that is drawn.
    published: by variant, where there is such a figure.
    log: whether the axis is logarithmic. never: the value that stands for "never", or None.
    line: a value to draw a dotted line at, or None.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[float]]
    means: Mapping[str, tuple[float, float, float]]
    published: Mapping[str, float]
    log: bool = False
    never: float | None = None
    line: float | None = None


def every_run(panels: Sequence[RunsPanel]) -> Figure:
    """Every run, a panel per measure: a variant's runs side by side in the order given.

    Beside them stand their mean with its interval, and the published figure where there is one.

    panels: all of the same variants.
    """
    variants = list(panels[0].values)
    figure = NotebookFigure(height=1.2 + 2.3 * len(panels))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False).flatten()
    for axes, panel in zip(rows, panels, strict=True):
        for x, variant in enumerate(variants):
            values = panel.values[variant]
            places = [x - 0.38 + 0.5 * (k + 0.5) / len(values) for k in range(len(values))]
            axes.plot(places, values, linestyle="none", markersize=4.5, **_marker(variant))
            mean, low, high = panel.means[variant]
            axes.plot(x + 0.22, mean, color="black", marker="_", markersize=11, mew=2.5)
            axes.vlines(x + 0.22, low, high, color="black", linewidth=1.5)
            if variant in panel.published:
                cross = {"color": "black", "marker": "x", "markersize": 7, "mew": 1.8}
                axes.plot(x + 0.38, panel.published[variant], **cross)
        if panel.log:
            _log_axis(axes)
        if panel.never is not None:
            axes.axhline(panel.never, color=GRAY, linestyle=":", linewidth=1)
            axes.yaxis.set_major_locator(FixedLocator([1, 5, 10, 15, panel.never]))
            axes.yaxis.set_major_formatter(
                lambda y, _, never=panel.never: "never" if y == never else f"{y:g}"
            )
            axes.set_ylim(0, panel.never + 1)
        if panel.line is not None:
            axes.axhline(panel.line, color=GRAY, linestyle=":", linewidth=1)
        axes.set_title(panel.title, fontsize=11)
        axes.set_ylabel(panel.unit, fontsize=SMALL)
        _tidy(axes, axis="y", color="0.9")
        axes.tick_params(axis="x", length=0)
        for x in range(1, len(variants)):
            axes.axvline(x - 0.5, color="0.8", linewidth=0.8)
    rows[-1].set_xticks(range(len(variants)), variants, fontsize=10)
    for label, variant in zip(rows[-1].get_xticklabels(), variants, strict=True):
        label.set_fontweight("bold" if VARIANTS[variant].published else "normal")
    rows[-1].set_xlim(-0.5, len(variants) - 0.5)
    placements = sorted({(_dropout(v), *_LOOKS[_blocks(v)][:2]) for v in variants})
    alone = {"linestyle": "none"}
    keys = [
        *(_key(w, color=c, marker=m, markerfacecolor="none", **alone) for w, c, m in placements),
        _key("filled: batch normalization", color=GRAY, marker="o", **alone),
        _key("mean, 95 % interval", color="black", marker="_", markersize=11),
        _key("published, one run", color="black", marker="x", **alone),
    ]
    _legend(figure, keys, columns=4)
    return figure


# --- curves ---------------------------------------------------------------------------------------


def curves(
    errors: Mapping[str, Sequence[Sequence[float]]],
    means: Mapping[str, Sequence[tuple[float, float, float]]],
    falls: Sequence[int],
) -> Figure:
    """The test error (%) by epoch: the means above, without and with batch normalization, and every
    run of each variant below.

    Thin lines are runs, and end with a dot where the run did. Thick ones are means, bands their
    intervals. Vertical lines mark the falls of the learning rate, the dotted one the goal.

    errors: by variant and run, a test error in % per epoch, all above 0.
    means: by variant, per epoch the mean and the ends of its interval.
    falls: the first epochs with a lower learning rate.
    """
    rows = (len(errors) + 2) // 3
    figure = NotebookFigure(height=3.6 + 2.2 * rows)
    grid = figure.add_gridspec(1 + rows, 6, height_ratios=[1.5] + [1] * rows)
    without = figure.add_subplot(grid[0, :3])
    tops = (without, figure.add_subplot(grid[0, 3:], sharey=without))
    for axes, word in zip(tops, ("without", "with"), strict=True):
        axes.set_title(f"Means {word} batch normalization", fontsize=11)
    below = []
    for k, (variant, runs) in enumerate(errors.items()):
        place = grid[1 + k // 3, 2 * (k % 3) : 2 * (k % 3) + 2]
        axes = figure.add_subplot(place, sharey=below[0] if below else None)
        axes.set_title(f"{variant}: {_dropout(variant)}", fontsize=SMALL)
        below.append(axes)
        color, _, line = _LOOKS[_blocks(variant)]
        for run in runs:
            axes.plot(range(1, len(run) + 1), run, color=color, linewidth=0.5)
            axes.plot(len(run), run[-1], color=color, marker=".", markersize=3.5)
        epochs = range(1, len(means[variant]) + 1)
        mean, low, high = zip(*means[variant], strict=True)
        axes.plot(epochs, mean, color="black", linewidth=1.6)
        top = tops[VARIANTS[variant].batch_norm]
        top.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
        look = {"linewidth": 1.4, "markersize": 4.5, "markevery": 2, **_marker(variant)}
        top.plot(epochs, mean, linestyle=line, label=variant, **look)
    for axes in figure.axes:
        _errors_by_epoch(axes)
        for epoch in falls:
            axes.axvline(epoch - 0.5, color=GRAY, linestyle="-", linewidth=0.7)
        axes.axhline(100 - GOAL, color=GRAY, linestyle=":", linewidth=1)
    for axes in (*tops, *below[-3:]):
        axes.set_xlabel("epoch", fontsize=SMALL)
    for axes in (without, *below[::3]):
        axes.set_ylabel("test error (%), log scale", fontsize=SMALL)
    for axes in tops:
        axes.legend(fontsize=SMALL, loc="upper right")
    keys = [
        _key("one run", color=BLUE, linewidth=0.6, marker="."),
        _key("mean (geometric)", color="black", linewidth=1.6),
        Patch(color="black", alpha=0.15, linewidth=0, label="its 95 % interval"),
        _key("the learning rate falls", color=GRAY, linewidth=0.7),
        _key(f"the goal, {GOAL} %", color=GRAY, linestyle=":"),
    ]
    _legend(figure, keys, columns=5)
    return figure


# --- images ---------------------------------------------------------------------------------------


def hardest(cells: Sequence[tuple[torch.Tensor, str]], networks: int) -> Figure:
    """The test images that most of the networks get wrong, each with a caption.

    cells: the image, uint8 [1, 28, 28], and its caption.
    networks: how many there are.
    """
    return pictures(list(cells), 4, f"What most of the {networks} networks get wrong")


# --- the recipe -----------------------------------------------------------------------------------


class Point(NamedTuple):
    """A network's accuracy (%) after so many epochs; low and high are a mean's interval."""

    name: str
    epochs: int
    parameters: int
    accuracy: float
    low: float | None = None
    high: float | None = None


def recipe(ours: Sequence[Point], peers: Sequence[Point]) -> Figure:
    """Test accuracy against epochs and against parameters: our means, and others' single runs.

    Against parameters there are only the longest of ours of each name. Of ours at one place the
    later ones stand a little to the right.

    ours: of at most four names, each with its interval; those of one name look alike.
    peers: their names and intervals are not looked at.
    """
    figure = NotebookFigure(height=4)
    panels = figure.subplots(1, 2, sharey=True)
    looks = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "D"), (PURPLE, "^"))
    names = list(dict.fromkeys(point.name for point in ours))
    longest = {point.name: point for point in sorted(ours, key=lambda point: point.epochs)}
    shown = {"epochs": ours, "parameters": [longest[name] for name in names]}
    for axes, (what, here) in zip(panels, shown.items(), strict=True):
        x, taken, gap = {}, 0.0, 0.025 * max(getattr(peer, what) for peer in peers)
        for point in sorted(here, key=lambda point: getattr(point, what)):
            x[point] = max(getattr(point, what), taken)
            taken = x[point] + gap
        axes.axhline(GOAL, color=GRAY, linestyle=":", label=f"the goal, {GOAL} %")
        theirs = [(getattr(peer, what), peer.accuracy) for peer in peers]
        style = {"linestyle": "none", "marker": "x", "markersize": 7, "color": GRAY, "zorder": 3}
        axes.plot(*zip(*theirs, strict=True), label="others, one run each", **style)
        for name, (color, marker) in zip(names, looks, strict=False):
            points = [point for point in here if point.name == name]
            places = [x[point] for point in points]
            means = [point.accuracy for point in points]
            below = [point.accuracy - point.low for point in points]
            above = [point.high - point.accuracy for point in points]
            style = {"color": color, "marker": marker, "capsize": 4, "linestyle": "none"}
            axes.errorbar(places, means, [below, above], label=f"{name}, mean", **style)
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlim(0, 1.08 * axes.get_xlim()[1])
        axes.grid(color="0.9")
    panels[0].set_ylabel("test accuracy after the last epoch (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
