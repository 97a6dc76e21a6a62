"""Measures, contrasts and claims are those of study/PROTOCOL.md."""

from math import exp, prod

import numpy as np
import pytest

from models import VARIANTS
from study import claims
from study.claims import (
    ACCURACY,
    CLAIMS,
    EPOCHS,
    EPOCHS_RATIO,
    FIRST_ACCURACY,
    GAP_ALIKE,
    LOGGED,
    LOGS,
    SPEED,
    THREE,
    difference,
    epochs_to,
    measured,
    per_seed,
)
from study.runs import SEEDS
from tests.helpers import history, made_up_study

# --- measures -------------------------------------------------------------------------------------


def test_learning_speed_is_the_geometric_mean_error_of_seven_epochs():
    accuracies = [96.0, 97.0, 98.0, 98.5, 98.8, 98.9, 99.0]
    error = prod(100 - accuracy for accuracy in accuracies) ** (1 / 7)
    assert exp(SPEED.of(history([*accuracies, 99.5, 99.6]))) == pytest.approx(error)
    assert SPEED.level(SPEED.of(history(accuracies))) == f"{error:.2f}"


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([98.99, 99.0, 98.0], 2), ([99.5], 1), ([98.99] * 20, 21), ([98.0] * 12, 21)],
)
def test_epochs_to_99_are_counted_from_1_and_21_for_never(accuracies, expected):
    """Also of a run that stopped early."""
    assert epochs_to(99)(history(accuracies)) == expected


def test_the_gap_measured_alike_takes_the_training_images_as_they_are():
    run = history([99.6, 99.4], clean_train={"loss": 0.01, "accuracy": 99.9})
    assert GAP_ALIKE.of(run) == pytest.approx(-0.5)


def test_the_margins_are_the_protocols():
    assert (ACCURACY.margin, SPEED.margin, FIRST_ACCURACY.margin) == (0.10, 0.135, 1)
    assert exp(EPOCHS_RATIO.margin) == pytest.approx(8 / 6)


# --- contrasts ------------------------------------------------------------------------------------

PROTOCOL = {
    "late dropout, without batch normalization": "((v1 + late) - (v2 + none)) / 2",
    "late dropout, with batch normalization": "((v1_bn + late_bn) - (v2_bn + none_bn)) / 2",
    "late dropout, over both": "(((v1 + late) - (v2 + none)) / 2"
    " + ((v1_bn + late_bn) - (v2_bn + none_bn)) / 2) / 2",
    "early dropout, without batch normalization": "((v1 + v2) - (late + none)) / 2",
    "early dropout, with batch normalization": "((v1_bn + v2_bn) - (late_bn + none_bn)) / 2",
    "early dropout, over both": "(((v1 + v2) - (late + none)) / 2"
    " + ((v1_bn + v2_bn) - (late_bn + none_bn)) / 2) / 2",
    "batch normalization": "(none_bn + v2_bn + late_bn + v1_bn - none - v2 - late - v1) / 4",
    "late dropout: with - without batch normalization": "((v1_bn + late_bn) - (v2_bn + none_bn))"
    " / 2 - ((v1 + late) - (v2 + none)) / 2",
    "early dropout: with - without batch normalization": "((v1_bn + v2_bn) - (late_bn + none_bn))"
    " / 2 - ((v1 + v2) - (late + none)) / 2",
    "early x late, without batch normalization": "(v1 - v2) - (late - none)",
    "early x late, with batch normalization": "(v1_bn - v2_bn) - (late_bn - none_bn)",
}
ALL = (*claims.EFFECTS, *claims.INTERACTIONS, *claims.PUBLISHED, *claims.OTHERS)


def test_the_contrasts_are_the_protocols(runs, table):
    """The formulas of the protocol, or, for two variants, the name itself."""
    assert set(PROTOCOL) < {contrast.name for contrast in ALL}
    assert len(ALL) == len(PROTOCOL) + 4 + 6
    for contrast in ALL:
        formula = PROTOCOL.get(contrast.name, contrast.name)
        for value, seed in zip(per_seed(table, contrast, ACCURACY), range(47, 57), strict=True):
            numbers = {v: runs[v, seed].final_accuracy for v in VARIANTS}
            assert value == pytest.approx(eval(formula, numbers)), contrast.name


def test_the_effects_of_late_dropout_are_means_of_the_simple_ones(table):
    """Which are eight: late and early dropout, each beside the other or not, without and with."""
    assert len({contrast.formula for contrast in claims.SIMPLE}) == 8
    for effect, pairs in (
        (claims.LATE, ("v1 - v2", "late - none")),
        (claims.EARLY_BN, ("v1_bn - late_bn", "v2_bn - none_bn")),
    ):
        simple = [c for c in claims.SIMPLE if c.formula in pairs]
        values = [per_seed(table, contrast, SPEED) for contrast in simple]
        assert np.mean(values, axis=0) == pytest.approx(per_seed(table, effect, SPEED))


def test_the_ratio_of_epochs_is_of_sums_over_cells(runs, table):
    found = per_seed(table, claims.WITHOUT_BN, EPOCHS_RATIO)
    for value, seed in zip(found, range(47, 57), strict=True):
        epochs = {v: epochs_to(99)(runs[v, seed]) for v in VARIANTS}
        above = epochs["none"] + epochs["v2"] + epochs["late"] + epochs["v1"]
        below = epochs["none_bn"] + epochs["v2_bn"] + epochs["late_bn"] + epochs["v1_bn"]
        assert exp(value) == pytest.approx(above / below)


# --- the published numbers ------------------------------------------------------------------------


def test_the_quoted_numbers_are_the_protocols():
    expected = [[2, 4], [4, 2, 1.5], [0.17], [99.55, 99.36, 99.38], [3.09, 93.59, 96.68]]
    for claim, numbers in zip(CLAIMS, expected, strict=True):
        assert [quoted.number() for quoted in claim.quoted] == pytest.approx(numbers)


def test_a_claim_quotes_its_numbers():
    texts = [str(claim) for claim in CLAIMS]
    assert "2 to 4 epochs" in texts[0] and "4 times" in texts[1] and "0.17 points" in texts[2]
    assert [quoted.text() for quoted in CLAIMS[1].quoted] == [
        "4 times",
        "8 / 4 = 2 times",
        "6 / 4 = 1.5 times",
    ]


def test_the_logs_are_the_publications():
    assert [LOGS[v].epochs[0]["test_accuracy"] for v in THREE] == [96.68, 93.59, 98.76]
    assert LOGGED[EPOCHS.name].iloc[0].to_dict() == {"v2": 8, "v1": 8, "final": 5}
    expected = [[0, 3], [4, 1.6, 1.6], [0.18], [99.50, 99.34, 99.32], [3.09, 93.59, 96.68]]
    for claim, numbers in zip(CLAIMS, expected, strict=True):
        assert [quoted.number(LOGGED) for quoted in claim.quoted] == pytest.approx(numbers)


def test_final_as_run_is_v2_with_batch_normalization():
    made = made_up_study(setting="as run", mistakes=False)
    found = measured(made)
    assert found[ACCURACY.name, "final"].equals(found[ACCURACY.name, "v2_bn"])
    contrast = per_seed(found, difference("final", "v1"), ACCURACY)
    expected = [made["v2_bn", s].final_accuracy - made["v1", s].final_accuracy for s in SEEDS]
    assert contrast == pytest.approx(expected)
