"""The published claims as data, and the verdicts on them by the rules of PROTOCOL.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from statsmodels.stats.multitest import multipletests

from helpers.statistics import (
    Interval,
    Summary,
    prediction_interval,
    sign_flip_test,
    summarise,
    t_test,
    tost,
)
from models import GOAL, VARIANTS
from study.contrasts import (
    BN,
    EPOCHS,
    EPOCHS_RATIO,
    FINAL,
    FIRST,
    LATE,
    SPEED,
    WITHOUT_BN,
    Contrast,
    Measure,
    Runs,
    difference,
    only,
    per_seed,
)

ALPHA = 0.05


@dataclass(frozen=True)
class Part:
    """What a claim says of one contrast: that it lies above the null (sign 1) or below it (-1)."""

    contrast: Contrast
    measure: Measure
    sign: int
    null: float = 0

    def write(self, value: float) -> str:
        """A value of the contrast, without its unit."""
        return self.measure.effect(value) if self.contrast.below else self.measure.level(value)


@dataclass(frozen=True)
class Figure:
    """A figure of the publication: that of its single runs, unless a value is given."""

    contrast: Contrast
    measure: Measure
    value: float | None = None

    @property
    def published(self) -> float:
        """The figure; a ratio as such."""
        if self.value is not None:
            return self.value
        figure = self.contrast.combine(self.measure, self._of_run)
        return self.measure.natural(figure) if self.contrast.below else figure

    def lies_in(self, interval: Interval) -> bool:
        """Whether the figure is a plausible single run, by the prediction interval of one."""
        return interval[0] <= self.published <= interval[1]

    def _of_run(self, variant: str) -> float:
        return self.measure.published(VARIANTS[variant].published)

    @property
    def text(self) -> str:
        """The figure with its unit: "99.55 %", "0.17 points", "2 epochs", "8 / 4 = 2 times"."""
        if not self.contrast.below:
            return f"{self.published:.2f} {self.measure.unit}"
        text = f"{round(self.published, 2):g} {self.measure.effect_unit}"
        if self.value is not None or not self.measure.ratio:
            return text
        above, below = map(self._of_run, self.contrast.above + self.contrast.below)
        return f"{above} / {below} = {text}"


@dataclass(frozen=True)
class Claim:
    """A claim of the publication.

    text: as published; {0} is the first of the figures.
    parts: what it says of contrasts, all at once.
    figures: the publication's, each held against one more draw.
    sentence: what a reader can quote before the verdict; {0} is the first part's estimate.
    """

    text: str
    parts: tuple[Part, ...]
    figures: tuple[Figure, ...]
    sentence: str

    def __str__(self) -> str:
        return self.text.format(*(figure.published for figure in self.figures))


CLAIMS = (
    Claim(
        "Dropout in the last blocks delays convergence by {0:g} to {1:g} epochs",
        (Part(LATE, SPEED, 1),),
        (Figure(difference("v1", "v2"), EPOCHS), Figure(difference("v1", "final"), EPOCHS)),
        "Without batch normalisation, dropout after the last blocks multiplies the mean test error "
        "of epochs 1 to 7 by {0}",
    ),
    Claim(
        "Batch normalisation converges {0:g} times as fast",
        (Part(WITHOUT_BN, EPOCHS_RATIO, 1),),
        (
            Figure(difference("v1", "final"), EPOCHS_RATIO, value=4),
            Figure(difference("v1", "final"), EPOCHS_RATIO),
            Figure(difference("v2", "final"), EPOCHS_RATIO),
        ),
        "Without batch normalisation it takes {0} times as many epochs to 99 % as with it",
    ),
    Claim(
        "Batch normalisation adds {0:.2f} points",
        (Part(BN, FINAL, 1),),
        (Figure(difference("final", "v2"), FINAL),),
        "Batch normalisation changes the final accuracy by {0} points",
    ),
    Claim(
        f"Final passes {GOAL} %, v1 and v2 do not; Final is the most accurate",
        (
            Part(only("final"), FINAL, 1, GOAL),
            Part(only("v1"), FINAL, -1, GOAL),
            Part(only("v2"), FINAL, -1, GOAL),
            Part(difference("final", "v1"), FINAL, 1),
            Part(difference("final", "v2"), FINAL, 1),
        ),
        (Figure(only("final"), FINAL), Figure(only("v1"), FINAL), Figure(only("v2"), FINAL)),
        "Final ends at {0} % on average, v1 at {1} % and v2 at {2} %",
    ),
    Claim(
        "Keeping dropout out of the high-level blocks makes learning more efficient",
        (Part(LATE, FIRST, -1),),
        (
            Figure(difference("v2", "v1"), FIRST),
            Figure(only("v1"), FIRST),
            Figure(only("v2"), FIRST),
        ),
        "Without batch normalisation, dropout after the last blocks changes the test accuracy "
        "after epoch 1 by {0} points",
    ),
)


# --- verdicts -------------------------------------------------------------------------------------

SHOWN, OTHER_WAY = "shown", "shown, the other way"
NONE, INCONCLUSIVE = "none that matters", "inconclusive"
SMALL = ", and smaller than what matters"


class Effect(NamedTuple):
    """What a contrast's values, one per seed, say.

    summary: with the 95 % interval.
    narrow: the 90 % interval, that of the two one-sided tests.
    p, flip_p: two-sided, of the t test and of the sign-flip test.
    within: whether the two one-sided tests find it within the margin; None if there is no margin.
    """

    summary: Summary
    narrow: Interval
    p: float
    flip_p: float
    within: bool | None

    @property
    def tests_disagree(self) -> bool:
        """Whether t test and sign-flip test fall on different sides of 0.05."""
        return (self.p < ALPHA) != (self.flip_p < ALPHA)


def effect_of(values: Sequence[float], margin: float | None, null: float = 0) -> Effect:
    """The Effect of a contrast, against the null."""
    narrow = summarise(values, level=1 - 2 * ALPHA)
    return Effect(
        summarise(values),
        (narrow.low, narrow.high),
        t_test(values, null),
        sign_flip_test(values, null),
        None if margin is None else tost(values, margin, null) < ALPHA,
    )


class Verdict(NamedTuple):
    """The verdict on a claim.

    effects: of its parts.
    p, corrected: the claim's p value, before and after Holm's correction over all claims.
    word: SHOWN or OTHER_WAY, either perhaps with SMALL; NONE; or INCONCLUSIVE.
    predicted: of each published figure the prediction interval, on the figure's own scale.
    """

    claim: Claim
    effects: list[Effect]
    p: float
    corrected: float
    word: str
    predicted: list[Interval]

    @property
    def plausible(self) -> list[bool]:
        """Of each published figure, whether it is a plausible single run."""
        pairs = zip(self.claim.figures, self.predicted, strict=True)
        return [figure.lies_in(interval) for figure, interval in pairs]


def verdicts(runs: Runs) -> list[Verdict]:
    """The verdicts on CLAIMS, in their order."""
    effects = [[_effect(runs, part) for part in claim.parts] for claim in CLAIMS]
    p_values = [p_value(c.parts, found) for c, found in zip(CLAIMS, effects, strict=True)]
    return [
        Verdict(
            claim,
            found,
            p,
            corrected,
            word(claim.parts, found, corrected),
            [predicted(runs, figure) for figure in claim.figures],
        )
        for claim, found, p, corrected in zip(
            CLAIMS, effects, p_values, holm(p_values), strict=True
        )
    ]


def _effect(runs: Runs, part: Part) -> Effect:
    values = per_seed(runs, part.contrast, part.measure)
    return effect_of(values, part.measure.margin, part.null)


def predicted(runs: Runs, figure: Figure) -> Interval:
    """The 95 % prediction interval of one more draw of a published figure, on its own scale."""
    interval = prediction_interval(per_seed(runs, figure.contrast, figure.measure))
    return tuple(map(figure.measure.natural, interval)) if figure.contrast.below else interval


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction."""
    return multipletests(p_values, ALPHA, method="holm")[1].tolist()


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
    return part.sign * (effect.summary.mean - part.null) > 0
