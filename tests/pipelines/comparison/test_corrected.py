"""Intervals that hold for all configurations that were evaluated on a test set, so also for the chosen one."""

import numpy as np
import pytest
from scipy import stats

from pipelines.comparison.corrected import binomial_interval, corrected_interval

VALUES = (0.95, 0.97, 0.96)


def test_for_one_configuration_and_no_accuracy_it_is_students_interval():
    assert corrected_interval(VALUES, 1) == pytest.approx(stats.t.interval(0.95, 2, 0.96, stats.sem(VALUES)))


def test_for_k_configurations_all_hold_at_once_if_each_has_the_level_of_sidak():
    expected = stats.t.interval(0.95 ** (1 / 50), 2, 0.96, stats.sem(VALUES))
    assert corrected_interval(VALUES, 50) == pytest.approx(expected)
    assert corrected_interval(VALUES, 50, bounds=(0.0, 1.0)) == (pytest.approx(expected[0]), 1.0)


def test_for_one_network_it_is_the_exact_binomial_interval():
    exact = stats.binomtest(342, 360).proportion_ci(0.95 ** (1 / 12), "exact")
    assert corrected_interval([0.95], 12, 360, (0.0, 1.0)) == pytest.approx(exact)


@pytest.mark.parametrize("count", [0, 1, 359, 360])
def test_the_binomial_interval_is_exact_at_its_ends_too(count):
    exact = stats.binomtest(count, 360).proportion_ci(0.99, "exact")
    assert binomial_interval(count / 360, 360, 0.99) == pytest.approx(exact)


def test_seeds_that_agree_leave_the_error_of_the_test_set():
    assert corrected_interval([0.95] * 3, 12, 360) == pytest.approx(corrected_interval([0.95], 12, 360))


def test_the_distances_of_both_errors_are_added_in_quadrature():
    (seeds, _), (examples, _) = corrected_interval(VALUES, 5), corrected_interval([0.96], 5, 360)
    low, _ = corrected_interval(VALUES, 5, 360)
    assert (0.96 - low) ** 2 == pytest.approx((0.96 - seeds) ** 2 + (0.96 - examples) ** 2)


def test_a_single_value_of_a_loss_has_no_interval():
    assert corrected_interval([0.2], 5) is None


def test_the_best_of_50_equal_networks_chosen_on_test_is_covered_where_the_usual_interval_fails():
    """360 test examples, of which each network classifies each correctly with 0.95."""
    best = np.random.default_rng(5).binomial(360, 0.95, (400, 50)).max(1) / 360
    usual = [stats.binomtest(round(share * 360), 360).proportion_ci(0.95, "exact") for share in best]
    corrected = [corrected_interval([share], 50, 360) for share in best]
    assert np.mean([low <= 0.95 <= high for low, high in corrected]) >= 0.95
    assert np.mean([low <= 0.95 <= high for low, high in usual]) < 0.6


def test_the_best_of_50_equal_configurations_is_covered_over_seeds_and_test_sets():
    """Three seeds. 360 test examples are drawn anew each time; some are easy, some are hard for all networks."""
    generator, covered, usual = np.random.default_rng(6), [], []
    for _ in range(300):
        easy, fair = generator.multinomial(360, [0.9, 0.08, 0.02])[:2]
        right = generator.binomial(easy, 0.99, (50, 3)) + generator.binomial(fair, 0.6, (50, 3))
        values = max((right / 360).tolist(), key=sum)
        low, high = corrected_interval(values, 50, 360)
        covered.append(low <= 0.9 * 0.99 + 0.08 * 0.6 <= high)
        low, high = corrected_interval(values, 1)
        usual.append(low <= 0.9 * 0.99 + 0.08 * 0.6 <= high)
    assert np.mean(covered) >= 0.95
    assert np.mean(usual) < 0.75
