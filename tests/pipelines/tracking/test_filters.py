"""Filters of runs: what MLflow evaluates, and params as numbers."""

import pytest

from pipelines.tracking.filters import parse_filter


@pytest.mark.parametrize(
    ("text", "mlflow"),
    [
        ("", ""),
        ("metrics.test/acc > 0.9", "metrics.`test/acc` > 0.9"),
        ("params.model.dropout = '0.3'", "params.`model.dropout` = '0.3'"),
        ("tags.`a b` = 'metrics.x' AND status = 'FAILED'", "tags.`a b` = 'metrics.x' and status = 'FAILED'"),
        ("params.name = 'this and that'", "params.`name` = 'this and that'"),
    ],
)
def test_what_mlflow_understands_is_left_to_it_with_backticks_around_keys(text, mlflow):
    parsed = parse_filter(text)
    assert parsed.mlflow == mlflow
    assert parsed.matches({})


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ("params.model.dropout > 0.2", "0.25", "0.1"),
        ("params.model.dropout >= 0.20", "0.2", "0.19"),
        ("parameters.`model.dropout` < 1e-3", "1e-4", "0.01"),
        ("param.model.dropout <= -1", "-1.0", "0"),
        ("params.model.dropout = 10", "10.0", "9"),
        ("params.model.dropout != .5", "0.4", "0.50"),
    ],
)
def test_params_are_compared_as_numbers(condition, matching, other):
    parsed = parse_filter(condition)
    assert parsed.mlflow == ""
    assert parsed.matches({"model.dropout": matching})
    assert not parsed.matches({"model.dropout": other})


def test_a_param_that_is_missing_or_no_number_does_not_match():
    parsed = parse_filter("params.lr != 0.1")
    assert not parsed.matches({})
    assert not parsed.matches({"lr": "auto"})


def test_all_conditions_of_all_filters_hold():
    parsed = parse_filter("params.lr > 0.1 and metrics.acc > 0.9 and params.lr < 1", "", "status = 'FINISHED'")
    assert parsed.mlflow == "metrics.`acc` > 0.9 and status = 'FINISHED'"
    assert [parsed.matches({"lr": value}) for value in ("0.1", "0.5", "1")] == [False, True, False]
