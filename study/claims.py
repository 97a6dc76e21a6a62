"""What the study asks, by the rules of PROTOCOL.md: its measures, contrasts and claims, as data.

Runs become one table, a row per seed and a column per measure and variant. A contrast is a formula
of variants' names, evaluated on the columns of a measure; a claim says of contrasts that they lie
above or below something. analysis.py has what comes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, fsum, log
from statistics import fmean

import numpy as np
import pandas as pd

from helpers.config import TrainingConfig
from helpers.history import History
from helpers.publication import Reported, published_log
from models import FINAL_AS_RUN, GOAL, VARIANTS
from study.runs import Runs, names

# --- measures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number that a run has, and how contrasts of such numbers are made and written.

    name: what the report calls it.
    meaning: the same in more words.
    of: computes it from a run's history.
    unit: in which it is written.
    decimals: how many of them are written.
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


ACCURACY = Measure(
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
FIRST_ACCURACY = Measure(
    "first accuracy",
    "test accuracy after epoch 1",
    lambda h: h.epochs[0]["test_accuracy"],
    margin=1.0,
    published=lambda p: p.epoch_1_test_accuracy,
)
PRIMARY = (ACCURACY, SPEED, EPOCHS_RATIO, FIRST_ACCURACY)
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
    published=lambda _: None,
)
BEST = Measure(
    "best accuracy", "test accuracy of the best epoch", lambda h: h.best_accuracy, decimals=3
)
TRAIN = Measure(
    "last train accuracy",
    "train accuracy of the last epoch, taken while training",
    lambda h: h.epochs[-1]["train_accuracy"],
)
SIX = (TRAIN_1, FIRST_ACCURACY, EPOCHS, BEST, ACCURACY, TRAIN)  # that reproduction looks at
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
    seeds = sorted({seed for _, seed in runs})
    columns = {
        (m.name, name): [m.of(runs[v, seed]) for seed in seeds]
        for m in measures
        for name, v in aliases(runs).items()
    }
    return pd.DataFrame(columns, index=seeds)


def aliases(runs: Runs) -> dict[str, str]:
    """The variants that there are runs of, by the names of theirs that contrasts may use."""
    variants = {v: v for v in names(runs)}
    if FINAL_AS_RUN in variants:
        variants.setdefault("final", FINAL_AS_RUN)
    return variants


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


def published(measure: Measure, source: pd.DataFrame = PAGE) -> dict[str, float]:
    """The published numbers of the variants that have one, by the page or its logs."""
    return source[measure.name].iloc[0].dropna().to_dict() if measure.name in source else {}


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

    @cached_property
    def _sides(self) -> list[dict[str, float]]:
        """The variants added, and those subtracted, each with its share of that side's mean."""
        sides = (self.weights[sign * self.weights > 0] for sign in (1, -1))
        return [(side / side.sum()).to_dict() for side in sides]

    def of(self, cells: pd.DataFrame, measure: Measure) -> np.ndarray:
        """The number of every row of cells, which has a column per variant."""
        above, below = (
            # By fsum, so that sums which are equal on paper are equal in bits.
            np.array([fsum(row) for row in cells[list(side)].to_numpy() * [*side.values()]])
            for side in self._sides
        )
        if self.level:
            return above
        scale = self.weights.clip(lower=0).sum()
        return np.log(above / below) if measure.ratio else scale * (above - below)


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
V1_FINAL, V2_FINAL = Contrast("v1 - final"), Contrast("v2 - final")
PUBLISHED = (V1_V2, V1_FINAL, FINAL_V1, FINAL_V2)
# What one placement of dropout adds to another, without and with batch normalization.
SIMPLE = tuple(
    difference(f"{one}{bn}", f"{other}{bn}")
    for bn in ("", "_bn")
    for one, other in (("v1", "v2"), ("late", "none"), ("v1", "late"), ("v2", "none"))
)
# The six that the publication does not hold Final against, though "the most accurate" asks for it.
OTHERS = tuple(difference("final", name) for name in VARIANTS if not VARIANTS[name].published)
ITSELF = difference("final", FINAL_AS_RUN)  # the one of them that is none as run


def per_seed(table: pd.DataFrame, contrast: Contrast, measure: Measure) -> np.ndarray:
    """A contrast's number of every seed, in the order of the seeds."""
    return contrast.of(table[measure.name], measure)


# --- claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a claim says of one contrast: that it lies above the null (sign 1) or below it (-1)."""

    contrast: Contrast
    measure: Measure
    sign: int
    null: float = 0

    @property
    def unit(self) -> str:
        """The unit of the contrast as it is written."""
        return self.measure.unit if self.contrast.level else self.measure.effect_unit

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


CLAIMS = (
    Claim(
        "Dropout in the last blocks delays convergence by {0:g} to {1:g} epochs",
        (Part(LATE, SPEED, 1),),
        (Quoted(V1_V2, EPOCHS), Quoted(V1_FINAL, EPOCHS)),
        "Without batch normalization, dropout after the last blocks multiplies the geometric mean "
        "of the test errors of epochs 1 to 7 by {0}",
        "withdrawn: 3 epochs in its place, which is v1 against Final",
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
        "withdrawn: 3 epochs sooner in its place",
        of_means=True,
    ),
    Claim(
        "Batch normalization adds {0:.2f} points",
        (Part(BN, ACCURACY, 1),),
        (Quoted(FINAL_V2, ACCURACY),),
        "Batch normalization changes the final accuracy by {0} points",
        of_means=True,
    ),
    Claim(
        f"Final passes {GOAL} %, v1 and v2 do not; Final is the most accurate",
        (
            Part(Contrast("final"), ACCURACY, 1, GOAL),
            Part(Contrast("v1"), ACCURACY, -1, GOAL),
            Part(Contrast("v2"), ACCURACY, -1, GOAL),
            Part(FINAL_V1, ACCURACY, 1),
            Part(FINAL_V2, ACCURACY, 1),
        ),
        tuple(Quoted(Contrast(name), ACCURACY) for name in ("final", "v1", "v2")),
        "Final ends at {0} % on average, v1 at {1} % and v2 at {2} %",
    ),
    Claim(
        "Keeping dropout out of the high-level blocks makes learning more efficient",
        (Part(LATE, FIRST_ACCURACY, -1),),
        (
            Quoted(difference("v2", "v1"), FIRST_ACCURACY),
            Quoted(Contrast("v1"), FIRST_ACCURACY),
            Quoted(Contrast("v2"), FIRST_ACCURACY),
        ),
        "Without batch normalization, dropout after the last blocks changes the test accuracy "
        "after epoch 1 by {0} points",
    ),
)
# The sixth test of the third round: the published pair, in the mean of both settings. It is claimed
# to be what the page has, v1 below v2; the logs have v1 above.
PAIR = Part(V1_V2, ACCURACY, -1)
