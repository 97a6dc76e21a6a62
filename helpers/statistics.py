"""Estimates, intervals and tests of a few values: one per seed, one per run."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, nan, sqrt
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

Interval = tuple[float, float]


class Summary(NamedTuple):
    """n values: their mean, standard deviation and an interval of the mean; nan if n is small."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarise(values: Sequence[float], level: float = 0.95) -> Summary:
    """The Summary of any number of values, even none.

    The interval is Student's: mean -+ t((1 + level) / 2, n - 1) sd / sqrt(n).
    """
    n = len(values)
    mean = float(np.mean(values)) if n else nan
    sd = float(np.std(values, ddof=1)) if n > 1 else nan
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / sqrt(n) if n > 1 else nan
    return Summary(n, mean, sd, mean - half, mean + half)


def prediction_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of one more value: mean -+ t(0.975, n - 1) sd sqrt(1 + 1 / n).

    values: 2 or more, from a distribution that is about normal.
    """
    n, mean, sd, *_ = summarise(values)
    half = float(stats.t.ppf(0.975, n - 1)) * sd * sqrt(1 + 1 / n)
    return mean - half, mean + half


def t_test(values: Sequence[float], null: float = 0) -> float:
    """The two-sided p value of Student's one-sample t test; of a paired test, on differences.

    Where all values are the same, it is 1 if that is the null, and else 0.
    """
    if np.ptp(values) == 0:
        return float(values[0] == null)
    return float(stats.ttest_1samp(values, null).pvalue)


def sign_flip_test(values: Sequence[float], null: float = 0) -> float:
    """The exact two-sided p value of the mean, over all 2**n signs of the n values less the null.

    It assumes that the values are symmetric about the null, and no more.
    """
    result = stats.permutation_test(
        [np.asarray(values) - null],
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(result.pvalue)


def tost(values: Sequence[float], margin: float, null: float = 0) -> float:
    """The p value of equivalence, that the mean is within the margin of the null (Lakens 2017).

    It is the larger one of two one-sided t tests, and below 0.05 where the 90 % interval lies
    between null - margin and null + margin.
    """
    if np.ptp(values) == 0:
        return float(abs(values[0] - null) >= margin)
    return float(DescrStatsW(np.asarray(values)).ttost_mean(null - margin, null + margin)[0])


def wilson(count: int, n: int) -> Interval:
    """Wilson's 95 % interval of a share, between 0 and 1: count of n."""
    low, high = proportion_confint(count, n, alpha=0.05, method="wilson")
    return float(low), float(high)


def welch(cells: Sequence[Sequence[float]], weights: Sequence[float]) -> Interval:
    """The 95 % interval of a weighted sum of the means of independent cells (Welch 1947).

    cells: 2 or more values each; their numbers and variances may differ.
    weights: one per cell.
    """
    mean = sum(w * np.mean(c) for c, w in zip(cells, weights, strict=True))
    parts = [w**2 * np.var(c, ddof=1) / len(c) for c, w in zip(cells, weights, strict=True)]
    if sum(parts) == 0:
        return float(mean), float(mean)
    freedom = sum(parts) ** 2 / sum(p**2 / (len(c) - 1) for p, c in zip(parts, cells, strict=True))
    half = stats.t.ppf(0.975, freedom) * sqrt(sum(parts))
    return float(mean - half), float(mean + half)


def welch_ratio(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> Interval:
    """Like welch, for the logarithm of a ratio: the mean of some cells' means over that of others.

    The variance is that of the first-order expansion (the delta method).
    """
    top, bottom = (sum(float(np.mean(c)) for c in cells) for cells in (above, below))
    weights = [1 / top] * len(above) + [-1 / bottom] * len(below)
    low, high = welch([*above, *below], weights)  # about 0, as 1 - 1 is
    ratio = log(top * len(below) / (bottom * len(above)))
    return low + ratio, high + ratio


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
    means = np.empty((draws, len(tables)))
    for draw in range(draws):
        row_counts, column_counts = (
            np.bincount(generator.integers(n, size=n), minlength=n).astype(float)
            for n in (rows, columns)
        )
        means[draw] = tables @ column_counts[counting] @ row_counts
    low, high = np.percentile(means / (rows * columns), (2.5, 97.5), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
