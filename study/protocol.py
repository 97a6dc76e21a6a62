"""What the study asks, as data, by the rules of PROTOCOL.md: measures, contrasts and claims.

A contrast is a formula of networks' names, evaluated on a measure of the runs of one seed.
"""

from __future__ import annotations

from math import exp, log
from typing import NamedTuple

import numpy as np
import pandas as pd

from models import PAGE, TARGET_ACCURACY

SETTINGS = {"page": "", "original": "original_"}  # experiments; how their networks' names begin


class Measure(NamedTuple):
    """A column of runs.csv, and how contrasts of it are made and written."""

    title: str
    margin: float  # the smallest effect of interest, on the scale that contrasts have
    scale: str = "difference"  # or "log" of a measure; or "ratio": contrasts are logs of ratios
    digits: int = 3

    def natural(self, value: float) -> float:
        """A contrast on the scale that it is written on: points, or times."""
        return value if self.scale == "difference" else exp(value)

    def write(self, *values: float) -> str:
        """A contrast as written: +0.263 [+0.190, +0.336], or 1.62 [1.44, 1.82]."""
        form = f"{{:+.{self.digits}f}}" if self.scale == "difference" else "{:.2f}"
        mean, *interval = (form.format(self.natural(value)) for value in values)
        return f"{mean} [{', '.join(interval)}]" if interval else mean


MEASURES = {
    "final": Measure("final accuracy, points", 0.10),
    "log_error": Measure("learning speed: test error of epochs 1 to 7, times", 0.135, "log"),
    "to_99": Measure("epochs to 99%, times", log(8 / 6), "ratio"),
    "first": Measure("accuracy after epoch 1, points", 1.0, digits=2),
}

LATE = "(v1 + late - v2 - none) / 2"
LATE_BN = "(v1_bn + late_bn - v2_bn - none_bn) / 2"
EARLY = "(v1 + v2 - late - none) / 2"
EARLY_BN = "(v1_bn + v2_bn - late_bn - none_bn) / 2"
BN = "(none_bn + v2_bn + late_bn + v1_bn - none - v2 - late - v1) / 4"
WITHOUT_BN = "(none + v2 + late + v1 - none_bn - v2_bn - late_bn - v1_bn) / 4"
PAIR = "v1 - v2"

CONTRASTS = {
    LATE: "late dropout, without BN",
    LATE_BN: "late dropout, with BN",
    f"({LATE} + {LATE_BN}) / 2": "late dropout, average",
    EARLY: "early dropout, without BN",
    EARLY_BN: "early dropout, with BN",
    f"({EARLY} + {EARLY_BN}) / 2": "early dropout, average",
    BN: "batch normalization (BN)",
    WITHOUT_BN: "without BN, over with it",
    f"{LATE_BN} - {LATE}": "late dropout: with BN - without",
    f"{EARLY_BN} - {EARLY}": "early dropout: with BN - without",
    "(v1 - v2) - (late - none)": "early x late, without BN",
    "(v1_bn - v2_bn) - (late_bn - none_bn)": "early x late, with BN",
    PAIR: "v1 - v2",
    "final - v1": "Final - v1",
    "final - v2": "Final - v2",
    "final - late_bn": "Final - late_bn",
}


class Part(NamedTuple):
    """What a claim says of one contrast: that it lies above the null (sign 1) or below it (-1)."""

    formula: str
    measure: str
    sign: int
    null: float = 0.0


class Claim(NamedTuple):
    """A claim of the publication's page: several parts hold at once."""

    text: str
    parts: tuple[Part, ...]
    unit: str  # of the first part's estimate as written
    size: float | None = None  # the mean effect that it claims, on the natural scale


CLAIMS = (
    Claim(
        "Dropout in the last blocks delays convergence by 2 to 4 epochs",
        (Part(LATE, "log_error", 1),),
        "times the test error of epochs 1 to 7 with late dropout",
    ),
    Claim(
        "Batch normalization converges 4 times as fast",
        (Part(WITHOUT_BN, "to_99", 1),),
        "times as fast to 99%",
        size=4.0,
    ),
    Claim("Batch normalization adds 0.17 points", (Part(BN, "final", 1),), "points", size=0.17),
    Claim(
        f"Final passes {TARGET_ACCURACY}%, v1 and v2 do not; Final is the most accurate",
        (
            Part("final", "final", 1, TARGET_ACCURACY),
            Part("v1", "final", -1, TARGET_ACCURACY),
            Part("v2", "final", -1, TARGET_ACCURACY),
            Part("final - v1", "final", 1),
            Part("final - v2", "final", 1),
        ),
        "percent, Final's mean",
    ),
    Claim(
        "Keeping dropout out of the last blocks makes learning more efficient",
        (Part(LATE, "first", -1),),
        "points after epoch 1 from late dropout",
    ),
)
# The sixth test of the third round, in the mean of both settings: the page has v1 below v2.
PAIR_TEST = Part(PAIR, "final", -1)

SIX = {  # what the reproduction of a log looks at
    "first_train": "train accuracy, epoch 1",
    "first": "test accuracy, epoch 1",
    "to_99": "first epoch at 99%",
    "best": "best test accuracy",
    "final": "last test accuracy",
    "last_train": "last train accuracy",
}
PUBLISHED = ("v1", "v2", "final")


def wide(runs: pd.DataFrame, measure: str, setting: str) -> pd.DataFrame:
    """A measure of a setting's runs: a row per seed, a column per network by its page's name."""
    table = runs.pivot(index="seed", columns="network", values=measure)
    table.columns = [name.removeprefix(SETTINGS[setting]) for name in table.columns]
    if "v2_bn" not in table:  # in the original setting Final is v2 with batch normalization
        table["v2_bn"] = table["final"]
    return table[list(PAGE)]


def contrast(table: pd.DataFrame, formula: str, measure: str) -> np.ndarray:
    """A contrast's number per seed; a "ratio" is ln(mean of those added / of those subtracted)."""
    if MEASURES[measure].scale != "ratio" or "-" not in formula:
        return table.eval(formula).to_numpy(float)
    units = pd.DataFrame(np.eye(table.shape[1]), columns=table.columns)
    weights = units.eval(formula).to_numpy()
    return np.log((table.to_numpy() @ weights.clip(0)) / (table.to_numpy() @ (-weights).clip(0)))
