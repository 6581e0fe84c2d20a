"""The rule of `litlab decide`: how often it is wrong whenever it stops, and how many seeds it needs."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.decide import DISTRIBUTIONS, simulate, wrong
from sweeps.decide.levels import FIRST, LARGEST, LEVELS, TOTAL, level_of, looks_until
from sweeps.decide.rule import EQUAL, HIGHER, LOWER, UNDECIDED, conclusions, look, repeated_interval

PATHS = 10_000
SLACK = 3 * np.sqrt(TOTAL * (1 - TOTAL) / PATHS)  # of a share of the paths


@pytest.fixture
def normal():
    """Normal differences with standard deviation 1."""
    generator = np.random.default_rng(7)
    return lambda mean, maximum, paths=PATHS: mean + generator.standard_normal((paths, maximum))


def test_it_looks_after_the_seeds_that_are_documented():
    assert looks_until(14) == [3, 4, 5, 6, 8, 10, 12, 14]
    assert looks_until(7) == [3, 4, 5, 6, 7]
    assert looks_until(3) == [3]
    assert len(LEVELS) == LARGEST - FIRST + 1
    assert list(LEVELS) == sorted(LEVELS, reverse=True), "more looks need a smaller level"
    assert level_of(14) == pytest.approx(0.0107, abs=0.0001), "that of issue 24"


def test_the_interval_of_a_look_is_that_of_a_t_test_at_its_level(normal):
    values = normal(0.3, 8, 1)[0]
    low, high = repeated_interval(values, 0.0107)
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.0107)
    assert (low, high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("maximum", [3, 7, 14, 30])
def test_equal_configurations_are_called_different_in_at_most_5_percent_of_the_decisions(normal, maximum):
    words, _ = simulate(normal(0.0, maximum), 1e-9, maximum)
    share = wrong(words, 0.0, 1e-9)
    assert share <= TOTAL + SLACK
    assert share >= TOTAL - SLACK, "the levels use up the total error"


@pytest.mark.parametrize("margin", [0.2, 1.0, 3.0])
def test_a_difference_of_exactly_the_margin_is_called_equal_or_worse_in_at_most_5_percent(normal, margin):
    for mean in (margin, -margin):
        words, _ = simulate(normal(mean, 30), margin, 30)
        assert wrong(words, mean, margin) <= TOTAL / 2 + SLACK


@pytest.mark.parametrize(("effect", "seeds"), [(1, 9.8), (2, 5.4), (3, 4.2)])
def test_it_has_the_power_of_ten_seeds_with_fewer_of_them(normal, effect, seeds):
    """The numbers are those of issue 24; a t-test with ten pairs has power 0.80 at one standard deviation."""
    words, pairs = simulate(normal(effect, 14), 1e-9, 14)
    assert pairs.mean() == pytest.approx(seeds, abs=0.15)
    assert (words == HIGHER).mean() >= 0.79


def test_equality_within_a_margin_of_two_standard_deviations_is_found_with_seven_seeds(normal):
    words, pairs = simulate(normal(0.0, 30), 2.0, 30)
    assert (words == EQUAL).mean() > 0.95
    assert pairs.mean() < 7


def test_an_interval_within_the_margin_means_equal_even_without_zero_in_it():
    low, high = np.array([0.1, -0.2, 0.1, -0.9, -0.3]), np.array([0.3, 0.2, 0.6, -0.1, 0.6])
    assert conclusions(low, high, 0.5).tolist() == [EQUAL, EQUAL, HIGHER, LOWER, UNDECIDED]


@pytest.mark.parametrize("difference", [0.0, 0.005, 0.01, -0.02])
def test_equal_differences_tell_nothing_before_the_sign_test_does(difference):
    values = np.array([0.91, 0.92, 0.9, 0.93, 0.95, 0.9, 0.94, 0.92])
    expected = {0.0: EQUAL, 0.005: HIGHER, 0.01: HIGHER, -0.02: LOWER}[difference]  # 0.005 is the margin
    for n in (3, 7):
        early = look(values[:n] + difference, values[:n], 0.005, 0.0107)
        assert (early.conclusion, early.low) == (UNDECIDED, -np.inf)
    assert look(values + difference, values, 0.005, 0.0107).conclusion == expected


def test_runs_that_agree_in_all_that_they_measured_are_equal_at_the_first_look():
    values = np.array([0.91, 0.92, 0.9])
    assert look(values, values, 1e-6, 0.01, same=True).conclusion == EQUAL


def test_intervals_of_folds_are_wider_by_the_examples_that_they_share(normal):
    values = normal(0.0, 5, 1)[0]
    usual, wider = (np.subtract(*repeated_interval(values, 0.01, overlap)[::-1]) for overlap in (0, 1 / 4))
    assert wider == pytest.approx(usual * np.sqrt((1 / 5 + 1 / 4) * 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name != "exponential (skewed)"])
def test_it_is_seldom_wrong_with_other_symmetric_distributions(name):
    """Heavy tails make it cautious. With light tails three values often lie close together: up to 8 % are wrong."""
    generator = np.random.default_rng(8)
    for mean, margin in ((0.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0)):
        differences = mean + DISTRIBUTIONS[name](generator, (40_000, 30))
        assert wrong(simulate(differences, margin, 30)[0], mean, margin) < (0.09 if name == "uniform" else 0.053)


@pytest.mark.slow
def test_every_level_has_the_total_error():
    generator = np.random.default_rng(9)
    for maximum in (4, 5, 6, 9, 20, 50, 100):
        words, _ = simulate(generator.standard_normal((40_000, maximum)), 1e-9, maximum)
        assert wrong(words, 0.0, 1e-9) == pytest.approx(TOTAL, abs=0.004)
