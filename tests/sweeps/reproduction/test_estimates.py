"""Intervals and p-values agree with scipy's tests, on known numbers."""

import math

import pytest
from scipy import stats

from sweeps.reproduction.estimates import (
    adjusted_p_values,
    binomial_variance,
    estimate_difference,
    estimate_mean,
)
from sweeps.reproduction.measurements import Deterministic

FIVE = {"0": 0.90, "1": 0.91, "2": 0.92, "3": 0.93, "4": 0.94}
OTHER = {"0": 0.95, "1": 0.89, "2": 0.97, "3": 0.91}


def test_the_interval_of_a_mean_and_its_p_value_are_those_of_a_t_test():
    expected = stats.ttest_1samp(list(FIVE.values()), 0.9)
    estimate = estimate_mean(FIVE)
    assert estimate.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert estimate.p_value(0.9) == pytest.approx(expected.pvalue)


def test_the_value_of_one_more_run_varies_by_the_spread_and_by_the_error_of_the_mean():
    half = stats.t.ppf(0.975, 4) * stats.tstd(list(FIVE.values())) * math.sqrt(1 + 1 / 5)
    assert estimate_mean(FIVE).one_more_run().interval == pytest.approx((0.92 - half, 0.92 + half))


def test_differences_in_pairs_are_those_of_a_paired_t_test_over_the_seeds_of_both_sides():
    difference = estimate_difference(FIVE, OTHER, paired=True)
    expected = stats.ttest_rel(list(FIVE.values())[:4], list(OTHER.values()))
    assert (difference.n, difference.paired) == (4, True)
    assert difference.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert difference.p_value(0) == pytest.approx(expected.pvalue)


def test_other_differences_are_those_of_welchs_test_over_all_runs():
    difference = estimate_difference(FIVE, OTHER, paired=False)
    expected = stats.ttest_ind(list(FIVE.values()), list(OTHER.values()), equal_var=False)
    assert difference.freedom == pytest.approx(expected.df)
    assert difference.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert difference.p_value(0) == pytest.approx(expected.pvalue)


def test_two_seeds_are_not_compared_in_pairs_whose_differences_can_be_equal_by_chance():
    one, two = {"0": 0.90, "1": 0.91}, {"0": 0.91, "1": 0.92}
    difference = estimate_difference(one, two, paired=True)
    assert not difference.paired
    assert difference.interval[0] < 0 < difference.interval[1]


def test_a_deterministic_method_adds_no_error_to_a_difference():
    difference = estimate_difference(FIVE, Deterministic({"0": 0.5}), paired=False)
    assert difference.interval == pytest.approx(tuple(end - 0.5 for end in estimate_mean(FIVE).interval))
    exact = estimate_difference(Deterministic({"0": 0.6}), Deterministic({"0": 0.5}), paired=False)
    assert (exact.error, exact.interval) == (0, (pytest.approx(0.1), pytest.approx(0.1)))


def test_one_run_has_no_spread():
    assert estimate_mean({"0": 0.9}) is None
    assert estimate_difference(FIVE, {"0": 0.9}, paired=True) is None


def test_a_further_source_of_error_widens_the_interval():
    estimate = estimate_mean(FIVE)
    assert estimate.with_variance(0).interval == pytest.approx(estimate.interval)
    assert estimate.with_variance(0.1**2).error == pytest.approx(math.hypot(estimate.error, 0.1))
    only = estimate_mean(Deterministic({"0": 0.9})).with_variance(0.1**2)
    assert only.interval == pytest.approx((0.9 - 0.196, 0.9 + 0.196), abs=0.001)


def test_an_accuracy_on_n_examples_has_the_variance_of_a_proportion():
    assert binomial_variance(0.9, 100) == pytest.approx(0.03**2)
    assert binomial_variance(1.2, 100) == binomial_variance(0.9, 0) == 0


def test_p_values_are_adjusted_for_their_number():
    assert adjusted_p_values([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.9])
    assert adjusted_p_values([]) == []
