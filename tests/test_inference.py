"""Estimates, tests and words against scipy, hand calculation and the committed report."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.publication import published_log
from study import inference
from study.inference import (
    INCONCLUSIVE,
    NEGLIGIBLE,
    NO_EFFECT,
    OPPOSITE,
    SHOWN,
    between_settings,
    claim_p,
    curve_rank,
    estimate,
    estimates,
    holm,
    pair_test,
    prediction_interval,
    reproduction,
    sign_flip_test,
    verdicts,
    welch,
    word,
)
from study.protocol import BN, CLAIMS, CONTRASTS, LATE, MEASURES, WITHOUT_BN, Part, contrast, wide
from study.table import load
from tests.helpers import PROJECT

VALUES = np.array([0.3, -0.1, 0.2, 0.25, 0.05, 0.4, 0.0, 0.15])


@pytest.fixture(scope="module")
def tables():
    return load(PROJECT / "results")


@pytest.fixture(scope="module")
def frame(tables):
    return estimates(tables)


def test_an_estimate_is_students():
    result = stats.ttest_1samp(VALUES, 0)
    mean = estimate(VALUES)
    assert mean.p() == pytest.approx(result.pvalue)
    assert mean.interval() == pytest.approx(tuple(result.confidence_interval()))
    assert mean.interval(0.9) == pytest.approx(tuple(result.confidence_interval(0.9)))
    assert estimate([1.0, 1.0]).p(1.0) == 1 and estimate([1.0, 1.0]).p() == 0


def test_a_difference_of_samples_is_welchs():
    other = np.array([0.9, 0.1, 0.7, 0.2, 0.5])
    result = stats.ttest_ind(VALUES, other, equal_var=False)
    difference = welch([VALUES, other], [1, -1])
    assert difference.p() == pytest.approx(result.pvalue)
    assert difference.freedom == pytest.approx(result.df)
    assert difference.interval() == pytest.approx(tuple(result.confidence_interval()))


def test_within_the_margin_is_two_one_sided_tests():
    for margin in (0.1, 0.2, 0.25, 0.28, 0.3):
        low = stats.ttest_1samp(VALUES, -margin, alternative="greater").pvalue
        high = stats.ttest_1samp(VALUES, margin, alternative="less").pvalue
        assert estimate(VALUES).within(margin) == (max(low, high) < 0.05), margin


def test_the_prediction_interval_holds_one_more_value_in_95_percent():
    draws = np.random.default_rng(0).normal(5, 2, (4000, 11))
    ends = np.array([prediction_interval(row[:10]) for row in draws])
    half = stats.t.ppf(0.975, 7) * VALUES.std(ddof=1) * np.sqrt(1 + 1 / 8)
    assert prediction_interval(VALUES)[1] == pytest.approx(VALUES.mean() + half)
    share = np.mean((ends[:, 0] <= draws[:, 10]) & (draws[:, 10] <= ends[:, 1]))
    assert share == pytest.approx(0.95, abs=0.012)


def test_the_sign_flip_test_counts_ties_exactly():
    values = [0.1, 0.2, 0.3]  # sums of +-0.1 +-0.2 +-0.3: two of eight are as large as 0.6
    assert sign_flip_test(values) == 2 / 8
    values = [0.01 * n for n in (3, -1, 2, 2, 5, -4, 1, 3)]
    sums = [sum(s * round(100 * v) for s, v in zip(signs, values, strict=True))
            for signs in itertools.product((1, -1), repeat=8)]  # fmt: skip
    expected = np.mean([abs(total) >= 11 for total in sums])
    assert sign_flip_test(values) == expected == sign_flip_test(np.array(values) + 7, 7)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]


def test_the_margins_are_the_protocols():
    margins = {
        name: np.exp(m.margin) if name == "to_99" else m.margin for name, m in MEASURES.items()
    }
    assert margins == pytest.approx({"final": 0.10, "log_error": 0.135, "to_99": 8 / 6, "first": 1})


def test_contrasts_by_hand():
    names = ["none", "v2", "late", "v1", "none_bn", "v2_bn", "late_bn", "v1_bn", "final"]
    table = pd.DataFrame(
        [[8, 9, 10, 15, 5, 4, 6, 5, 3], [8, 8, 8, 8, 4, 4, 4, 4, 2]], columns=names
    )
    assert contrast(table, LATE, "final").tolist() == [(15 + 10 - 9 - 8) / 2, 0]
    assert contrast(table, WITHOUT_BN, "to_99") == pytest.approx(np.log([42 / 20, 2]))
    assert contrast(table, BN, "log_error").tolist() == [(20 - 42) / 4, -4]
    assert contrast(table, "v1 - final", "to_99") == pytest.approx(np.log([5, 4]))
    assert contrast(table, "final", "to_99").tolist() == [3, 2]


def test_final_of_the_original_setting_is_v2_with_batch_normalization(tables):
    table = wide(tables.of("original"), "final", "original")
    assert (table.final == table.v2_bn).all() and len(table) == 10
    record = json.loads((PROJECT / "results" / "as_run" / "v2_bn-53.json").read_text())
    assert table.loc[53, "final"] == record["epochs"][-1]["test_accuracy"]
    page = wide(tables.of("page"), "final", "page")
    assert (page.final != page.v2_bn).any()


def effect(mean, p, within):
    return pd.Series({"mean": mean, "p": p, "within": within})


ABOVE, BELOW = Part("a", "final", 1), Part("b", "final", -1, null=99.4)


@pytest.mark.parametrize(
    ("parts", "effects", "corrected", "expected"),
    [
        ([ABOVE], [effect(0.3, 0.001, False)], 0.004, SHOWN),
        ([ABOVE], [effect(0.05, 0.001, True)], 0.004, NEGLIGIBLE[SHOWN]),
        ([ABOVE], [effect(-0.3, 0.001, False)], 0.004, OPPOSITE),
        ([ABOVE], [effect(-0.05, 0.001, True)], 0.004, NEGLIGIBLE[OPPOSITE]),
        ([ABOVE], [effect(-0.3, 0.03, False)], 0.06, INCONCLUSIVE),  # the correction decides
        ([ABOVE], [effect(0.01, 0.7, True)], 1, NO_EFFECT),
        ([ABOVE, BELOW], [effect(0.3, 0.001, False), effect(99.2, 0.01, False)], 0.01, SHOWN),
        ([ABOVE, BELOW], [effect(0.3, 0.001, False), effect(99.5, 0.02, False)], 1, OPPOSITE),
        ([ABOVE, BELOW], [effect(0.3, 0.001, False), effect(99.5, 0.03, False)], 1, INCONCLUSIVE),
        ([ABOVE, BELOW], [effect(0.3, 0.001, False), effect(99.41, 0.4, True)], 1, NO_EFFECT),
    ],
)
def test_the_rules_of_the_words(parts, effects, corrected, expected):
    assert word(parts, effects, corrected) == expected


def test_a_claim_of_several_parts_is_as_uncertain_as_its_weakest():
    parts = [ABOVE, BELOW]
    assert claim_p(parts, [effect(0.3, 0.001, False), effect(99.2, 0.01, False)]) == 0.01
    assert claim_p(parts, [effect(0.3, 0.001, False), effect(99.5, 0.01, False)]) == 1
    assert claim_p([ABOVE], [effect(-0.3, 0.001, False)]) == 0.001


def test_the_committed_words_estimates_and_p_values(frame):
    """As the report of 29 November has them, digit by digit (results/archive/comparison.md)."""
    expected = {
        "page": [
            (0.833, NO_EFFECT, "1.01 [0.93, 1.09]"),
            (0.000, SHOWN, "1.62 [1.44, 1.82]"),
            (0.000, SHOWN, "+0.263 [+0.190, +0.336]"),
            (0.022, SHOWN, "+99.468 [+99.423, +99.513]"),
            (0.560, NO_EFFECT, "-0.31 [-0.92, +0.30]"),
        ],
        "original": [
            (0.976, NO_EFFECT, "1.02 [0.97, 1.07]"),
            (0.000, SHOWN, "2.14 [1.91, 2.40]"),
            (0.000, SHOWN, "+0.215 [+0.174, +0.256]"),
            (0.005, NEGLIGIBLE[SHOWN], "+99.473 [+99.447, +99.499]"),
            (0.976, NO_EFFECT, "-0.05 [-0.47, +0.37]"),
        ],
    }
    for setting, rows in expected.items():
        decided = verdicts(frame, setting)
        for number, (p, text, written) in enumerate(rows):
            row, part = decided.loc[number], CLAIMS[number].parts[0]
            assert (round(row.corrected, 3), row.word) == (p, text), (setting, number)
            numbers = frame.loc[setting, part.measure, part.formula]
            measure = MEASURES[part.measure]
            assert measure.write(numbers["mean"], numbers.low, numbers.high) == written
    mean, text = pair_test(frame)
    assert MEASURES["final"].write(mean.mean, *mean.interval()) == "-0.029 [-0.093, +0.035]"
    assert text == NO_EFFECT


def test_both_settings_side_by_side(frame):
    """Three contrasts of the claims are the same, one is not, six cannot be told apart."""
    between = between_settings(frame)
    parts = [(part.measure, part.formula) for claim in CLAIMS for part in claim.parts]
    words = [between.loc[part, "word"] for part in [*parts, ("final", "v1 - v2")]]
    counts = [words.count(w) for w in (inference.SAME, inference.NOT_SAME, inference.UNDECIDED)]
    assert counts == [3, 1, 6]
    row = between.loc[("to_99", WITHOUT_BN)]
    assert np.exp([row["mean"], row.low, row.high]).round(2).tolist() == [1.32, 1.13, 1.54]


def test_nothing_is_computed_before_the_last_run_is_in(tables):
    fewer = tables._replace(runs=tables.runs[tables.runs.run != "original/original_v1-50"])
    with pytest.raises(
        ValueError, match=r"1 of the 80 runs of original .*original_v1 with seed 50"
    ):
        estimates(fewer)
    assert {("page", "final", formula) for formula in CONTRASTS} <= set(estimates(tables).index)


def test_the_published_logs_are_reproduced_but_for_one_number(tables):
    table = reproduction(tables)
    outside = table[~table.inside.astype(bool)]
    assert len(table) == 18 and outside.index.tolist() == [("final", "first")]
    assert table.reproduced.all() and (table["rank"] < 11).all()
    assert table.loc[("final", "first"), "log"] == published_log("final")[0]["test_accuracy"]


def test_the_rank_of_a_curve():
    curves = np.array([[0.0, 0], [1, 1], [-1, -1], [5, 5]])
    assert curve_rank(curves) == 2  # the mean of the others is 1.67; [1, 1] is the nearest
    assert curve_rank(curves[::-1]) == 4
