"""A space file is read as intended, or refused with the key that is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipelines.config.experiments import experiment_names
from pipelines.runtime.errors import UserError
from sweeps.search.ranges import decode
from sweeps.search.samplers import make_pruner, make_sampler
from sweeps.search.space_files import parse_duration, read_space, space_names


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[..., str]:
    """Write a space as YAML, from text or with some keys changed; return the file's path."""

    def write(text: str | None = None, **keys: Any) -> str:
        usual = {"experiment": "digits-mlp", "trials": 5, "space": {"model.dropout": {"low": 0.0, "high": 0.5}}}
        path = tmp_path / "my.yaml"
        path.write_text(yaml.safe_dump({**usual, **keys}) if text is None else text)
        return str(path)

    return write


def refused(path: str, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        read_space(path, changes)
    return str(error.value)


@pytest.mark.parametrize("name", space_names())
def test_every_space_of_litlab_searches_an_experiment_of_litlab(name: str) -> None:
    read = read_space(name, {})

    assert read.experiment in experiment_names()
    assert read.description
    assert read.total > 0
    assert read.metric.startswith("val/")
    make_sampler(read.sampler, 0)
    make_pruner(read.pruner, 10)
    assert set(read.distributions({})) == set(read.space)


def test_the_published_sweep_has_its_five_rates() -> None:
    read = read_space("mnist-mlp-dropout", {})

    assert [point["model.dropout"] for point in read.grid()] == [0, 0.1, 0.3, 0.6, 0.9]
    assert (read.total, read.seeds) == (5, 3)


def test_an_unknown_space_is_refused_with_a_suggestion() -> None:
    assert "did you mean mnist-mlp" in refused("mnist-mpl")
    assert "nowhere.yaml: no such file" in refused("nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("a: [1\n", "not readable as YAML"),
        ("experiment: digits-mlp\ntrials: 3\n", "space is required"),
        ("experiment: digits-mlp\ntrials: 3\nspace: {}\n", "space is required"),
        ("trials: 3\nspace: {a: [1]}\n", "experiment is required"),
        ("experiment: digits-mlp\ntrials: 3\nspace: [a, b]\n", "space: expected keys of the experiment"),
        ("experiment: 7\ntrials: 3\nspace: {a: [1]}\n", "must be text"),
    ],
)
def test_a_file_that_is_not_a_space_is_refused(write_space: Callable[..., str], text: str, message: str) -> None:
    path = write_space(text)

    assert refused(path).startswith(path)
    assert message in refused(path)


@pytest.mark.parametrize(
    ("key", "suggestion"), [("trails", "trials"), ("sampl", "sampler"), ("trial-timeout", "trial_timeout")]
)
def test_an_unknown_key_is_refused_with_a_suggestion(
    write_space: Callable[..., str], key: str, suggestion: str
) -> None:
    error = refused(write_space(**{key: 1}))

    assert f"unknown key {key}: did you mean {suggestion}?" in error


def test_an_unknown_key_without_a_similar_one_is_refused_with_all_known_keys(write_space: Callable[..., str]) -> None:
    error = refused(write_space(zzz=1))

    assert "did you mean" not in error
    assert "unknown key zzz" in error
    assert "trial_timeout" in error


def test_a_test_metric_is_refused(write_space: Callable[..., str]) -> None:
    assert "the test set stays closed" in refused(write_space(metric="test/acc"))
    assert "validation metric" in refused(write_space(metric="train/loss"))
    assert "validation metric" in refused(write_space(metric=3))
    assert "the test set stays closed" in refused(write_space(metric="test_acc"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("direction", "up", "maximize, minimize"),
        ("keep", "some", "best, all, none"),
        ("trials", 0, "at least 1"),
        ("trials", True, "at least 1"),
        ("trials", "ten", "at least 1"),
        ("trials", 2.5, "at least 1"),
        ("trials", None, "trials is required"),
        ("seeds", 0, "at least 1"),
        ("seeds", None, "at least 1"),
        ("confirm", -1, "at least 0"),
        ("set", ["a"], "expected keys of the experiment"),
        ("set", None, "expected keys of the experiment"),
        ("sampler", None, "expected a name"),
        ("sampler", ["tpe"], "expected a name"),
        ("sampler", {"n_startup_trials": 3}, "expected a name"),
        ("pruner", False, "expected a name"),
        ("timeout", "soon", "expected a time above 0"),
        ("timeout", 0, "expected a time above 0"),
        ("trial_timeout", True, "expected a time above 0"),
        ("trial_timeout", -5, "expected a time above 0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(
    write_space: Callable[..., str], key: str, value: Any, message: str
) -> None:
    error = refused(write_space(**{key: value}))

    assert message in error
    assert key in error


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 0.5, "high": 0.1}, "the range is empty"),
        ({"low": 3, "high": 3}, "the range is empty"),
        ({"low": "a", "high": 1}, "low is 'a'; it must be a number"),
        ({"low": False, "high": 1}, "low is False; it must be a number"),
        ({"low": 0, "high": None}, "high is None; it must be a number"),
        ({"low": 0, "high": float("inf")}, "high is inf; it must be a number"),
        ({"low": float("nan"), "high": 1}, "low is nan; it must be a number"),
        ({"low": 0, "high": 1, "step": True}, "step is True; it must be a number"),
        ({"low": 0, "high": 1, "step": 0}, "step 0 does not fit"),
        ({"low": 0, "high": 1, "step": 2}, "step 2 does not fit"),
        ({"low": 0, "high": 10, "step": 3}, "steps of 3 do not lead from 0 to 10"),
        ({"low": 0, "high": 1, "log": True}, "low must be above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "step is not allowed"),
        ({"low": 1, "high": 9, "log": "si"}, "log is 'si'; it must be true or false"),
        ({"low": 1}, "low and high"),
        ({"low": 1, "high": 2, "base": 10}, "low and high"),
        (0.1, "expected a list of choices"),
        (None, "expected a list of choices"),
        ([], "the list of choices is empty"),
        ([1, 2, 1], "choice 1 is listed twice"),
        ([1, 1.0], "choice 1.0 is listed twice"),
        ([1, True], "choice True is listed twice"),
        ([[1, 2], "[1, 2]"], "is listed twice"),
        ([0.1, float("nan")], "nan cannot be a choice"),
    ],
)
def test_an_impossible_range_is_refused_with_its_key(
    write_space: Callable[..., str], values: Any, message: str
) -> None:
    error = refused(write_space(space={"model.dropout": values}))

    assert "space: model.dropout: " in error
    assert message in error


def test_a_date_cannot_be_a_choice(write_space: Callable[..., str]) -> None:
    path = write_space("experiment: digits-mlp\ntrials: 3\nspace: {a: [2020-01-01]}\n")

    assert "cannot be a choice" in refused(path)


@pytest.mark.parametrize(
    ("keys", "fixed", "message"),
    [
        (["a.b", "a.init_args.b"], {}, "a.b is given twice"),
        (["a, b", "b"], {}, "b is given twice"),
        (["a, a"], {}, "a is given twice"),
        (["a.b"], {"a.init_args.b": 1}, "a.b is given twice"),
        (["a,"], {}, "a key is empty"),
    ],
)
def test_a_key_that_would_have_two_values_is_refused(
    write_space: Callable[..., str], keys: list[str], fixed: dict[str, int], message: str
) -> None:
    assert message in refused(write_space(space={key: [1, 2] for key in keys}, set=fixed))


def test_keys_lose_spaces_and_init_args(write_space: Callable[..., str]) -> None:
    values = {"model.optimizer.init_args.lr ,model.init_args.dropout": [0.1]}
    read = read_space(write_space(space=values, set={"model.init_args.width": 8}), {})

    assert list(read.space) == ["model.optimizer.lr, model.dropout"]
    assert read.settings({"model.optimizer.lr, model.dropout": 0.1}) == {
        "model.dropout": 0.1,
        "model.optimizer.lr": 0.1,
    }
    assert read.fixed() == {"model.width": 8}


def test_a_class_is_set_before_its_arguments(write_space: Callable[..., str]) -> None:
    read = read_space(write_space(space={"model.optimizer.lr": [0.1], "model.optimizer": ["SGD", "Adam"]}), {})

    assert list(read.settings({"model.optimizer.lr": 0.1, "model.optimizer": "SGD"})) == [
        "model.optimizer",
        "model.optimizer.lr",
    ]


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("1.e-4", 1e-4), (".5e-3", 5e-4), ("-2E3", -2000.0), ("1e+2", 100.0)]
)
def test_numbers_that_yaml_reads_as_text_are_converted(
    write_space: Callable[..., str], text: str, number: float
) -> None:
    content = f"experiment: digits-mlp\ntrials: 3\nspace:\n  a: {{low: {text}, high: 1e4}}\n  b: [{text}, 7e7]\n"
    read = read_space(write_space(content), {})

    assert read.space == {"a": {"low": number, "high": 1e4}, "b": [number, 7e7]}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), (90, 90), (1.5, 1.5), ("45s", 45), ("30m", 1800), ("30 min", 1800), ("2h", 7200), ("1h30m", 5400)],
)
def test_durations_are_converted_to_seconds(write_space: Callable[..., str], text: Any, seconds: float) -> None:
    assert read_space(write_space(timeout=text), {}).timeout == seconds
    assert read_space(write_space(), {"trial_timeout": text}).trial_timeout == seconds


@pytest.mark.parametrize("text", ["h", "2x", "-3m", "1e3", "", "2h later"])
def test_text_that_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a time above 0"):
        parse_duration(text, "timeout")


def test_options_of_the_command_override_the_file(write_space: Callable[..., str]) -> None:
    read = read_space(write_space(), {"trials": 80, "sampler": "random", "seeds": 2})

    assert (read.trials, read.sampler, read.seeds, read.name) == (80, "random", 2, "my")
    assert "a grid needs a list of choices" in refused(write_space(), sampler="grid")


def test_a_grid_has_one_trial_per_point_or_fewer_if_trials_is_smaller(write_space: Callable[..., str]) -> None:
    path = write_space(trials=None, sampler="grid", space={"a": [0.0, 0.1, 0.3], "b": [True, False]})

    read = read_space(path, {})

    assert read.total == 6
    assert read_space(path, {"trials": 4}).total == 4
    assert read_space(path, {"trials": 40}).total == 6
    assert read.grid()[:3] == [{"a": 0.0, "b": True}, {"a": 0.0, "b": False}, {"a": 0.1, "b": True}]


def test_a_range_is_of_integers_if_its_numbers_and_the_default_are_not_floats(write_space: Callable[..., str]) -> None:
    values: dict[str, Any] = {
        "whole": {"low": 1, "high": 9, "step": 2},
        "log": {"low": 1, "high": 64, "log": True},
        "real": {"low": 0, "high": 1},
        "steps": {"low": 0, "high": 1, "step": 0.25},
        "one": [True, False],
    }

    made = read_space(write_space(space=values), {}).distributions({"real": 0.5, "whole": 3})

    assert made == {
        "whole": IntDistribution(1, 9, step=2),
        "log": IntDistribution(1, 64, log=True),
        "real": FloatDistribution(0.0, 1.0),
        "steps": FloatDistribution(0.0, 1.0, step=0.25),
        "one": CategoricalDistribution([True, False]),
    }


def test_steps_that_are_not_binary_fractions_reach_the_end(write_space: Callable[..., str]) -> None:
    read = read_space(write_space(space={"a": {"low": 0.0, "high": 0.6, "step": 0.1}}), {})

    assert read.distributions({})["a"] == FloatDistribution(0.0, 0.6, step=0.1)


def test_a_list_can_be_a_choice_and_is_decoded_again(write_space: Callable[..., str]) -> None:
    read = read_space(write_space(sampler="grid", space={"model.widths": [[64], [64, 32], None, "[wide"]}), {})

    points = [point["model.widths"] for point in read.grid()]

    assert points == ["[64]", "[64, 32]", None, "[wide"]
    assert [decode(value) for value in points] == [[64], [64, 32], None, "[wide"]
    assert read.distributions({})["model.widths"] == CategoricalDistribution(points)


def test_end_points_are_both_ends_of_each_range_and_all_choices(write_space: Callable[..., str]) -> None:
    read = read_space(write_space(space={"a": {"low": 0.1, "high": 0.5}, "b": [1, 2, 3]}), {})

    assert read.end_points() == [{"a": 0.1}, {"a": 0.5}, {"b": 1}, {"b": 2}, {"b": 3}]


def test_a_space_has_the_old_path_of_a_renamed_class(tmp_path):
    choices = "[[{class_path: modules.probes.DeadUnits}], null]"
    path = tmp_path / "own.yaml"
    path.write_text(f"experiment: circles\ntrials: 2\nspace:\n  trainer.callbacks: {choices}\n")
    assert read_space(str(path), {}).space == {"trainer.callbacks": [[{"class_path": "modules.probes.Units"}], None]}


@pytest.mark.parametrize("metric", ["val_acc", "valid/iou", "loss/val", "iou", "val/acc/dataloader_idx_1"])
def test_any_validation_metric_can_be_searched(write_space: Callable[..., str], metric: str) -> None:
    read = read_space(write_space(metric=metric), {})
    assert (read.metric, read.direction) == (metric, "minimize" if "loss" in metric else "maximize")


def test_the_metric_is_by_default_the_one_that_selects_the_epochs(write_space):
    read = read_space(write_space(), {})
    assert (read.metric, read.with_metric(None).metric) == ("val/acc", "val/acc")
    losses = read.with_metric("val/loss")
    assert (losses.metric, losses.direction) == ("val/loss", "minimize")
    given = read_space(write_space(metric="val/acc"), {}).with_metric("val/loss")
    assert (given.metric, given.direction) == ("val/acc", "maximize")
    assert read_space(write_space(direction="maximize"), {}).with_metric("val/loss").direction == "maximize"
