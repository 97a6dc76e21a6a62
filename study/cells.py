"""Markdown tables, and the cells of them: means with intervals, shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from models import TARGET_ACCURACY
from study.inference import Estimate, estimate

ACCURACY_HEADER = ["final accuracy, %", f"> {TARGET_ACCURACY}%", "last 3", "last 5"]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_interval(values: Sequence[float], digits: int = 3) -> str:
    """99.468 [99.423, 99.513]; of fewer than three values the mean alone."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) < 3:
        return text
    return cell(estimate(values), digits)


def cell(mean: Estimate, digits: int = 3) -> str:
    """An estimate with its 95% interval."""
    low, high = mean.interval()
    return f"{mean.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def share(values: pd.Series) -> str:
    """7 of 10."""
    return f"{int(values.sum())} of {len(values)}"


def accuracy_cells(runs: pd.DataFrame) -> list[str]:
    """As in ACCURACY_HEADER: mean, runs over the target, and those consistently at it."""
    shares = (runs.final > TARGET_ACCURACY, runs.last_3, runs.last_5)
    return [mean_interval(runs.final), *map(share, shares)]
