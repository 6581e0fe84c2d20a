"""How many seeds show a difference that a reader states: the power of a paired t-test, a range, and the notes."""

import numpy as np
import pytest
from scipy import stats

import litlab as lab
from pipelines.comparison.power import POWER, sd_interval, seeds_needed


@pytest.mark.parametrize(("effect", "seeds"), [(2.0, 5), (1.0, 10), (0.5, 34), (0.2, 199)])
def test_the_numbers_of_pairs_are_those_of_published_tables(effect, seeds):
    """Cohen, Statistical Power Analysis (1988); G*Power, t test of matched pairs, 5 % two-sided, power 0.80."""
    assert seeds_needed(effect, 1.0) == seeds
    assert seeds_needed(effect * 0.01, 0.01) == seeds


def test_the_number_of_pairs_has_the_power_in_a_simulation_and_one_less_has_not():
    generator = np.random.default_rng(3)
    for n, expected in ((10, True), (9, False)):
        p = stats.ttest_1samp(1 + generator.standard_normal((100_000, n)), 0, axis=1).pvalue
        assert ((p < 0.05).mean() >= POWER - 0.003) == expected


def test_folds_that_share_examples_limit_what_more_seeds_can_show():
    assert seeds_needed(1.0, 1.0, overlap=1 / 4) is None
    assert seeds_needed(3.0, 1.0, overlap=1 / 4) > seeds_needed(3.0, 1.0)


def test_the_interval_of_a_standard_deviation_covers_it_in_95_percent_of_the_cases():
    spreads = np.random.default_rng(4).standard_normal((20_000, 5)).std(1, ddof=1)
    low, high = sd_interval(1.0, 5)
    covered = (spreads * low <= 1) & (spreads * high >= 1)
    assert covered.mean() == pytest.approx(0.95, abs=0.006)


@pytest.fixture
def store(mlflow_store, uri, tables):
    """Three configurations: b is much better than the others, which differ by noise; d has one run."""
    import mlflow

    mlflow_store(uri)
    mlflow.set_experiment("powers")
    values = {"a": [0.80, 0.82, 0.79, 0.81], "b": [0.90, 0.92, 0.89, 0.92], "c": [0.91, 0.89, 0.92, 0.90], "d": [0.7]}
    for name, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            with mlflow.start_run(tags={"seed": str(seed)}):
                mlflow.log_params({"model.kind": name, "seed_everything": seed})
                mlflow.log_metric("test/acc", accuracy)
    return uri


def test_compare_says_how_many_seeds_show_the_smallest_effect_only_where_it_is_undecided(litlab, store):
    done = litlab("compare", "powers", "--min_effect", "0.05")
    assert done.code == 0, done.err
    notes = [line for line in done.err.splitlines() if "undecided" in line]
    differences = np.array([0.91, 0.89, 0.92, 0.90]) - np.array([0.90, 0.92, 0.89, 0.92])
    ends = sd_interval(differences.std(ddof=1), 4)
    few, many = (seeds_needed(0.05, sd) for sd in ends)
    assert few < many
    assert notes[0] == (
        f"litlab: note: row 2 is undecided: a difference of 0.05 shows with 80 % power from {few} to {many} seeds; "
        "it has 4"
    )
    assert len(notes) == 2, "that of a is decided"
    assert "row 4 is undecided: two or more seeds in common with row 1 tell the spread first" in notes[1]
    assert "undecided" not in litlab("compare", "powers").err


def test_the_notes_of_the_function_say_it_too(store):
    notes = lab.compare("powers", min_effect=0.0001).attrs["notes"]
    assert any("shows with 80 % power only with more than 1000 seeds; it has 4" in note for note in notes)


def test_an_effect_that_is_not_above_zero_is_refused(litlab, store):
    done = litlab("compare", "powers", "--min_effect", "0")
    assert done.code == 2
    assert "--min_effect 0: expected a number above 0, the smallest difference of interest" in done.err
