"""Means, intervals and differences, compared with scipy and by simulation."""

import random

import pytest
from scipy import stats

from pipelines.comparison.intervals import paired_difference, summarize

VALUES = {"0": 0.9845, "1": 0.9865, "2": 0.9855, "3": 0.9851, "4": 0.9859}
REFERENCE = {"0": 0.9820, "1": 0.9827, "2": 0.9829, "3": 0.9833, "4": 0.9818}


def drawn(number: int, sizes: tuple[int, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Return two rows of values by seed, of unequal spread; the shorter row has the first seeds of the longer."""
    draw = random.Random(number)
    scale = 10 ** draw.uniform(-13, 3)
    values = {str(seed): scale * draw.gauss(5, 1) for seed in range(sizes[0])}
    return values, {str(seed): scale * draw.gauss(4, 3) for seed in range(sizes[1])}


def unpaired(values: dict[str, float]) -> dict[str, float]:
    return {f"run {key}": value for key, value in values.items()}


def test_the_interval_of_a_mean_on_known_numbers():
    """For 1, 2, 3 and t = 4.3027 (two degrees of freedom): 2 -+ 4.3027 / sqrt(3)."""
    found = summarize([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert found.ci95 == pytest.approx((-0.48414, 4.48414), abs=1e-5)


@pytest.mark.parametrize("number", range(10))
def test_the_interval_of_a_mean_agrees_with_scipy(number):
    values, _ = drawn(number, (2 + number, 2))
    found = summarize(list(values.values()))
    wanted = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=stats.sem(list(values.values())))
    assert found.ci95 == pytest.approx(wanted, rel=1e-9)


def test_a_single_value_has_a_mean_only():
    found = summarize([0.5])
    assert (found.mean, found.sd, found.n, found.ci95) == (0.5, None, 1, None)


def test_the_paired_difference_on_known_numbers_agrees_with_scipy():
    found = paired_difference(VALUES, REFERENCE)
    test = stats.ttest_rel(list(VALUES.values()), list(REFERENCE.values()))
    assert found.mean == pytest.approx(0.00296)
    assert found.ci95 == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert (found.n, found.paired, found.within_noise) == (5, True, False)


@pytest.mark.parametrize("shift", [0.01, -0.1])
def test_two_equal_differences_tell_nothing_about_their_spread(shift):
    """0.95 - 0.94 and 0.97 - 0.96 differ by rounding only; three such differences have an interval."""
    values = {"0": 0.94 + shift, "1": 0.96 + shift}
    found = paired_difference(values, {"0": 0.94, "1": 0.96})
    assert (found.mean, found.ci95, found.within_noise) == (pytest.approx(shift), None, None)
    three = paired_difference({**values, "2": 0.98 + shift}, {"0": 0.94, "1": 0.96, "2": 0.98})
    assert three.ci95 == pytest.approx((shift, shift), abs=1e-12)


def test_rows_that_are_equal_or_do_not_depend_on_the_seed_have_an_interval_without_width():
    values = {"0": 0.94, "1": 0.96}
    assert paired_difference(values, values).ci95 == (0, 0)
    exact, other = {"0": 0.94, "1": 0.94}, {"0": 0.9, "1": 0.9}
    assert paired_difference(exact, other).ci95 == pytest.approx((0.04, 0.04))
    assert paired_difference(exact, unpaired(other)).ci95 == pytest.approx((0.04, 0.04))


@pytest.mark.parametrize("number", range(20))
def test_paired_and_unpaired_differences_agree_with_scipy_and_its_p_value(number):
    values, reference = drawn(number, (6, 6))
    paired, welch = paired_difference(values, reference), paired_difference(unpaired(values), reference)
    columns = [list(values.values()), list(reference.values())]
    for found, test in ((paired, stats.ttest_rel(*columns)), (welch, stats.ttest_ind(*columns, equal_var=False))):
        assert found.ci95 == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
        assert found.within_noise == (test.pvalue >= 0.05)
    assert (paired.paired, welch.paired) == (True, False)
    assert paired.mean == pytest.approx(welch.mean)


@pytest.mark.parametrize("sizes", [(2, 9), (9, 2), (3, 4)])
def test_unpaired_differences_of_unequal_sizes_agree_with_scipy(sizes):
    values, reference = drawn(1, sizes)
    found = paired_difference(unpaired(values), reference)
    test = stats.ttest_ind(list(values.values()), list(reference.values()), equal_var=False)
    assert found.ci95 == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert found.n == min(sizes)


def test_only_the_seeds_in_common_are_pairs():
    found = paired_difference({**VALUES, "7": 0.0}, {key: REFERENCE[key] for key in ("1", "2", "4")})
    test = stats.ttest_rel([VALUES[key] for key in ("1", "2", "4")], [REFERENCE[key] for key in ("1", "2", "4")])
    assert found.ci95 == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert (found.n, found.paired) == (3, True)


def test_one_seed_in_common_makes_no_pairs():
    assert not paired_difference({"0": 1.0, "1": 2.0}, {"0": 1.0, "5": 2.5}).paired


def test_too_few_values_have_no_interval():
    found = paired_difference({"0": 1.0}, {"0": 2.0})
    assert (found.mean, found.ci95, found.within_noise) == (-1.0, None, None)


@pytest.mark.parametrize(("shift", "within"), [(0.0, True), (0.1, False)])
def test_values_without_spread_differ_or_are_equal(shift, within):
    values, reference = dict.fromkeys("abc", 0.5 + shift), dict.fromkeys("abc", 0.5)
    assert paired_difference(values, reference).within_noise is within
    assert paired_difference(values, unpaired(reference)).within_noise is within


@pytest.mark.parametrize("scale", [1e-120, 1e120])
def test_the_size_of_the_numbers_does_not_matter(scale):
    values, reference = ({key: value * scale for key, value in side.items()} for side in (unpaired(VALUES), REFERENCE))
    low, high = paired_difference(unpaired(VALUES), REFERENCE).ci95
    assert paired_difference(values, reference).ci95 == pytest.approx((low * scale, high * scale), rel=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_about_95_of_100_intervals_contain_the_true_difference(paired):
    draw, held, trials = random.Random(0), 0, 2000
    for _ in range(trials):
        luck = [draw.gauss(0, 2) if paired else 0.0 for _ in range(5)]  # of a seed, the same for both
        values = {f"{seed}": luck[seed] + draw.gauss(0.3, 1) for seed in range(5)}
        reference = {f"{seed}" if paired else f"other {seed}": luck[seed] + draw.gauss(0, 1) for seed in range(5)}
        low, high = paired_difference(values, reference).ci95
        held += low <= 0.3 <= high
    assert 0.935 < held / trials < 0.97


def test_pairs_find_a_difference_that_is_smaller_than_the_spread_between_seeds():
    luck = [0.90, 0.93, 0.96, 0.99]
    values = {str(seed): value + 0.002 + 0.0001 * seed for seed, value in enumerate(luck)}
    reference = {str(seed): value for seed, value in enumerate(luck)}
    assert paired_difference(values, reference).within_noise is False
    assert paired_difference(unpaired(values), reference).within_noise is True
