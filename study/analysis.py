"""What the study measures, contrasts and concludes, by the rules of PROTOCOL.md.

Runs become one table, a row per seed and a column per measure and variant. A contrast is a formula
of variants' names, evaluated on the columns of a measure; verdicts follow from contrasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, fsum, log, nan
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.config import TrainingConfig
from helpers.history import TEST_IMAGES, History
from helpers.publication import Reported, published_log
from models import CLASSES, GOAL, VARIANTS
from study.runs import Runs
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

# --- measures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number that a run has, and how contrasts of such numbers are made and written.

    name: what the report calls it.
    meaning: the same in more words.
    of: gives it.
    unit: of the number as it is written.
    decimals: that are written.
    margin: the smallest effect of interest, on the scale that contrasts have; None if none is set.
    published: gives what is published of a variant.
    log: the number is a logarithm, and written as what it is the logarithm of.
    ratio: a contrast is the logarithm of a ratio of means, and not a difference of them.
    """

    name: str
    meaning: str
    of: Callable[[History], float]
    unit: str = "%"
    decimals: int = 2
    margin: float | None = None
    published: Callable[[Reported], float | None] = lambda _: None
    log: bool = False
    ratio: bool = False

    @property
    def factor(self) -> bool:
        """Whether contrasts are logarithms of factors."""
        return self.log or self.ratio

    @property
    def heading(self) -> str:
        """Name and unit of the number."""
        return self.name if self.unit in self.name else f"{self.name}, {self.unit}"

    @property
    def effect_unit(self) -> str:
        """The unit of a contrast as it is written."""
        return "times" if self.factor else self.unit.replace("%", "points")

    def level(self, value: float) -> str:
        """A variant's number, written without its unit."""
        return f"{exp(value) if self.log else value:.{self.decimals}f}"

    def effect(self, value: float) -> str:
        """A contrast, written without its unit; factors as such, differences with a sign."""
        sign = "" if self.factor else "+"
        return f"{self.natural(value):{sign}.{self.decimals}f}"

    def natural(self, value: float) -> float:
        """A contrast on the scale that it is written on."""
        return exp(value) if self.factor else value


def _learning_speed(history: History) -> float:
    first = history.epochs[: TrainingConfig.step_size]  # before the learning rate falls
    return fmean(log(100 - record["test_accuracy"]) for record in first)


def epochs_to(accuracy: float) -> Callable[[History], int]:
    """The first epoch with at least this test accuracy, %; one after the config's last for never.

    Its mean over runs is a restricted mean (Royston and Parmar 2013).
    """

    def epochs(history: History) -> int:
        reached = (e for e, r in enumerate(history.epochs, 1) if r["test_accuracy"] >= accuracy)
        return next(reached, history.config["epochs"] + 1)

    return epochs


def _epochs_measure(accuracy: float, **more: object) -> Measure:
    name, meaning = f"epochs to {accuracy:g} %", f"first epoch with {accuracy:g} % or more"
    return Measure(name, meaning, epochs_to(accuracy), "epochs", 1, **more)


def _ratio(measure: Measure) -> Measure:
    """Of epochs, by which factor they differ. The margin is 8 / 6, what was first published."""
    name = f"{measure.name}, ratio"
    return replace(measure, name=name, decimals=2, ratio=True, margin=log(8 / 6))


FINAL = Measure(
    "final accuracy",
    "test accuracy of the last epoch",
    lambda h: h.final_accuracy,
    decimals=3,
    margin=0.10,
    published=lambda p: p.final_accuracy,
)
SPEED = Measure(
    "learning speed",
    "test error of epochs 1 to 7",
    _learning_speed,
    unit="% error",
    margin=0.135,
    log=True,
)
EPOCHS = _epochs_measure(99, published=lambda p: p.first_epoch_at_99)
TO_THRESHOLDS = (_epochs_measure(98), _epochs_measure(98.5), EPOCHS, _epochs_measure(GOAL))
RATIOS = tuple(map(_ratio, TO_THRESHOLDS[:3]))
EPOCHS_RATIO = RATIOS[-1]
FIRST = Measure(
    "first accuracy",
    "test accuracy after epoch 1",
    lambda h: h.epochs[0]["test_accuracy"],
    margin=1.0,
    published=lambda p: p.epoch_1_test_accuracy,
)
PRIMARY = (FINAL, SPEED, EPOCHS_RATIO, FIRST)
FIRST_ERROR = Measure(
    "first error",
    "test error after epoch 1",
    lambda h: log(100 - h.epochs[0]["test_accuracy"]),
    unit="% error",
    margin=SPEED.margin,
    log=True,
)
TRAIN_1 = Measure(
    "first train accuracy",
    "train accuracy of epoch 1, taken while training",
    lambda h: h.epochs[0]["train_accuracy"],
    published=lambda p: p.epoch_1_train_accuracy,
)
GAP = Measure(
    "gap while training",
    "test accuracy - train accuracy taken while training, last epoch",
    lambda h: h.gap,
    unit="points",
    published=lambda p: p.gap,
)
GAP_ALIKE = replace(
    GAP,
    name="gap measured alike",
    meaning="test accuracy - accuracy on the training images as they are, last epoch",
    of=lambda h: h.final_accuracy - h.clean_train["accuracy"],
)
BEST = Measure(
    "best accuracy", "test accuracy of the best epoch", lambda h: h.best_accuracy, decimals=3
)
TRAIN = Measure(
    "last train accuracy",
    "train accuracy of the last epoch, taken while training",
    lambda h: h.epochs[-1]["train_accuracy"],
)
SIX = (TRAIN_1, FIRST, EPOCHS, BEST, FINAL, TRAIN)  # that reproduction looks at
MEASURES = (
    *PRIMARY,
    FIRST_ERROR,
    *TO_THRESHOLDS,
    *RATIOS[:2],
    TRAIN_1,
    TRAIN,
    GAP,
    GAP_ALIKE,
    BEST,
)


def measured(runs: Runs, measures: Sequence[Measure] = MEASURES) -> pd.DataFrame:
    """The table of a study: a row per seed, and for every measure's name a column per variant.

    Final as run is v2_bn, and has a column under either name.
    """
    variants = {v: v for v in VARIANTS if any(v == variant for variant, _ in runs)}
    if "v2_bn" in variants:
        variants.setdefault("final", "v2_bn")
    seeds = sorted({seed for _, seed in runs})
    columns = {
        (m.name, name): [m.of(runs[v, seed]) for seed in seeds]
        for m in measures
        for name, v in variants.items()
    }
    return pd.DataFrame(columns, index=seeds)


THREE = tuple(variant for variant in VARIANTS if VARIANTS[variant].published)
LOGS = {
    variant: History(
        variant, 42, "finished", TrainingConfig(42).as_dict(), epochs=published_log(variant)
    )
    for variant in THREE
}
# What was published of the three, as tables of one row: by the page, and by its notebooks' logs.
PAGE = pd.DataFrame(
    {(m.name, v): [m.published(VARIANTS[v].published.page)] for m in MEASURES for v in THREE}
)
LOGGED = measured(
    {(v, 42): log for v, log in LOGS.items()}, [m for m in MEASURES if m is not GAP_ALIKE]
)


# --- contrasts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """One number per seed: a weighted sum over variants, as a formula of their names.

    Of a measure that makes ratios it is ln(the mean of those added / the mean of those subtracted).
    A formula that subtracts nothing gives the level of a variant, and no effect.
    """

    formula: str
    title: str = ""

    @property
    def name(self) -> str:
        """What the report calls it: its title, or else the formula."""
        return self.title or self.formula

    @property
    def level(self) -> bool:
        """Whether it is a variant's own number."""
        return "-" not in self.formula

    @cached_property
    def weights(self) -> pd.Series:
        """What each variant's number is multiplied by, for those that take part."""
        units = pd.DataFrame(np.eye(len(VARIANTS)), columns=list(VARIANTS))
        weights = pd.Series(units.eval(self.formula).to_numpy(), index=list(VARIANTS))
        return weights[weights != 0]

    def of(self, cells: pd.DataFrame, measure: Measure) -> np.ndarray:
        """The number of every row of cells, which has a column per variant."""
        above, below = self._mean(cells, 1), self._mean(cells, -1)
        if self.level:
            return above
        scale = self.weights.clip(lower=0).sum()
        return np.log(above / below) if measure.ratio else scale * (above - below)

    def _mean(self, cells: pd.DataFrame, sign: int) -> np.ndarray:
        """Of every row, the mean of the variants added (sign 1) or subtracted (-1)."""
        weights = self.weights[sign * self.weights > 0]
        columns = [cells[v].to_numpy() * w for v, w in (weights / weights.sum()).items()]
        return np.array(list(map(fsum, zip(*columns, strict=True))))  # equal sums are to be equal


def difference(one: str, other: str) -> Contrast:
    """One variant against another."""
    return Contrast(f"{one} - {other}")


WITHOUT, WITH = "without batch normalization", "with batch normalization"
LATE = Contrast("(v1 + late - v2 - none) / 2", f"late dropout, {WITHOUT}")
LATE_BN = Contrast("(v1_bn + late_bn - v2_bn - none_bn) / 2", f"late dropout, {WITH}")
EARLY = Contrast("(v1 + v2 - late - none) / 2", f"early dropout, {WITHOUT}")
EARLY_BN = Contrast("(v1_bn + v2_bn - late_bn - none_bn) / 2", f"early dropout, {WITH}")
BN = Contrast(
    "(none_bn + v2_bn + late_bn + v1_bn - none - v2 - late - v1) / 4", "batch normalization"
)
WITHOUT_BN = Contrast(
    "(none + v2 + late + v1 - none_bn - v2_bn - late_bn - v1_bn) / 4",
    "without, over with batch normalization",
)
EFFECTS = (
    LATE,
    LATE_BN,
    Contrast(f"({LATE.formula} + {LATE_BN.formula}) / 2", "late dropout, over both"),
    EARLY,
    EARLY_BN,
    Contrast(f"({EARLY.formula} + {EARLY_BN.formula}) / 2", "early dropout, over both"),
    BN,
)
INTERACTIONS = (
    Contrast(
        f"{LATE_BN.formula} - {LATE.formula}", "late dropout: with - without batch normalization"
    ),
    Contrast(
        f"{EARLY_BN.formula} - {EARLY.formula}", "early dropout: with - without batch normalization"
    ),
    Contrast("(v1 - v2) - (late - none)", f"early x late, {WITHOUT}"),
    Contrast("(v1_bn - v2_bn) - (late_bn - none_bn)", f"early x late, {WITH}"),
)
V1_V2, FINAL_V1, FINAL_V2 = Contrast("v1 - v2"), Contrast("final - v1"), Contrast("final - v2")
PUBLISHED = (V1_V2, Contrast("v1 - final"), FINAL_V1, FINAL_V2)
# What one placement of dropout adds to another, without and with batch normalization.
SIMPLE = tuple(
    difference(f"{one}{bn}", f"{other}{bn}")
    for bn in ("", "_bn")
    for one, other in (("v1", "v2"), ("late", "none"), ("v1", "late"), ("v2", "none"))
)
# The six that the publication does not hold Final against, though "the most accurate" asks for it.
OTHERS = tuple(difference("final", name) for name in VARIANTS if not VARIANTS[name].published)


def per_seed(table: pd.DataFrame, contrast: Contrast, measure: Measure) -> np.ndarray:
    """A contrast's number of every seed, in the order of the seeds."""
    return contrast.of(table[measure.name], measure)


def unpaired(table: pd.DataFrame, contrast: Contrast, measure: Measure) -> Interval:
    """Welch's 95 % interval of a contrast, as if the runs of a seed had nothing in common.

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


# --- images ---------------------------------------------------------------------------------------


def answers(runs: Runs, variant: str) -> np.ndarray:
    """What the last epochs' networks say of the test images: int8 [seeds, TEST_IMAGES].

    The digit an image is taken for, or -1 where that is right.
    """
    histories = [history for (name, _), history in sorted(runs.items()) if name == variant]
    said = np.full((len(histories), TEST_IMAGES), -1, dtype=np.int8)
    for row, history in zip(said, histories, strict=True):
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
    wrong = {v: (answers(runs, v) >= 0).astype(float) for v in VARIANTS}
    tables = [sum(-w * wrong[v] for v, w in c.weights.items()) for c in contrasts]
    ends = pigeonhole(np.stack(tables))
    levels = [100 if contrast.level else 0 for contrast in contrasts]
    return [
        (level + 100 * low, level + 100 * high)
        for (low, high), level in zip(ends, levels, strict=True)
    ]


# --- claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a claim says of one contrast: that it lies above the null (sign 1) or below it (-1)."""

    contrast: Contrast
    measure: Measure
    sign: int
    null: float = 0

    def write(self, value: float) -> str:
        """A value of the contrast, without its unit."""
        return self.measure.level(value) if self.contrast.level else self.measure.effect(value)


@dataclass(frozen=True)
class Quoted:
    """A number of the publication: that of its single runs, unless a value is given."""

    contrast: Contrast
    measure: Measure
    value: float | None = None

    def number(self, source: pd.DataFrame = PAGE) -> float:
        """The number, by PAGE or LOGGED; a ratio as such."""
        if self.value is not None:
            return self.value
        [number] = per_seed(source, self.contrast, self.measure)
        return float(number) if self.contrast.level else self.measure.natural(number)

    def text(self, source: pd.DataFrame = PAGE) -> str:
        """The number with its unit: "99.55 %", "0.17 points", "2 epochs", "8 / 4 = 2 times"."""
        number = self.number(source)
        if self.contrast.level:
            return f"{number:.2f} {self.measure.unit}"
        text = f"{round(number, 2):g} {self.measure.effect_unit}"
        if self.value is not None or not self.measure.ratio:
            return text
        of = source[self.measure.name].iloc[0]
        return f"{' / '.join(f'{of[v]:g}' for v in self.contrast.formula.split(' - '))} = {text}"


@dataclass(frozen=True)
class Claim:
    """A claim of the publication.

    text: as published; {0} is the first of the quoted numbers.
    parts: what it says of contrasts, all at once.
    quoted: the publication's numbers, each held against one more draw.
    sentence: what a reader can quote before the verdict; {0} is the first part's estimate.
    corrected: what its author made of it on the same day.
    of_means: whether the first number is said of what the first part contrasts, so that an interval
        of the mean can exclude it.
    """

    text: str
    parts: tuple[Part, ...]
    quoted: tuple[Quoted, ...]
    sentence: str
    corrected: str = "unchanged"
    of_means: bool = False

    @property
    def withdrawn(self) -> bool:
        """Whether its author took it back."""
        return self.corrected.startswith("withdrawn")

    def __str__(self) -> str:
        return self.text.format(*(quoted.number() for quoted in self.quoted))


V1_FINAL, V2_FINAL = difference("v1", "final"), difference("v2", "final")
CLAIMS = (
    Claim(
        "Dropout in the last blocks delays convergence by {0:g} to {1:g} epochs",
        (Part(LATE, SPEED, 1),),
        (Quoted(V1_V2, EPOCHS), Quoted(V1_FINAL, EPOCHS)),
        "Without batch normalization, dropout after the last blocks multiplies the mean test error "
        "of epochs 1 to 7 by {0}",
        "withdrawn: 3 epochs, which is v1 against Final",
    ),
    Claim(
        "Batch normalization converges {0:g} times as fast",
        (Part(WITHOUT_BN, EPOCHS_RATIO, 1),),
        (
            Quoted(V1_FINAL, EPOCHS_RATIO, value=4),
            Quoted(V1_FINAL, EPOCHS_RATIO),
            Quoted(V2_FINAL, EPOCHS_RATIO),
        ),
        "Without batch normalization it takes {0} times as many epochs to 99 % as with it",
        "withdrawn: 3 epochs sooner",
        of_means=True,
    ),
    Claim(
        "Batch normalization adds {0:.2f} points",
        (Part(BN, FINAL, 1),),
        (Quoted(FINAL_V2, FINAL),),
        "Batch normalization changes the final accuracy by {0} points",
        of_means=True,
    ),
    Claim(
        f"Final passes {GOAL} %, v1 and v2 do not; Final is the most accurate",
        (
            Part(Contrast("final"), FINAL, 1, GOAL),
            Part(Contrast("v1"), FINAL, -1, GOAL),
            Part(Contrast("v2"), FINAL, -1, GOAL),
            Part(FINAL_V1, FINAL, 1),
            Part(FINAL_V2, FINAL, 1),
        ),
        tuple(Quoted(Contrast(name), FINAL) for name in ("final", "v1", "v2")),
        "Final ends at {0} % on average, v1 at {1} % and v2 at {2} %",
    ),
    Claim(
        "Keeping dropout out of the high-level blocks makes learning more efficient",
        (Part(LATE, FIRST, -1),),
        (
            Quoted(difference("v2", "v1"), FIRST),
            Quoted(Contrast("v1"), FIRST),
            Quoted(Contrast("v2"), FIRST),
        ),
        "Without batch normalization, dropout after the last blocks changes the test accuracy "
        "after epoch 1 by {0} points",
    ),
)


# --- verdicts -------------------------------------------------------------------------------------

SHOWN, OTHER_WAY = "shown", "shown, the other way"
NONE, INCONCLUSIVE = "none that matters", "inconclusive"
SMALL = ", and smaller than what matters"


class Effect(NamedTuple):
    """What a contrast's values say.

    found: the estimate.
    p, flip_p: two-sided, of the t test and of the sign-flip test.
    equivalence: the p value that it is within the margin; None if there is no margin.
    """

    found: Estimate
    p: float
    flip_p: float
    equivalence: float | None

    @property
    def narrow(self) -> Interval:
        """The 90 % interval, that of the two one-sided tests."""
        return self.found.interval(1 - 2 * ALPHA)

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
    return part.sign * (effect.found.mean - part.null) > 0


def family(
    table: pd.DataFrame, contrasts: Sequence[Contrast], measure: Measure
) -> list[tuple[Contrast, Effect, float, float]]:
    """Contrasts with their effects, and both p values after Holm's correction over all of them.

    The first of the two is that there is an effect, the second that it is within the margin.
    """
    effects = [effect(table, contrast, measure) for contrast in contrasts]
    p, equivalence = (holm([getattr(e, of) for e in effects]) for of in ("p", "equivalence"))
    return list(zip(contrasts, effects, p, equivalence, strict=True))


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


def curve(history: History) -> np.ndarray:
    """ln(test error in %) of every epoch; a run that stopped early keeps its last."""
    errors = [log(100 - record["test_accuracy"]) for record in history.epochs]
    return np.array(errors + errors[-1:] * (history.config["epochs"] - len(errors)))


def reproduction(one: History, runs: Sequence[History]) -> Reproduction:
    """Hold a run against others of its variant."""
    numbers = [measure.of(one) for measure in SIX]
    ends = [prediction_interval([measure.of(run) for run in runs]) for measure in SIX]
    curves = np.stack(list(map(curve, (one, *runs))))
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
        """Whether there is an effect in both settings, the one against the other."""
        signs = [e.found.mean > self.part.null for e in (self.page, self.as_run)]
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


# The sixth test of the third round: the published pair, in the mean of both settings.
PAIR = Part(V1_V2, FINAL, -1)
