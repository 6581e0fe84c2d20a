"""How often the rules are wrong, in simulations. benchmarks/verdicts.py has more of them."""

import numpy as np
import pytest

from benchmarks.verdicts import NUMBERS, SPREADS, false_discoveries, judge_accuracies, judge_values
from sweeps.reproduction.rules import CONTRADICTED, EXCEEDED, REPRODUCED, UNDECIDED, default_margin

PATHS = 1000
SLACK = 3 * np.sqrt(0.05 * 0.95 / PATHS)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def others(words):
    return (words[EXCEEDED] + words[CONTRADICTED]) / words.total()


@pytest.mark.parametrize("n", NUMBERS)
def test_of_networks_that_differ_by_the_margin_at_most_5_percent_are_called_reproduced(generator, n):
    for spread in SPREADS:
        words = judge_values(generator, n, spread, 1.0, PATHS)
        assert words[REPRODUCED] / PATHS <= 0.05, spread


@pytest.mark.parametrize("spread", [spread for spread in SPREADS if spread >= 0.5])
def test_three_runs_with_a_spread_of_half_the_margin_or_more_are_mostly_undecided(generator, spread):
    for noisy in (False, True):
        assert judge_values(generator, 3, spread, 0.0, PATHS, noisy=noisy)[UNDECIDED] > 0.6 * PATHS


@pytest.mark.parametrize("n", NUMBERS)
def test_of_networks_with_the_published_value_less_than_5_percent_are_called_other(generator, n):
    for spread in SPREADS:
        assert others(judge_values(generator, n, spread, 0.0, PATHS)) < 0.05
        one_run = judge_values(generator, n, spread, 0.0, PATHS, noisy=True)
        assert others(one_run) < 0.05 + SLACK, "the published value is a draw, too"


def test_enough_runs_decide(generator):
    assert judge_values(generator, 10, 0.5, 0.0, PATHS)[REPRODUCED] > 0.95 * PATHS
    assert judge_values(generator, 10, 0.5, 3.0, PATHS)[CONTRADICTED] > 0.95 * PATHS
    assert judge_values(generator, 10, 0.5, -3.0, PATHS)[EXCEEDED] > 0.95 * PATHS


@pytest.mark.parametrize("drawn_anew", [False, True])
def test_another_test_set_does_not_make_equal_networks_different(generator, drawn_anew):
    for n in (3, 10):
        words = judge_accuracies(generator, n, 200, PATHS, drawn_anew=drawn_anew)
        assert others(words) < 0.05 + SLACK


@pytest.mark.parametrize("paired", [False, True])
def test_of_the_decided_comparisons_of_a_page_at_most_5_percent_are_wrong(generator, paired):
    wrong, found = false_discoveries(generator, 10, 10, 10, 100, paired=paired)
    assert wrong < 0.05
    assert found > 0.3


def test_the_default_margin_is_a_quarter_of_the_published_error_or_loss():
    assert default_margin("test/acc", 0.98) == pytest.approx(0.005)
    assert default_margin("test/loss", 0.4) == pytest.approx(0.1)
