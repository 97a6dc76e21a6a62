"""Estimates, intervals and tests of a few values: one per seed, one per run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint

ALPHA = 0.05
Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of that; nan where values are few."""

    mean: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> Interval:
        """Student's interval: mean -+ t((1 + level) / 2, freedom) error."""
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def ends(self, scale: Callable[[float], float] = float) -> tuple[float, float, float]:
        """The mean and the ends of its 95 % interval, each on another scale."""
        return tuple(map(scale, (self.mean, *self.interval())))

    def p(self, null: float = 0) -> float:
        """The two-sided p value of Student's t test; without any spread 1 at the null, else 0."""
        if self.error == 0:
            return float(self.mean == null)
        return float(2 * stats.t.sf(abs(self.mean - null) / self.error, self.freedom))

    def equivalence(self, margin: float, null: float = 0) -> float:
        """The p value of equivalence, that the mean is within the margin of the null (Lakens 2017).

        It is the larger one of two one-sided t tests, and below 0.05 where the 90 % interval lies
        between null - margin and null + margin.
        """
        room = margin - abs(self.mean - null)
        if self.error == 0:
            return float(room <= 0)
        return float(stats.t.sf(room / self.error, self.freedom))


def weighted(cells: Sequence[Sequence[float]], weights: Sequence[float]) -> Estimate:
    """The Estimate of a weighted sum of the means of independent cells (Welch 1947).

    cells: any number of values each; their numbers and variances may differ.
    weights: one per cell.
    """
    means = [float(np.mean(c)) if len(c) else nan for c in cells]
    mean = sum(w * m for m, w in zip(means, weights, strict=True))
    if min(map(len, cells)) < 2:
        return Estimate(mean, nan, nan)
    parts = [w**2 * np.var(c, ddof=1) / len(c) for c, w in zip(cells, weights, strict=True)]
    of_parts = sum(p**2 / (len(c) - 1) for p, c in zip(parts, cells, strict=True))
    freedom = sum(parts) ** 2 / of_parts if of_parts else sum(len(c) - 1 for c in cells)
    return Estimate(mean, sqrt(sum(parts)), float(freedom))


def estimate(values: Sequence[float]) -> Estimate:
    """The Estimate of any number of values, even none: of n, the error is sd / sqrt(n)."""
    return weighted([values], [1])


def prediction_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of one more value: mean -+ t(0.975, n - 1) sd sqrt(1 + 1 / n).

    values: 2 or more, from a distribution that is about normal.
    """
    n, found = len(values), estimate(values)
    return found._replace(error=found.error * sqrt(n + 1)).interval()


def sign_flip_test(values: Sequence[float], null: float = 0) -> float:
    """The exact two-sided p value of the mean, over all 2**n signs of the n values less the null.

    It assumes that the values are symmetric about the null, and no more. Sums that are equal but
    for rounding, by a billionth of the largest there can be, count as equal.

    values: 25 at most, for the memory's sake.
    """
    sums, values = np.zeros(1), np.asarray(values, dtype=float) - null
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction.

    statsmodels has it, too, but collects all garbage first, for a quarter of the report's time.
    """
    order = np.argsort(p_values)
    corrected = np.sort(p_values) * np.arange(len(order), 0, -1)
    return np.maximum.accumulate(corrected).clip(max=1)[np.argsort(order)].tolist()


def wilson(count: int, n: int) -> Interval:
    """Wilson's 95 % interval of a share, between 0 and 1: count of n."""
    low, high = proportion_confint(count, n, alpha=0.05, method="wilson")
    return float(low), float(high)


def runs_needed(one: Sequence[float], other: Sequence[float], most: int = 10_000) -> int | None:
    """How many runs of each tell two variants apart 4 times in 5, by a t test at 0.05.

    It is taken that the difference and the spread are those of these values; None if more than
    `most` are needed.
    """
    difference = abs(np.mean(one) - np.mean(other))
    effect = difference / sqrt((np.var(one, ddof=1) + np.var(other, ddof=1)) / 2)

    def enough(n: int) -> bool:
        return TTestIndPower().power(effect, n, ALPHA) >= 0.8

    low, high = 1, 2  # doubled first, as the power of a test with much too many is not computed
    while not enough(high):
        if high > most:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= most else None


def pigeonhole(tables: np.ndarray, draws: int = 10_000, seed: int = 0) -> list[Interval]:
    """95 % percentile intervals of the mean of each table, over its rows and its columns.

    The pigeonhole bootstrap (Owen 2007): each draw takes as many rows and, independently, as many
    columns as there are, with replacement; all tables by the same draws.

    tables: float [tables, rows, columns], such as of seeds and images.
    draws: how many.
    seed: of the generator that draws.
    """
    _, rows, columns = tables.shape
    counting = tables.any(axis=(0, 1))  # columns of zeros add nothing, and are most of them
    tables = tables[:, :, counting]
    generator = np.random.default_rng(seed)
    row_counts = np.empty((draws, rows))
    column_counts = np.empty((draws, np.count_nonzero(counting)))
    for draw in range(draws):
        row_counts[draw] = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        drawn = generator.integers(columns, size=columns)
        column_counts[draw] = np.bincount(drawn, minlength=columns)[counting]
    means = np.einsum("trd,dr->dt", tables @ column_counts.T, row_counts)
    low, high = np.percentile(means / (rows * columns), (2.5, 97.5), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
