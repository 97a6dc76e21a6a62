"""From runs to words: every estimate once, in one frame; verdicts; reproduction of the logs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from helpers.publication import published_log
from models import PAGE, TARGET_ACCURACY
from study import protocol
from study.experiments import EXPERIMENTS
from study.protocol import MEASURES, SETTINGS, Part
from study.table import Tables, measures

ALPHA = 0.05
Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of that."""

    mean: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> Interval:
        """Student's interval: mean -+ t((1 + level) / 2, freedom) error."""
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def p(self, null: float = 0) -> float:
        """The two-sided p value of Student's t test; without any spread 1 at the null, else 0."""
        if self.error == 0:
            return float(self.mean == null)
        return float(2 * stats.t.sf(abs(self.mean - null) / self.error, self.freedom))

    def within(self, margin: float, null: float = 0) -> bool:
        """Whether the 90% interval is in null -+ margin: two one-sided tests (Lakens 2017)."""
        low, high = self.interval(1 - 2 * ALPHA)
        return null - margin < low and high < null + margin


def combine(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """A weighted sum of independent estimates; its degrees of freedom are Welch's (1947)."""
    mean = sum(w * e.mean for e, w in zip(estimates, weights, strict=True))
    variances = [(w * e.error) ** 2 for e, w in zip(estimates, weights, strict=True)]
    each = sum(v**2 / e.freedom for e, v in zip(estimates, variances, strict=True))
    freedom = sum(variances) ** 2 / each if each else sum(e.freedom for e in estimates)
    return Estimate(mean, sqrt(sum(variances)), freedom)


def welch(samples: Sequence[Sequence[float]], weights: Sequence[float]) -> Estimate:
    """A weighted sum of the means of independent samples, of 2 values or more each."""
    return combine([estimate(sample) for sample in samples], weights)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of 2 values or more; its error is sd / sqrt(n)."""
    return Estimate(float(np.mean(values)), float(stats.sem(values)), len(values) - 1)


def prediction_interval(values: Sequence[float]) -> Interval:
    """The 95% interval of one more value: mean -+ t(0.975, n - 1) sd sqrt(1 + 1 / n)."""
    mean = estimate(values)
    return mean._replace(error=mean.error * sqrt(len(values) + 1)).interval()


def sign_flip_test(values: Sequence[float], null: float = 0) -> float:
    """The exact two-sided p value of the mean, over all 2**n signs of the n values less the null.

    It assumes that the values are symmetric about the null, and no more. Sums that are equal but
    for rounding count as equal; scipy's permutation_test misses such ties. values: 25 at most.
    """
    sums, values = np.zeros(1), np.asarray(values, dtype=float) - null
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction."""
    order = np.argsort(p_values)
    corrected = np.sort(p_values) * np.arange(len(order), 0, -1)
    return np.maximum.accumulate(corrected).clip(max=1)[np.argsort(order)].tolist()


def estimates(tables: Tables) -> pd.DataFrame:
    """Each contrast, and each network's level, of each measure in each setting, estimated once.

    Returns a row per (setting, measure, formula): the estimate, its null (the target for levels of
    final accuracy), 95% interval (low, high), 90% interval (low90, high90), p, the sign-flip test's
    flip_p, and whether it is within the measure's margin of the null.

    Raises ValueError unless all runs of both settings are in.
    """
    rows = []
    for setting in SETTINGS:
        runs, experiment = tables.of(setting), EXPERIMENTS[setting]
        planned = set(product(experiment.networks, experiment.seeds))
        if missing := sorted(planned - set(zip(runs.network, runs.seed, strict=True))):
            raise ValueError(
                f"{len(missing)} of the {len(planned)} runs of {setting} are missing, the first is "
                f"{missing[0][0]} with seed {missing[0][1]}: python -m study run {setting} trains "
                "them; no verdict is computed before the last is in."
            )
        for name, measure in MEASURES.items():
            table, margin = protocol.wide(runs, name, setting), measure.margin
            for formula in (*protocol.CONTRASTS, *PAGE):
                null = TARGET_ACCURACY if formula in PAGE and name == "final" else 0.0
                values = protocol.contrast(table, formula, name)
                mean = estimate(values)
                intervals = (*mean.interval(), *mean.interval(1 - 2 * ALPHA))
                tests = mean.p(null), sign_flip_test(values, null), mean.within(margin, null)
                rows.append((setting, name, formula, mean, null, mean.mean, *intervals, *tests))
    columns = "setting measure formula estimate null mean low high low90 high90 p flip_p within"
    return pd.DataFrame(rows, columns=columns.split()).set_index(columns.split()[:3])


SHOWN, OPPOSITE = "shown", "shown, in the opposite direction"
NEGLIGIBLE = {SHOWN: "significant but negligible", OPPOSITE: "opposite, but negligible"}
NO_EFFECT, INCONCLUSIVE = "no practically relevant effect", "inconclusive"
SAME, NOT_SAME, UNDECIDED = "the same", "not the same", "not distinguishable"  # in both settings


def verdicts(frame: pd.DataFrame, setting: str) -> pd.DataFrame:
    """A row per claim: p, corrected (by Holm, over the five) and the word."""
    claims = [claim.parts for claim in protocol.CLAIMS]
    effects = [[frame.loc[setting, p.measure, p.formula] for p in parts] for parts in claims]
    table = pd.DataFrame({"p": map(claim_p, claims, effects)})
    table["corrected"] = holm(table.p)
    table["word"] = list(map(word, claims, effects, table.corrected))
    return table


def claim_p(parts: Sequence[Part], effects: Sequence[pd.Series]) -> float:
    """The two-sided p value of a claim; of several parts by intersection-union (Berger 1982)."""
    if len(parts) > 1 and not all(map(_as_claimed, parts, effects)):
        return 1.0
    return max(effect.p for effect in effects)


def word(parts: Sequence[Part], effects: Sequence[pd.Series], corrected: float) -> str:
    """The word for a claim, by its p value after Holm's correction.

    One part of several is enough: of the wrong sign, at 0.05 over their number, or in the margin.
    """
    wrong = [e for part, e in zip(parts, effects, strict=True) if not _as_claimed(part, e)]
    wrong = [e for e in wrong if (len(parts) * e.p if len(parts) > 1 else corrected) < ALPHA]
    if wrong or corrected < ALPHA:
        direction = OPPOSITE if wrong else SHOWN
        return NEGLIGIBLE[direction] if any(e.within for e in wrong or effects) else direction
    return NO_EFFECT if any(effect.within for effect in effects) else INCONCLUSIVE


def _as_claimed(part: Part, effect: pd.Series) -> bool:
    return part.sign * (effect["mean"] - part.null) > 0


def between_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """How each contrast differs between the settings, original less page, a row for each.

    The word: "the same" (90% interval within the margin) or "not the same" (95% excludes 0).
    """
    rows = []
    for measure, formula in frame.loc["page"].index:
        pair = [frame.loc[(setting, measure, formula), "estimate"] for setting in SETTINGS]
        difference = combine(pair, (-1, 1))
        same = difference.within(MEASURES[measure].margin)
        text = SAME if same else NOT_SAME if difference.p() < ALPHA else UNDECIDED
        numbers = (difference.mean, *difference.interval(), difference.p())
        rows.append((measure, formula, *numbers, text))
    columns = ["measure", "formula", "mean", "low", "high", "p", "word"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def pair_test(frame: pd.DataFrame) -> tuple[Estimate, str]:
    """The sixth test: v1 - v2, final accuracy, in the mean of both settings; and its word."""
    part = protocol.PAIR_TEST
    pair = [frame.loc[(setting, part.measure, part.formula), "estimate"] for setting in SETTINGS]
    mean = combine(pair, (0.5, 0.5))
    within = mean.within(MEASURES[part.measure].margin)
    effect = pd.Series({"mean": mean.mean, "p": mean.p(), "within": within})
    return mean, word([part], [effect], mean.p())


def reproduction(tables: Tables) -> pd.DataFrame:
    """Each published log against our ten runs of it, in the original setting.

    Returns a row per (network, figure of SIX): the log's number, whether it is inside
    one more run's 95% interval (low, high), the rank of the log's curve among the eleven, and
    reproduced: at most one figure is outside, and the curve is not the farthest.
    """
    rows = []
    for network in protocol.PUBLISHED:
        ours = tables.of("original", f"original_{network}")
        log = pd.DataFrame(published_log(network))
        numbers = measures(log, len(log))
        epochs = tables.epochs[tables.epochs.run.isin(ours.run)]
        curves = epochs.pivot(index="run", columns="epoch", values="test_accuracy")
        curves = curves.ffill(axis=1)  # a run that stopped early keeps its last
        rank = curve_rank(np.log(100 - np.vstack([log.test_accuracy, curves])))
        for figure in protocol.SIX:
            low, high = prediction_interval(ours[figure])
            inside = low - 1e-9 <= numbers[figure] <= high + 1e-9
            rows.append((network, figure, numbers[figure], low, high, inside, rank))
    columns = ["network", "figure", "log", "low", "high", "inside", "rank"]
    frame = pd.DataFrame(rows, columns=columns).set_index(columns[:2])
    inside = frame.groupby(level=0).inside.transform("sum")
    frame["reproduced"] = (inside >= len(protocol.SIX) - 1) & (frame["rank"] <= len(ours))
    return frame


def curve_rank(curves: np.ndarray) -> int:
    """How far the first curve lies from the mean of the others, as a rank: 1 is the nearest.

    curves: float [curves, epochs]; the distance is the mean squared difference over epochs.
    """
    others = (curves.sum(axis=0) - curves) / (len(curves) - 1)
    distances = np.square(curves - others).mean(axis=1)
    return 1 + int((distances[1:] < distances[0] - 1e-12).sum())
