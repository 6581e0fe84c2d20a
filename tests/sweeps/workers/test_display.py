"""What a line about a training shows of its configuration."""

from sweeps.workers.display import format_params


def test_trials_with_near_values_are_told_apart():
    near = [{"model.lr": value} for value in (0.02, 0.02003, 0.02004, 1.002e-5, 1e-5)]
    shown = [format_params(params) for params in near]
    assert shown == ["lr=0.02", "lr=0.02003", "lr=0.02004", "lr=1.002e-05", "lr=1e-05"]


def test_each_key_is_short_and_other_values_are_whole():
    assert format_params({"model.hidden": 128, "data.name": "a", "x": 12345}) == "hidden=128  name=a  x=12345"


def test_keys_with_the_same_last_part_are_told_apart():
    params = {"model.optimizer.lr": 0.1, "model.head.lr": 0.2, "model.dropout": 0.3}
    assert format_params(params, " ") == "optimizer.lr=0.1 head.lr=0.2 dropout=0.3"
