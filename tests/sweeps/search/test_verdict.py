"""What a sweep says of its best configuration, from runs on fresh seeds."""

import pytest

from pipelines.tracking.store import Store
from sweeps.search.space import Space
from sweeps.search.verdict import judge_confirmation


@pytest.fixture
def confirmed(uri):
    """Return a function that writes the runs of the best configuration and of the default, one for each value."""
    store = Store(uri)

    def write(metric, folds=0, **values):
        runs = {}
        for label, measured in values.items():
            runs[label] = []
            for seed, value in enumerate(measured, 1):
                run_id = store.client.create_run(store.experiment_id("confirmed"), tags={"seed": str(seed)}).info.run_id
                store.client.log_metric(run_id, metric, value)
                for key, number in {"data.folds": folds, "data.fold": seed - 1}.items() if folds else ():
                    store.client.log_param(run_id, key, number)
                store.client.log_metric(run_id, "selected/val/acc", 0.5)
                store.client.set_terminated(run_id)
                runs[label].append(store.find(run_id))
        return runs

    return write


def space(metric="val/acc", direction="maximize") -> Space:
    return Space("s", "e", {"model.dropout": [0.1, 0.2]}, metric=metric, direction=direction, trials=2)


def test_a_best_configuration_that_loses_is_not_better_than_the_default(confirmed):
    runs = confirmed("test/acc", best=(0.92, 0.91, 0.97), default=(0.96, 0.96, 0.965))
    verdict = judge_confirmation(runs, space())
    assert verdict == "not better than the default: test/acc 0.9333 ± 0.0321 against 0.9617 ± 0.0029 (n = 3)"


def test_equal_configurations_are_not_better(confirmed):
    runs = confirmed("test/acc", best=(0.9, 0.9), default=(0.9, 0.9))
    assert judge_confirmation(runs, space()).startswith("not better than the default: test/acc 0.9000 ± 0.0000 against")


def test_a_gain_within_the_noise_is_named_as_such(confirmed):
    runs = confirmed("test/acc", best=(0.92, 0.91, 0.97), default=(0.9, 0.93, 0.92))
    assert judge_confirmation(runs, space()).startswith("better than the default by less than the noise: test/acc 0.93")


def test_a_gain_in_all_pairs_is_better_even_if_seeds_differ_more(confirmed):
    runs = confirmed("test/acc", best=(0.80, 0.90, 0.95), default=(0.781, 0.88, 0.93))
    assert judge_confirmation(runs, space()).startswith("better than the default: test/acc 0.8833 ± 0.0764 against")


def test_the_interval_of_folds_which_share_training_examples_is_wider(confirmed):
    values = {"best": (0.91, 0.912, 0.908, 0.902, 0.903), "default": (0.9,) * 5}
    gain = "better than the default{}: test/acc 0.9070"
    assert judge_confirmation(confirmed("test/acc", **values), space()).startswith(gain.format(""))
    folded = judge_confirmation(confirmed("test/acc", folds=5, **values), space())
    assert folded.startswith(gain.format(" by less than the noise"))


def test_of_a_loss_lower_values_are_better(confirmed):
    runs = confirmed("test/loss", best=(0.2, 0.22), default=(0.3, 0.31))
    assert judge_confirmation(runs, space("val/loss", "minimize")).startswith("better than the default: test/loss")
    assert judge_confirmation(runs, space("val/loss", "maximize")).startswith("not better")


def test_without_runs_of_both_there_is_no_verdict_but_on_the_default_itself(confirmed):
    runs = confirmed("test/acc", best=(0.9, 0.91))
    assert judge_confirmation({**runs, "default": []}, space()) == ""
    assert judge_confirmation({"best": [], "default": []}, space()) == judge_confirmation({}, space()) == ""
    assert judge_confirmation(runs, space()).startswith("the default itself")
