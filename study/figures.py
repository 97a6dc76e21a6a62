"""The figures of the report and of README, each 5 inches wide: its type is legible on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from helpers.publication import published_log
from models import TARGET_ACCURACY
from study.inference import estimate
from study.protocol import BN, EARLY, EARLY_BN, LATE, LATE_BN, MEASURES, PUBLISHED
from study.table import Tables
from Visualization import BLUE, GRAY, VERMILLION, NotebookFigure

DPI, WIDTH = 200, 5  # the width is in inches
LOOKS = {"page": ("o", BLUE), "original": ("D", VERMILLION)}  # marker and color of a setting
EFFECTS = {
    LATE: "late dropout,\nwithout BN",
    LATE_BN: "late dropout,\nwith BN",
    EARLY: "early dropout,\nwithout BN",
    EARLY_BN: "early dropout,\nwith BN",
    BN: "batch norm\n(BN)",
}
PANELS = {
    "final": "final test accuracy: change in points",
    "log_error": "test error of epochs 1 to 7: times",
    "to_99": "epochs to 99% test accuracy: times",
}


def effects(frame: pd.DataFrame, measures: Sequence[str] = tuple(PANELS)) -> NotebookFigure:
    """Effects of dropout and batch norm in both settings; frame: inference.estimates returns it.

    The thick bar is the 90% interval: within the gray band the effect is too small to matter.
    """
    figure = NotebookFigure(0.8 + 2.55 * len(measures), WIDTH)
    panels = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, measures, strict=True):
        measure = MEASURES[name]
        band = map(measure.natural, (-measure.margin, measure.margin))
        axes.axvspan(*band, color="0.88", label="too small to matter")
        axes.axvline(measure.natural(0), color=GRAY, linewidth=1)
        for (setting, (marker, color)), shift in zip(LOOKS.items(), (-0.16, 0.16), strict=True):
            for place, formula in enumerate(EFFECTS):
                row, y = frame.loc[setting, name, formula], place + shift
                ends = {k: measure.natural(row[k]) for k in ("low", "high", "low90", "high90")}
                axes.hlines(y, ends["low"], ends["high"], color=color, linewidth=1.2)
                axes.hlines(y, ends["low90"], ends["high90"], color=color, linewidth=3.5)
                style = {"color": color, "marker": marker, "label": f"{setting} setting"}
                axes.plot(measure.natural(row["mean"]), y, **style)
        if measure.scale != "difference":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(PANELS[name], fontsize=11, loc="left")
        axes.set_yticks(range(len(EFFECTS)), EFFECTS.values(), fontsize=10)
        axes.set_ylim(len(EFFECTS) - 0.5, -0.5)
        tidy(axes, "x")
    return legend(figure, 3)


def reproduction(tables: Tables) -> NotebookFigure:
    """The publication's test error by epoch against the range and the mean of our ten runs."""
    figure = NotebookFigure(7.5, WIDTH)
    panels = figure.subplots(len(PUBLISHED), 1, sharex=True, sharey=True)
    for axes, network in zip(panels, PUBLISHED, strict=True):
        runs = tables.of("original", f"original_{network}").run
        ours = tables.epochs[tables.epochs.run.isin(runs)]
        for part, line, color, mark in (("train", "--", VERMILLION, "+"), ("test", "-", BLUE, "x")):
            errors = 100 - ours.pivot(index="run", columns="epoch", values=f"{part}_accuracy")
            ends = errors.columns, errors.min(), errors.max()
            axes.fill_between(*ends, color=color, alpha=0.25, label=f"range of ten runs, {part}")
            mean = np.exp(np.log(errors).mean())
            axes.plot(mean, line, color=color, linewidth=1.2, label=f"our mean, {part}")
            log = [100 - record[f"{part}_accuracy"] for record in published_log(network)]
            axes.plot(errors.columns, log, mark, color="black", label=f"published, {part}")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(network.capitalize() if network == "final" else network, fontsize=11)
        axes.set_ylabel("error (%)", fontsize=10)
        tidy(axes, "both")
    axes.set_xlabel("epoch", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return legend(figure, 2)


def accuracies(rows: Mapping[str, Sequence[float]]) -> NotebookFigure:
    """Final test accuracy (%) of every seed, with the mean and its 95% interval, a row per name."""
    figure = NotebookFigure(1.3 + 0.5 * len(rows), WIDTH)
    axes = figure.subplots()
    axes.axvline(TARGET_ACCURACY, color=GRAY, linestyle=":", label=f"{TARGET_ACCURACY}%")
    for y, values in enumerate(rows.values()):
        axes.plot(values, [y + 0.14] * len(values), "o", color=BLUE, alpha=0.45, label="one seed")
        half = np.ptp(estimate(values).interval()) / 2
        axes.errorbar(np.mean(values), y - 0.14, xerr=half, fmt="kD", label="mean, 95% interval")
    axes.set_yticks(range(len(rows)), rows, fontsize=10)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy after the last epoch (%)", fontsize=10)
    tidy(axes, "x")
    return legend(figure, 3)


def legend(figure: NotebookFigure, columns: int) -> NotebookFigure:
    """The figure with the first panel's labels below it, each once."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    keys = dict(zip(labels, handles, strict=True))
    where = {"loc": "outside lower center", "ncols": columns, "fontsize": 9}
    figure.legend(keys.values(), keys, **where)
    return figure


def tidy(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
