"""Each statistic against a table, a definition, brute force, or a simulation of known truth."""

import itertools
import operator
import statistics
from fractions import Fraction
from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from study.statistics import (
    Estimate,
    estimate,
    holm,
    pigeonhole,
    prediction_interval,
    runs_needed,
    sign_flip_test,
    weighted,
    wilson,
)

# The 97.5 % points of Student's t as printed tables have them, by degrees of freedom.
T_TABLE = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}
T_95 = 1.833  # the 95 % point, for 9
DRAWS = 2000


def spread_out(mean, sd, n=10):
    """n values with just this mean and standard deviation."""
    values = np.arange(n) ** 1.5
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def share(holds):
    """How often something held, of DRAWS."""
    return sum(holds) / DRAWS


def four_errors(p):
    """Four standard errors of a share of DRAWS that is expected to be p."""
    return 4 * sqrt(p * (1 - p) / DRAWS)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


# --- Student --------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", T_TABLE)
def test_the_interval_is_students(freedom):
    values = [99 + (7 * k % 5) / 10 for k in range(freedom + 1)]
    mean, low, high = estimate(values).ends()
    half = T_TABLE[freedom] * statistics.stdev(values) / sqrt(len(values))
    assert mean == pytest.approx(statistics.fmean(values))
    assert high - mean == pytest.approx(half, rel=1e-3)
    assert mean - low == pytest.approx(half, rel=1e-3)


def test_the_interval_of_ten_covers_the_mean_19_times_in_20(generator):
    found = map(estimate, generator.normal(99.4, 0.05, (DRAWS, 10)))
    covered = share(low <= 99.4 <= high for _, low, high in map(Estimate.ends, found))
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


def test_no_interval_is_made_of_one_value_or_none():
    one, none = estimate([99.4]).ends(), estimate([]).ends()
    assert one[0] == 99.4 and all(map(isnan, (*one[1:], *none)))


def test_the_prediction_interval_of_ten_covers_an_eleventh_19_times_in_20(generator):
    draws = generator.normal(99.4, 0.05, (DRAWS, 11))
    ends = [prediction_interval(of[:10]) for of in draws]
    covered = share(low <= of[10] <= high for of, (low, high) in zip(draws, ends, strict=True))
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


@pytest.mark.parametrize("null", [0, 99.4])
def test_the_t_test_is_on_the_edge_where_the_interval_is(null):
    """A mean of t(0.975, 9) standard errors has p = 0.05."""
    values = spread_out(null + T_TABLE[9] * 2 / sqrt(10), sd=2)
    assert estimate(values).p(null) == pytest.approx(0.05, abs=1e-4)
    assert estimate(2 * null - values).p(null) == pytest.approx(0.05, abs=1e-4)


def test_values_that_are_all_the_same_differ_from_any_other_number():
    found = estimate([3.0] * 10)
    assert (found.p(3), found.p(2)) == (1, 0) and found.interval() == (3, 3)
    assert (found.equivalence(1.1, 2), found.equivalence(1.0, 2)) == (0, 1)


# --- sign flips, equivalence ----------------------------------------------------------------------

# Differences of accuracies, as texts: with ties between the sums of many patterns.
DIFFERENCES = [
    "0.02 -0.07 0.01 0.05 0.05 -0.03 -0.15 0.03 0.11 0.01",
    "-0.03 0.04 -0.12 -0.21 0.02 -0.04 -0.18 -0.08 0 0.03",
    "0.1 0.2 -0.3 0.3 -0.1",
    "0.3 -0.1 0.25 0.6 0.05",
    "1 -1",
]


@pytest.mark.parametrize("texts", DIFFERENCES)
@pytest.mark.parametrize("null", ["0", "99.4"])
def test_the_sign_flip_test_is_exact_where_sums_are_tied(texts, null):
    """Against rational numbers, of which equal ones are equal."""
    exact = [Fraction(text) for text in texts.split()]
    sums = [
        abs(sum(map(operator.mul, exact, signs)))
        for signs in itertools.product((1, -1), repeat=len(exact))
    ]
    expected = Fraction(sum(found >= abs(sum(exact)) for found in sums), len(sums))
    values = [float(Fraction(null) + value) for value in exact]
    assert sign_flip_test(values, float(null)) == expected


@pytest.mark.parametrize("n", [10, 15])
def test_values_of_one_sign_are_two_of_all_patterns(n):
    assert sign_flip_test(np.arange(1, n + 1)) == pytest.approx(2 / 2**n)


@pytest.mark.parametrize("null", [0, 99.4])
@pytest.mark.parametrize("side", [1, -1])
def test_equivalence_is_on_the_edge_where_the_90_percent_interval_is(null, side):
    inside = 0.10 - T_95 * 0.05 / sqrt(10)
    values = spread_out(null + side * inside, sd=0.05)
    assert estimate(values).equivalence(0.10, null) == pytest.approx(0.05, abs=2e-4)
    inner, outer = (estimate(values + side * d).equivalence(0.10, null) for d in (-0.001, 0.001))
    assert inner < 0.05 < outer


def test_t_test_and_equivalence_are_those_of_scipy_and_statsmodels(generator):
    values = generator.normal(0.05, 0.1, 10)
    assert estimate(values).p(0.01) == pytest.approx(stats.ttest_1samp(values, 0.01).pvalue)
    expected = DescrStatsW(values).ttost_mean(-0.09, 0.11)[0]
    assert estimate(values).equivalence(0.10, 0.01) == pytest.approx(expected)


def test_an_effect_as_large_as_the_margin_is_called_equivalent_once_in_20(generator):
    draws = generator.normal(0.10, 0.02, (DRAWS, 10))
    found = share(estimate(of).equivalence(0.10) < 0.05 for of in draws)
    assert found == pytest.approx(0.05, abs=four_errors(0.05))


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (45, 90)])
def test_wilsons_ends_are_the_shares_from_which_the_count_is_just_as_far(count, n):
    """|count / n - p| = 1.96 sqrt(p (1 - p) / n), at both ends (Wilson 1927)."""
    low, high = wilson(count, n)
    for p in (low, high):
        assert abs(count / n - p) == pytest.approx(1.959964 * sqrt(p * (1 - p) / n), abs=1e-6)
    assert 0 <= low <= count / n <= high <= 1


def test_wilsons_interval_covers_about_19_shares_in_20():
    """The exact coverage at n = 10, averaged over shares."""
    counts = np.arange(11)
    low, high = np.transpose([wilson(count, 10) for count in counts])
    shares = np.linspace(0.01, 0.99, 99)
    covered = [stats.binom.pmf(counts, 10, p)[(low <= p) & (p <= high)].sum() for p in shares]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


# --- Welch ----------------------------------------------------------------------------------------


def test_welch_of_two_cells_is_the_textbooks(generator):
    one, other = generator.normal(0, 1, 10), generator.normal(0.5, 3, 7)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert weighted([one, other], [1, -1]).interval() == pytest.approx(tuple(expected))


def test_welch_covers_a_contrast_of_unequal_cells_19_times_in_20(generator):
    weights = (0.5, 0.5, -0.5, -0.5)
    cells = [generator.normal(k, sd, (DRAWS, 10)) for k, sd in enumerate((0.2, 1, 3, 0.5))]
    truth = sum(weight * k for k, weight in enumerate(weights))
    ends = [weighted(of, weights).interval() for of in zip(*cells, strict=True)]
    covered = share(low <= truth <= high for low, high in ends)
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


def test_cells_without_spread_have_an_interval_without_width():
    assert weighted([[2.0, 2.0], [1.0, 1.0]], [1, -1]).interval() == (1, 1)


# --- many tests, many runs ------------------------------------------------------------------------


def test_holm_multiplies_the_smallest_by_five_and_the_next_by_four():
    found = holm([0.04, 0.001, 0.02, 0.03, 0.5])
    assert found == pytest.approx([0.09, 0.005, 0.08, 0.09, 0.5])


@pytest.mark.parametrize("n", [1, 5, 8])
def test_holm_is_statsmodels(generator, n):
    p_values = generator.uniform(0, 0.3, n).round(2)  # with ties
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())
    assert holm([0.0] * n) == [0.0] * n and holm([1.0] * n) == [1.0] * n


@pytest.mark.parametrize(("d", "n"), [(1.0, 17), (0.5, 64), (0.2, 394)])
def test_the_runs_needed_are_those_of_the_textbooks_table(d, n):
    """Cohen 1988, table 2.4.1: 80 % power, two-sided 0.05, by standardized difference."""
    one, other = spread_out(99.4, 0.1), spread_out(99.4 + 0.1 * d, 0.1)
    assert runs_needed(one, other) == runs_needed(other, one) == n


def test_where_more_runs_are_needed_than_anyone_has_none_is_said():
    assert runs_needed(spread_out(99.4, 0.1), spread_out(99.4, 0.1)) is None
    assert runs_needed(spread_out(99.4, 0.1), spread_out(99.5, 0.1), most=16) is None


# --- bootstrap ------------------------------------------------------------------------------------


def test_the_bootstrap_draws_rows_and_columns_independently(generator):
    """Against all 4**4 * 4**4 ways of drawing them."""
    table = generator.integers(0, 10, (4, 4)).astype(float)
    draws = np.array(list(itertools.product(range(4), repeat=4)))
    counts = np.stack([(draws == k).sum(axis=1) for k in range(4)], axis=1) / 4
    means = counts @ table @ counts.T
    expected = np.percentile(means, (2.5, 97.5))
    [found] = pigeonhole(table[None])
    assert found == pytest.approx(expected, abs=0.1)  # of a range of about 6
    assert np.ptp(means) > 5


def test_the_bootstraps_interval_has_the_variance_of_both_ways(generator):
    """Of a sum of row and column effects it is var(rows) / rows + var(columns) / columns."""
    rows, columns = generator.normal(0, 1, 40), generator.normal(0, 2, 60)
    tables = np.stack([rows[:, None] + columns, 0 * rows[:, None] + columns])
    (low, high), (low_columns, high_columns) = pigeonhole(tables)
    error, of_columns = sqrt(rows.var() / 40 + columns.var() / 60), sqrt(columns.var() / 60)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert high_columns - low_columns == pytest.approx(2 * 1.96 * of_columns, rel=0.05)


def test_the_bootstrap_is_the_same_every_time_and_for_tables_with_columns_of_zeros(generator):
    table = np.zeros((1, 10, 500))
    table[:, :, :20] = generator.integers(-1, 2, (1, 10, 20))
    assert pigeonhole(table, 200) == pigeonhole(table, 200) != pigeonhole(table, 200, seed=1)
    [(low, high)], [shifted] = pigeonhole(table, 200), pigeonhole(table + 3, 200)
    assert shifted == pytest.approx((low + 3, high + 3))


def test_the_bootstrap_draws_as_often_as_the_protocol_says():
    table = np.random.default_rng(0).normal(size=(1, 4, 6))
    assert pigeonhole(table) == pigeonhole(table, draws=10_000, seed=0)
