"""What the study measures in a run, and how runs are set against each other: see PROTOCOL.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import fmean

import numpy as np

from helpers.config import TrainingConfig
from helpers.history import History
from helpers.statistics import Interval, pigeonhole, welch, welch_ratio
from models import GOAL, VARIANTS, Published

TEST_IMAGES = 10_000
Runs = Mapping[tuple[str, int], History]  # by (variant, seed); every variant with the same seeds


# --- measures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A figure of one run, and how contrasts of such figures are made and written.

    name: what the report calls it.
    meaning: the same in more words.
    figure: gives it; of a share of runs, whether the run counts.
    unit: of the figure as it is written.
    decimals: that are written.
    margin: the smallest effect of interest, on the scale that contrasts have; None if none is set.
    published: gives a variant's published figure.
    log: the figure is a logarithm, and written as what it is the logarithm of.
    ratio: a contrast is the logarithm of a ratio of means, and not a difference of them.
    """

    name: str
    meaning: str
    figure: Callable[[History], float]
    unit: str = "%"
    decimals: int = 2
    margin: float | None = None
    published: Callable[[Published], float | None] = lambda _: None
    log: bool = False
    ratio: bool = False

    @property
    def factor(self) -> bool:
        """Whether contrasts are logarithms of factors."""
        return self.log or self.ratio

    @property
    def heading(self) -> str:
        """Name and unit of the figure."""
        return self.name if self.unit in self.name else f"{self.name}, {self.unit}"

    @property
    def effect_unit(self) -> str:
        """The unit of a contrast as it is written."""
        return "times" if self.factor else self.unit.replace("%", "points")

    def level(self, value: float) -> str:
        """A variant's figure, written without its unit."""
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


def _epochs_measure(accuracy: float) -> Measure:
    return Measure(
        f"epochs to {accuracy:g} %",
        f"first epoch with {accuracy:g} % or more",
        epochs_to(accuracy),
        unit="epochs",
        decimals=1,
    )


EPOCHS = replace(_epochs_measure(99), published=lambda p: p.first_epoch_at_99)
_v1, _v2 = (EPOCHS.published(VARIANTS[name].published) for name in ("v1", "v2"))
EPOCHS_RATIO = replace(
    EPOCHS, name="epochs to 99 %, ratio", decimals=2, ratio=True, margin=log(_v1 / _v2)
)
FIRST = Measure(
    "first accuracy",
    "test accuracy after epoch 1",
    lambda h: h.epochs[0]["test_accuracy"],
    margin=1.0,
    published=lambda p: p.epoch_1_test_accuracy,
)
PRIMARY = (FINAL, SPEED, EPOCHS_RATIO, FIRST)

TO_THRESHOLDS = (_epochs_measure(98), _epochs_measure(98.5), EPOCHS, _epochs_measure(GOAL))
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
    figure=lambda h: h.final_accuracy - h.clean_train["accuracy"],
)
BEST = Measure(
    "best accuracy", "test accuracy of the best epoch", lambda h: h.best_accuracy, decimals=3
)


# --- contrasts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """One number per seed: scale * (the mean of some variants' figures - the mean of others').

    Of a measure that makes ratios it is ln(the one mean / the other), whatever the scale. Without
    variants below, it is the mean of those above.
    """

    name: str
    above: tuple[str, ...]
    below: tuple[str, ...] = ()
    scale: int = 1

    def combine(self, measure: Measure, figure: Callable[[str], float]) -> float:
        """The number, where figure gives that of a variant."""
        above = fmean(figure(variant) for variant in self.above)
        if not self.below:
            return above
        below = fmean(figure(variant) for variant in self.below)
        return log(above / below) if measure.ratio else self.scale * (above - below)

    @property
    def weights(self) -> dict[str, float]:
        """What each variant's figure is multiplied by in the difference."""
        above = {variant: self.scale / len(self.above) for variant in self.above}
        return above | {variant: -self.scale / len(self.below) for variant in self.below}


def only(variant: str) -> Contrast:
    """One variant's figure, against nothing."""
    return Contrast(variant, (variant,))


def difference(one: str, other: str) -> Contrast:
    """One variant against another."""
    return Contrast(f"{one} - {other}", (one,), (other,))


def _interaction(name: str, one: Contrast, other: Contrast) -> Contrast:
    """The one difference less the other."""
    return Contrast(name, one.above + other.below, one.below + other.above, scale=2)


def _over_both(name: str, one: Contrast, other: Contrast) -> Contrast:
    """The mean of two differences."""
    return Contrast(name, one.above + other.above, one.below + other.below)


WITHOUT, WITH = "without batch normalisation", "with batch normalisation"
LATE = Contrast(f"late dropout, {WITHOUT}", ("v1", "late"), ("v2", "none"))
LATE_BN = Contrast(f"late dropout, {WITH}", ("v1_bn", "late_bn"), ("v2_bn", "none_bn"))
EARLY = Contrast(f"early dropout, {WITHOUT}", ("v1", "v2"), ("late", "none"))
EARLY_BN = Contrast(f"early dropout, {WITH}", ("v1_bn", "v2_bn"), ("late_bn", "none_bn"))
BN = Contrast(
    "batch normalisation", ("none_bn", "v2_bn", "late_bn", "v1_bn"), ("none", "v2", "late", "v1")
)
WITHOUT_BN = Contrast("without, over with batch normalisation", BN.below, BN.above)
EFFECTS = (
    LATE,
    LATE_BN,
    _over_both("late dropout, over both", LATE, LATE_BN),
    EARLY,
    EARLY_BN,
    _over_both("early dropout, over both", EARLY, EARLY_BN),
    BN,
)
INTERACTIONS = (
    _interaction("late dropout: with - without batch normalisation", LATE_BN, LATE),
    _interaction("early dropout: with - without batch normalisation", EARLY_BN, EARLY),
    _interaction(f"early x late, {WITHOUT}", difference("v1", "v2"), difference("late", "none")),
    _interaction(
        f"early x late, {WITH}", difference("v1_bn", "v2_bn"), difference("late_bn", "none_bn")
    ),
)
FINAL_V1, FINAL_V2 = difference("final", "v1"), difference("final", "v2")
PUBLISHED = (difference("v1", "v2"), difference("v1", "final"), FINAL_V1, FINAL_V2)
# The six that the publication does not hold Final against, though "the most accurate" asks for it.
OTHERS = tuple(difference("final", name) for name in VARIANTS if not VARIANTS[name].published)


def per_seed(runs: Runs, contrast: Contrast, measure: Measure) -> list[float]:
    """A contrast's number of every seed, in the order of the seeds."""
    seeds = sorted({seed for _, seed in runs})
    return [contrast.combine(measure, lambda v, s=s: measure.figure(runs[v, s])) for s in seeds]


def unpaired(runs: Runs, contrast: Contrast, measure: Measure) -> Interval:
    """Welch's 95 % interval of a contrast, as if the runs of a seed had nothing in common."""
    cells = {v: per_seed(runs, only(v), measure) for v in contrast.weights}
    if measure.ratio:
        return welch_ratio([cells[v] for v in contrast.above], [cells[v] for v in contrast.below])
    return welch(list(cells.values()), list(contrast.weights.values()))


# --- images ---------------------------------------------------------------------------------------


def mistakes(runs: Runs, variant: str) -> np.ndarray:
    """Which test images the last epochs' networks get wrong: bool [seeds, TEST_IMAGES]."""
    histories = [history for (name, _), history in sorted(runs.items()) if name == variant]
    wrong = np.zeros((len(histories), TEST_IMAGES), dtype=bool)
    for row, history in zip(wrong, histories, strict=True):
        row[[index for index, _ in history.mistakes]] = True
    return wrong


def beyond_these_images(runs: Runs, contrasts: Sequence[Contrast]) -> list[Interval]:
    """95 % intervals of contrasts of final accuracies, over seeds and images, in points."""
    wrong = {v: mistakes(runs, v).astype(float) for v in VARIANTS}
    tables = [sum(-w * wrong[v] for v, w in contrast.weights.items()) for contrast in contrasts]
    return [(100 * low, 100 * high) for low, high in pigeonhole(np.stack(tables))]
