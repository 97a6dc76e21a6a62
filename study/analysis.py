"""What the runs say to what claims.py asks: effects, verdicts, and both settings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, nan
from statistics import geometric_mean
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.history import TEST_IMAGES, History
from models import CLASSES, GOAL
from study.claims import (
    ACCURACY,
    CLAIMS,
    EPOCHS,
    FIRST_ACCURACY,
    PAGE,
    SIX,
    Claim,
    Contrast,
    Measure,
    Part,
    Quoted,
    aliases,
    per_seed,
)
from study.runs import Runs, histories
from study.statistics import (
    ALPHA,
    Estimate,
    Interval,
    estimate,
    holm,
    pigeonhole,
    prediction_interval,
    sign_flip_test,
    weighted,
)

# --- effects and verdicts -------------------------------------------------------------------------

SHOWN, OTHER_WAY = "shown", "shown, the other way"
NONE, INCONCLUSIVE = "none that matters", "inconclusive"
SMALL = ", and smaller than what matters"


class Effect(NamedTuple):
    """What a contrast's values say.

    estimate: of its mean.
    p, flip_p: two-sided, of the t test and of the sign-flip test.
    equivalence: the p value that it is within the margin; None if there is no margin.
    """

    estimate: Estimate
    p: float
    flip_p: float
    equivalence: float | None

    @property
    def narrow(self) -> Interval:
        """The 90 % interval, that of the two one-sided tests."""
        return self.estimate.interval(1 - 2 * ALPHA)

    @property
    def within(self) -> bool | None:
        """Whether the two one-sided tests find it within the margin; None without a margin."""
        return None if self.equivalence is None else self.equivalence < ALPHA

    @property
    def tests_disagree(self) -> bool:
        """Whether t test and sign-flip test fall on different sides of 0.05."""
        return (self.p < ALPHA) != (self.flip_p < ALPHA)


def effect_of(values: Sequence[float], margin: float | None, null: float = 0) -> Effect:
    """The Effect of a contrast of these values, one per seed, against the null."""
    found = estimate(values)
    within = None if margin is None else found.equivalence(margin, null)
    return Effect(found, found.p(null), sign_flip_test(values, null), within)


def effect(table: pd.DataFrame, contrast: Contrast, measure: Measure) -> Effect:
    """The Effect of a contrast in the study's table, against none."""
    return effect_of(per_seed(table, contrast, measure), measure.margin)


def unpaired(table: pd.DataFrame, contrast: Contrast, measure: Measure) -> Interval:
    """Welch's 95 % interval of a contrast, as if the runs of a seed were independent.

    That of a ratio has the variance of its first-order expansion (the delta method).
    """
    weights, shift = contrast.weights, 0.0
    cells = table[measure.name][weights.index]
    if measure.ratio:
        means = cells.mean()
        above, below = ((weights * means)[of].sum() for of in (weights > 0, weights < 0))
        shift = log(above / -below)
        weights = weights.where(weights < 0, weights / above).where(weights > 0, weights / -below)
    low, high = weighted(cells.to_numpy().T, weights.to_numpy()).interval()
    return low + shift, high + shift


class Verdict(NamedTuple):
    """The verdict on a claim.

    effects: of its parts.
    p, corrected: the claim's p value, before and after Holm's correction over all claims.
    word: SHOWN or OTHER_WAY, either perhaps with SMALL; NONE; or INCONCLUSIVE.
    predicted: of each quoted number the prediction interval, on the number's own scale.
    plausible: of each, whether it lies in there, and so is a plausible single run.
    """

    claim: Claim
    effects: list[Effect]
    p: float
    corrected: float
    word: str
    predicted: list[Interval]
    plausible: list[bool]

    @property
    def found(self) -> list[tuple[Part, Effect]]:
        """The claim's parts, each with its effect."""
        return list(zip(self.claim.parts, self.effects, strict=True))


def verdicts(table: pd.DataFrame, source: pd.DataFrame = PAGE) -> list[Verdict]:
    """The verdicts on CLAIMS, in their order.

    source: whose numbers are held against one more draw: those of PAGE, or of LOGGED.
    """
    effects = [
        [
            effect_of(per_seed(table, part.contrast, part.measure), part.measure.margin, part.null)
            for part in claim.parts
        ]
        for claim in CLAIMS
    ]
    p_values = [p_value(c.parts, found) for c, found in zip(CLAIMS, effects, strict=True)]
    verdicts = []
    for claim, found, p, corrected in zip(CLAIMS, effects, p_values, holm(p_values), strict=True):
        ends = [predicted(table, quoted) for quoted in claim.quoted]
        inside = [lies_in(q.number(source), e) for q, e in zip(claim.quoted, ends, strict=True)]
        said = word(claim.parts, found, corrected)
        verdicts.append(Verdict(claim, found, p, corrected, said, ends, inside))
    return verdicts


def predicted(table: pd.DataFrame, quoted: Quoted) -> Interval:
    """The 95 % prediction interval of one more draw of a quoted number, on its own scale."""
    interval = prediction_interval(per_seed(table, quoted.contrast, quoted.measure))
    return interval if quoted.contrast.level else tuple(map(quoted.measure.natural, interval))


def lies_in(number: float, interval: Interval) -> bool:
    """Whether a number lies in an interval, its ends included, rounding aside."""
    return interval[0] - 1e-9 <= number <= interval[1] + 1e-9


def p_value(parts: Sequence[Part], effects: Sequence[Effect]) -> float:
    """The two-sided p value of a claim.

    That of several parts, that all of them hold, is the largest of theirs, or 1 if a mean has the
    wrong sign: the intersection-union test (Berger 1982).
    """
    if len(parts) > 1 and not all(map(_as_claimed, parts, effects)):
        return 1.0
    return max(effect.p for effect in effects)


def word(parts: Sequence[Part], effects: Sequence[Effect], corrected: float) -> str:
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
        small = any(effect.within for effect in wrong or effects)
        return (OTHER_WAY if wrong else SHOWN) + (SMALL if small else "")
    return NONE if any(effect.within for effect in effects) else INCONCLUSIVE


def _as_claimed(part: Part, effect: Effect) -> bool:
    return part.sign * (effect.estimate.mean - part.null) > 0


def on_scale(
    table: pd.DataFrame, contrast: Contrast, measure: Measure
) -> tuple[Effect, float, str]:
    """A contrast's effect, the margin and the word, if it were a claim's; without Holm.

    Of epochs, for which no margin was fixed, it is the smallest delay that was claimed.
    """
    limit = CLAIMS[0].quoted[0].number() if measure is EPOCHS else measure.margin
    found = effect_of(per_seed(table, contrast, measure), limit)
    slower = -1 if measure is FIRST_ACCURACY else 1
    return found, limit, word([Part(contrast, measure, slower)], [found], found.p)


def family(
    table: pd.DataFrame, contrasts: Sequence[Contrast], measure: Measure
) -> list[tuple[Contrast, Effect, float, float]]:
    """Contrasts with their effects, and both p values after Holm's correction over all of them.

    The first of the two is that there is an effect, the second that it is within the margin.
    """
    effects = [effect(table, contrast, measure) for contrast in contrasts]
    p, equivalence = (holm([getattr(e, of) for e in effects]) for of in ("p", "equivalence"))
    return list(zip(contrasts, effects, p, equivalence, strict=True))


def passes(history: History) -> bool:
    """Whether a run ends over the goal."""
    return history.final_accuracy > GOAL


def surely_passes(accuracies: Sequence[float]) -> bool:
    """Whether the whole 95 % interval of the mean of runs' accuracies (%) lies over the goal."""
    return estimate(accuracies).interval()[0] > GOAL


def consistent(history: History) -> bool:
    """Whether each of a run's last five epochs has the goal or more."""
    return all(record["test_accuracy"] >= GOAL for record in history.epochs[-5:])


def spread_ratio(table: pd.DataFrame) -> float:
    """How many times as large the sd of the final accuracy is without batch normalization."""
    sds = table[ACCURACY.name].std()
    return geometric_mean(sds[v] / sds[f"{v}_bn"] for v in sds.index if f"{v}_bn" in sds)


# --- images ---------------------------------------------------------------------------------------


def answers(runs: Sequence[History]) -> np.ndarray:
    """What the last epochs' networks say of the test images: int8 [runs, TEST_IMAGES].

    The digit an image is taken for, or -1 where that is right.
    """
    said = np.full((len(runs), TEST_IMAGES), -1, dtype=np.int8)
    for row, history in zip(said, runs, strict=True):
        for index, digit in history.mistakes:
            row[index] = digit
    return said


def disagreement(one: np.ndarray, other: np.ndarray) -> float:
    """On how many images, in %, two networks' answers differ."""
    return 100 * float(np.mean(one != other))


def vote(said: np.ndarray) -> float:
    """The accuracy (%) of networks voting, whose answers these are: int8 [networks, images].

    Of a tie between k digits, the right one among them, 1 / k counts as right.
    """
    counts = np.stack([(said == digit).sum(axis=0) for digit in range(-1, CLASSES)])
    most = counts == counts.max(axis=0)
    return 100 * float(np.mean(most[0] / most.sum(axis=0)))


def beyond_these_images(runs: Runs, contrasts: Sequence[Contrast]) -> list[Interval]:
    """95 % intervals of contrasts of final accuracies, over seeds and images, in points."""
    named = aliases(runs).items()
    wrong = {name: (answers(histories(runs, v)) >= 0).astype(float) for name, v in named}
    tables = [sum(-w * wrong[v] for v, w in c.weights.items()) for c in contrasts]
    ends = pigeonhole(np.stack(tables))
    levels = [100 if contrast.level else 0 for contrast in contrasts]
    return [
        (level + 100 * low, level + 100 * high)
        for (low, high), level in zip(ends, levels, strict=True)
    ]


# --- the publication as it was run ----------------------------------------------------------------


class Reproduction(NamedTuple):
    """Whether a published log could be one more of some runs of its variant.

    numbers: what SIX are in the log. predicted: the interval of one more run, of each.
    inside: whether the number lies in there, of each.
    rank: how far its curve is from the others', of all curves; the number of them is the farthest.
    curves: how many there are.
    """

    numbers: list[float]
    predicted: list[Interval]
    inside: list[bool]
    rank: int
    curves: int

    @property
    def reproduced(self) -> bool:
        """At most one of SIX is outside, and the curve is not the farthest."""
        return sum(self.inside) >= len(SIX) - 1 and self.rank < self.curves


def errors(history: History, part: str = "test") -> list[float]:
    """The test or train error (%) of every epoch; a run that stopped early keeps its last."""
    found = [100 - record[f"{part}_accuracy"] for record in history.epochs]
    return found + found[-1:] * (history.config["epochs"] - len(found))


def reproduction(one: History, runs: Sequence[History]) -> Reproduction:
    """Hold a run against others of its variant."""
    numbers = [measure.of(one) for measure in SIX]
    ends = [prediction_interval([measure.of(run) for run in runs]) for measure in SIX]
    curves = np.log([errors(run) for run in (one, *runs)])
    others = (curves.sum(axis=0) - curves) / len(runs)  # of every curve the mean of the rest
    distances = ((curves - others) ** 2).mean(axis=1)
    rank = 1 + int((distances[1:] < distances[0] - 1e-12).sum())
    inside = [lies_in(number, interval) for number, interval in zip(numbers, ends, strict=True)]
    return Reproduction(numbers, ends, inside, rank, len(curves))


def among_themselves(runs: Sequence[History]) -> list[Reproduction]:
    """Every run held against the others: what the rule says where the truth is known."""
    return [reproduction(run, [r for r in runs if r is not run]) for run in runs]


SAME, NOT_SAME, NOT_TOLD = "the same", "not the same", "not told apart"


class Across(NamedTuple):
    """A contrast in both settings: its effects, their difference (as run less page), their mean."""

    part: Part
    page: Effect
    as_run: Effect
    difference: Effect
    mean: Effect

    @property
    def word(self) -> str:
        """SAME if the difference is within the margin, NOT_SAME if there is one, or NOT_TOLD."""
        if self.difference.within:
            return SAME
        return NOT_SAME if self.difference.p < ALPHA else NOT_TOLD

    @property
    def opposite(self) -> bool:
        """Whether there is an effect in both settings, with opposite signs."""
        signs = [e.estimate.mean > self.part.null for e in (self.page, self.as_run)]
        return signs[0] != signs[1] and max(self.page.p, self.as_run.p) < ALPHA


def across(page: pd.DataFrame, as_run: pd.DataFrame, part: Part) -> Across:
    """A contrast in both settings, which are independent and of equal weight."""
    of, margin = part.measure, part.measure.margin
    values = [per_seed(table, part.contrast, of) for table in (page, as_run)]
    effects = [effect_of(v, margin, part.null) for v in values]
    mean, difference = weighted(values, [0.5, 0.5]), weighted(values, [-1, 1])
    return Across(
        part,
        *effects,
        Effect(difference, difference.p(), nan, difference.equivalence(margin)),
        Effect(
            mean,
            mean.p(part.null),
            sign_flip_test(np.concatenate(values), part.null),
            mean.equivalence(margin, part.null),
        ),
    )
