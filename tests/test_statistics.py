"""Each statistic against a table, a definition, brute force, or a simulation of known truth."""

import itertools
import statistics
from math import isnan, log, sqrt

import numpy as np
import pytest
from scipy import stats

from helpers.statistics import (
    pigeonhole,
    prediction_interval,
    sign_flip_test,
    summarise,
    t_test,
    tost,
    welch,
    welch_ratio,
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
    found = summarise(values)
    half = T_TABLE[freedom] * statistics.stdev(values) / sqrt(len(values))
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.sd == pytest.approx(statistics.stdev(values))
    assert found.high - found.mean == pytest.approx(half, rel=1e-3)
    assert found.mean - found.low == pytest.approx(half, rel=1e-3)


def test_the_interval_of_ten_covers_the_mean_19_times_in_20(generator):
    found = map(summarise, generator.normal(99.4, 0.05, (DRAWS, 10)))
    covered = share(low <= 99.4 <= high for *_, low, high in found)
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


def test_no_interval_is_made_of_one_value_or_none():
    one, none = summarise([99.4]), summarise([])
    assert one[:2] == (1, 99.4) and isnan(one.sd) and isnan(one.low) and isnan(one.high)
    assert none.n == 0 and isnan(none.mean)


def test_the_prediction_interval_of_ten_covers_an_eleventh_19_times_in_20(generator):
    draws = generator.normal(99.4, 0.05, (DRAWS, 11))
    ends = [prediction_interval(of[:10]) for of in draws]
    covered = share(low <= of[10] <= high for of, (low, high) in zip(draws, ends, strict=True))
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


@pytest.mark.parametrize("null", [0, 99.4])
def test_the_t_test_is_on_the_edge_where_the_interval_is(null):
    """A mean of t(0.975, 9) standard errors has p = 0.05."""
    values = spread_out(null + T_TABLE[9] * 2 / sqrt(10), sd=2)
    assert t_test(values, null) == pytest.approx(0.05, abs=1e-4)
    assert t_test(2 * null - values, null) == pytest.approx(0.05, abs=1e-4)


def test_values_that_are_all_the_same_differ_from_any_other_number():
    assert t_test([3.0] * 10, 3) == 1 and t_test([3.0] * 10, 2) == 0
    assert tost([3.0] * 10, 1.1, 2) == 0 and tost([3.0] * 10, 1.0, 2) == 1


# --- sign flips, equivalence ----------------------------------------------------------------------


@pytest.mark.parametrize("values", [[0.3, -0.1, 0.25, 0.6, 0.05], [1, 1, -2, 3, 0, 4], [1, -1]])
def test_the_sign_flip_test_is_the_share_of_patterns_that_are_as_extreme(values):
    means = [
        abs(np.mean(np.multiply(values, signs)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = np.mean([mean >= abs(np.mean(values)) - 1e-12 for mean in means])
    assert sign_flip_test(values) == pytest.approx(expected)
    assert sign_flip_test(np.add(values, 7), null=7) == pytest.approx(expected)


@pytest.mark.parametrize("n", [10, 15])
def test_values_of_one_sign_are_two_of_all_patterns(n):
    assert sign_flip_test(np.arange(1, n + 1)) == pytest.approx(2 / 2**n)


@pytest.mark.parametrize("null", [0, 99.4])
@pytest.mark.parametrize("side", [1, -1])
def test_equivalence_is_on_the_edge_where_the_90_percent_interval_is(null, side):
    inside = 0.10 - T_95 * 0.05 / sqrt(10)
    values = spread_out(null + side * inside, sd=0.05)
    assert tost(values, 0.10, null) == pytest.approx(0.05, abs=2e-4)
    assert tost(values - side * 0.001, 0.10, null) < 0.05 < tost(values + side * 0.001, 0.10, null)


def test_an_effect_as_large_as_the_margin_is_called_equivalent_once_in_20(generator):
    found = share(tost(of, 0.10) < 0.05 for of in generator.normal(0.10, 0.02, (DRAWS, 10)))
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
    assert welch([one, other], [1, -1]) == pytest.approx(tuple(expected))


def test_welch_covers_a_contrast_of_unequal_cells_19_times_in_20(generator):
    weights = (0.5, 0.5, -0.5, -0.5)
    cells = [generator.normal(k, sd, (DRAWS, 10)) for k, sd in enumerate((0.2, 1, 3, 0.5))]
    truth = sum(weight * k for k, weight in enumerate(weights))
    ends = [welch(of, weights) for of in zip(*cells, strict=True)]
    covered = share(low <= truth <= high for low, high in ends)
    assert covered == pytest.approx(0.95, abs=four_errors(0.95))


def test_welch_covers_a_ratio_19_times_in_20(generator):
    """Of means over two cells and over one; to first order, so that some more is allowed."""
    cells = [generator.normal(mean, 2, (DRAWS, 10)) for mean in (12, 18, 6)]
    ends = [welch_ratio((a, b), (c,)) for a, b, c in zip(*cells, strict=True)]
    covered = share(low <= log(15 / 6) <= high for low, high in ends)
    assert covered == pytest.approx(0.95, abs=0.02)


def test_cells_without_spread_have_an_interval_without_width():
    assert welch([[2.0, 2.0], [1.0, 1.0]], [1, -1]) == (1, 1)


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
