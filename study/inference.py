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
from study.experiments import EXPERIMENTS
from study.protocol import (
    CLAIMS,
    CONTRASTS,
    MEASURES,
    PAIR_TEST,
    PUBLISHED,
    SETTINGS,
    SIX,
    Part,
    contrast,
    wide,
)
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
        """Whether two one-sided t tests, at 0.05 each, find it within the margin (Lakens 2017).

        That is, whether the 90% interval lies between null - margin and null + margin.
        """
        low, high = self.interval(1 - 2 * ALPHA)
        return null - margin < low and high < null + margin


def welch(samples: Sequence[Sequence[float]], weights: Sequence[float]) -> Estimate:
    """A weighted sum of the means of independent samples (Welch 1947), of 2 values or more each."""
    means = [float(np.mean(sample)) for sample in samples]
    parts = [w**2 * np.var(s, ddof=1) / len(s) for s, w in zip(samples, weights, strict=True)]
    mean = sum(w * m for m, w in zip(means, weights, strict=True))
    each = sum(p**2 / (len(s) - 1) for p, s in zip(parts, samples, strict=True))
    freedom = sum(parts) ** 2 / each if each else sum(len(s) - 1 for s in samples)
    return Estimate(mean, sqrt(sum(parts)), float(freedom))


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of 2 values or more; its error is sd / sqrt(n)."""
    return welch([values], [1])


def prediction_interval(values: Sequence[float]) -> Interval:
    """The 95% interval of one more value: mean -+ t(0.975, n - 1) sd sqrt(1 + 1 / n)."""
    mean = estimate(values)
    return mean._replace(error=mean.error * sqrt(len(values) + 1)).interval()


def sign_flip_test(values: Sequence[float], null: float = 0) -> float:
    """The exact two-sided p value of the mean, over all 2**n signs of the n values less the null.

    It assumes that the values are symmetric about the null, and no more. Sums that are equal but
    for rounding, by a billionth of the largest there can be, count as equal; scipy's
    permutation_test misses such ties.

    values: 25 at most, for the memory's sake.
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


# --- estimates ------------------------------------------------------------------------------------


def estimates(tables: Tables) -> pd.DataFrame:
    """Each contrast, and each network's level, of each measure in each setting, estimated once.

    Returns a row per (setting, measure, formula): the estimate, its null (the target for levels of
    final accuracy), 95% interval (low, high), 90% interval (low90, high90), p, the sign-flip test's
    flip_p, and whether it is within the measure's margin of the null.

    Raises ValueError unless all runs of both settings are in: before the last, nothing is computed.
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
            table = wide(runs, name, setting)
            for formula in (*CONTRASTS, *PAGE):
                null = TARGET_ACCURACY if formula in PAGE and name == "final" else 0.0
                values = contrast(table, formula, name)
                rows.append(_row(values, estimate(values), measure.margin, null))
                rows[-1] |= {"setting": setting, "measure": name, "formula": formula}
    return pd.DataFrame(rows).set_index(["setting", "measure", "formula"])


def _row(values: Sequence[float], mean: Estimate, margin: float, null: float) -> dict:
    low, high = mean.interval()
    low90, high90 = mean.interval(1 - 2 * ALPHA)
    numbers = {"mean": mean.mean, "low": low, "high": high, "low90": low90, "high90": high90}
    tests = {
        "p": mean.p(null),
        "flip_p": sign_flip_test(values, null),
        "within": mean.within(margin, null),
    }
    return {"estimate": mean, "null": null, **numbers, **tests}


# --- verdicts -------------------------------------------------------------------------------------

SHOWN, OPPOSITE = "shown", "shown, in the opposite direction"
NEGLIGIBLE = {SHOWN: "significant but negligible", OPPOSITE: "opposite, but negligible"}
NO_EFFECT, INCONCLUSIVE = "no practically relevant effect", "inconclusive"


def verdicts(frame: pd.DataFrame, setting: str) -> pd.DataFrame:
    """A row per claim: p, corrected (by Holm, over the five) and the word."""
    effects = [
        [frame.loc[setting, part.measure, part.formula] for part in claim.parts] for claim in CLAIMS
    ]
    p_values = [claim_p(claim.parts, e) for claim, e in zip(CLAIMS, effects, strict=True)]
    corrected = holm(p_values)
    words = [
        word(claim.parts, e, p) for claim, e, p in zip(CLAIMS, effects, corrected, strict=True)
    ]
    return pd.DataFrame({"p": p_values, "corrected": corrected, "word": words})


def claim_p(parts: Sequence[Part], effects: Sequence[pd.Series]) -> float:
    """The two-sided p value of a claim.

    That of several parts, that all of them hold, is the largest of theirs, or 1 if a mean has the
    wrong sign: the intersection-union test (Berger 1982).
    """
    if len(parts) > 1 and not all(map(_as_claimed, parts, effects)):
        return 1.0
    return max(effect.p for effect in effects)


def word(parts: Sequence[Part], effects: Sequence[pd.Series], corrected: float) -> str:
    """The word for the effect of a claim.

    Of several parts the weakest decides: one with the wrong sign, at 0.05 over their number, or one
    within the margin, is enough.

    corrected: the claim's p value after Holm's correction.
    """
    wrong = [e for part, e in zip(parts, effects, strict=True) if not _as_claimed(part, e)]
    if len(parts) > 1:
        wrong = [effect for effect in wrong if effect.p < ALPHA / len(parts)]
    elif corrected >= ALPHA:
        wrong = []
    if wrong or corrected < ALPHA:
        direction = OPPOSITE if wrong else SHOWN
        return NEGLIGIBLE[direction] if any(e.within for e in wrong or effects) else direction
    return NO_EFFECT if any(effect.within for effect in effects) else INCONCLUSIVE


def _as_claimed(part: Part, effect: pd.Series) -> bool:
    return part.sign * (effect["mean"] - part.null) > 0


# --- both settings --------------------------------------------------------------------------------

SAME, NOT_SAME, UNDECIDED = "the same", "not the same", "not distinguishable"


def between_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """How each contrast differs between the settings, original less page, by Welch.

    Returns a row per (measure, formula): mean, low, high, p and the word: "the same" if the 90%
    interval of the difference lies within the margin, "not the same" if the 95% interval excludes
    0, else "not distinguishable".
    """
    page, original = (frame.loc[setting] for setting in ("page", "original"))
    rows = {}
    for measure, formula in page.index:
        pair = [side.loc[(measure, formula), "estimate"] for side in (page, original)]
        # Welch and Satterthwaite, from the estimates that are there.
        error = sqrt(sum(e.error**2 for e in pair))
        each = sum(e.error**4 / e.freedom for e in pair)
        difference = Estimate(pair[1].mean - pair[0].mean, error, error**4 / each)
        p, same = difference.p(), difference.within(MEASURES[measure].margin)
        low, high = difference.interval()
        text = SAME if same else NOT_SAME if p < ALPHA else UNDECIDED
        rows[measure, formula] = {
            "mean": difference.mean,
            "low": low,
            "high": high,
            "p": p,
            "word": text,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def pair_test(frame: pd.DataFrame) -> tuple[Estimate, str]:
    """The sixth test: v1 - v2, final accuracy, in the mean of both settings; and its word."""
    pair = [frame.loc[(s, PAIR_TEST.measure, PAIR_TEST.formula), "estimate"] for s in SETTINGS]
    error = sqrt(sum(e.error**2 for e in pair)) / 2
    each = sum((e.error / 2) ** 4 / e.freedom for e in pair)
    mean = Estimate(sum(e.mean for e in pair) / 2, error, error**4 / each)
    margin = MEASURES[PAIR_TEST.measure].margin
    effect = pd.Series({"mean": mean.mean, "p": mean.p(), "within": mean.within(margin)})
    return mean, word([PAIR_TEST], [effect], mean.p())


# --- reproduction ---------------------------------------------------------------------------------


def reproduction(tables: Tables) -> pd.DataFrame:
    """Each published log held against our ten runs of it, in the original setting.

    Returns a row per (network, figure of SIX): the log's number, the 95% prediction interval of one
    more run (low, high), whether it lies inside; and, the same for all figures of a network, the
    rank of the log's curve among the eleven by distance from the mean of the others (11 is the
    farthest) and whether the network is reproduced: at most one figure outside, and not the
    farthest.
    """
    rows = {}
    for network in PUBLISHED:
        ours = tables.of("original", f"original_{network}")
        log = pd.DataFrame(published_log(network))
        numbers, planned = measures(log, len(log)), len(log)
        curves = [log.test_accuracy.to_numpy()]
        for run in ours.run:
            accuracy = tables.epochs.test_accuracy[tables.epochs.run == run].to_numpy()
            # A run that stopped early keeps its last.
            curves.append(np.pad(accuracy, (0, planned - len(accuracy)), mode="edge"))
        rank = curve_rank(np.log(100 - np.array(curves)))
        for figure in SIX:
            low, high = prediction_interval(ours[figure])
            inside = low - 1e-9 <= numbers[figure] <= high + 1e-9
            row = {"log": numbers[figure], "low": low, "high": high, "inside": inside}
            rows[network, figure] = row | {"rank": rank}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    inside = frame.groupby(level=0).inside.transform("sum")
    frame["reproduced"] = (inside >= len(SIX) - 1) & (frame["rank"] <= len(ours))
    return frame


def curve_rank(curves: np.ndarray) -> int:
    """How far the first curve lies from the mean of the others, as a rank: 1 is the nearest.

    curves: float [curves, epochs]; the distance is the mean squared difference over epochs.
    """
    others = (curves.sum(axis=0) - curves) / (len(curves) - 1)
    distances = ((curves - others) ** 2).mean(axis=1)
    return 1 + int((distances[1:] < distances[0] - 1e-12).sum())
