"""`litlab compare` where runs of other programs are in the same database."""

import json
import re

import pytest
from mlflow.entities import Metric, Param, RunTag

from pipelines.comparison.columns import MAX_COLUMNS, MAX_VALUE
from pipelines.tracking.store import Store

pytestmark = pytest.mark.usefixtures("tables")

OWN = {"litlab.experiment": "digits-mlp"}


@pytest.fixture
def write(uri):
    """Return a function that writes a finished run and returns its id."""
    client, experiment_id = Store(uri).client, Store(uri).experiment_id

    def run(experiment, params, metrics, tags=()):
        run_id = client.create_run(experiment_id(experiment)).info.run_id
        logged = [Metric(key, value, 1, 0) for key, value in metrics.items()]
        tags = [RunTag(key, value) for key, value in dict(tags).items()]
        client.log_batch(run_id, logged, [Param(key, str(value)) for key, value in params.items()], tags)
        client.set_terminated(run_id)
        return run_id

    return run


def columns(outcome):
    """The words of the header of a table."""
    assert outcome.code == 0, outcome.err
    return outcome.out.splitlines()[1].split()


def test_runs_of_other_programs_are_set_apart_from_those_of_litlab(write, litlab):
    for seed in ("1", "2"):
        write("digits-mlp", {"model.dropout": "0.1"}, {"test/acc": 0.9}, {**OWN, "seed": seed})
    many = {f"estimator__{index}": index for index in range(30)}
    foreign = [write("digits-mlp", many, {"test/acc": 0.5}), write("sklearn", many, {"test/acc": 0.7})]
    every = litlab("compare")
    assert "2 runs of other programs are left out, in digits-mlp, sklearn" in every.err
    assert "estimator__1" not in every.out
    one = litlab("compare", "digits-mlp", "--format", "json")
    assert "1 run of another program is left out, in digits-mlp" in one.err
    assert [row["n"] for row in json.loads(one.out)] == [2]
    named = litlab("compare", "digits-mlp", "sklearn", "--format", "json")
    assert sorted(row["n"] for row in json.loads(named.out)) == [1, 2], "an experiment that is named is compared"
    by_id = litlab("compare", *foreign, "--format", "json")
    assert [row["mean"] for row in json.loads(by_id.out)] == [0.7, 0.5]


def test_a_table_shows_a_part_of_many_and_of_long_values_and_data_formats_show_all(write, litlab):
    long = "x" * 5000
    for index in range(2):
        params = {f"key{number}": f"{index}{number}" for number in range(30)}
        write("sklearn", {**params, "text": f"{long}{index}"}, {"score": 0.5 + index / 10})
    table = litlab("compare", "sklearn", "--metric", "score")
    assert len([name for name in columns(table) if name.startswith("key")]) <= MAX_COLUMNS
    assert f"31 keys differ, {MAX_COLUMNS} are shown" in table.err
    chosen = litlab("compare", "sklearn", "--metric", "score", "--by", "text")
    assert len(max(chosen.out.splitlines(), key=len)) < 200
    assert "x" * MAX_VALUE not in chosen.out
    assert "x0 " in chosen.out, "values that differ at their end differ in the table"
    records = json.loads(litlab("compare", "sklearn", "--metric", "score", "--format", "json").out)
    assert len(records[0]["params"]) == 31
    assert records[0]["params"]["text"] == f"{long}1"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1.7e308])
def test_a_metric_that_is_no_number_is_left_out(write, litlab, tmp_path, value):
    for seed in range(2):
        write("e", {"C": 1}, {"score": value, "fit_seconds": value}, {"seed": str(seed)})
        write("e", {"C": 2}, {"score": 0.5 + seed, "fit_seconds": value}, {"seed": str(seed)})
    outcome = litlab("compare", "e", "--metric", "score", "--format", "json")
    assert outcome.code == 0, outcome.err
    assert "2 runs are left out: finished, but without a finite score" in outcome.err
    (row,) = json.loads(outcome.out)
    assert (row["mean"], row["seconds"]) == (1.0, None)
    assert litlab("report", "e", "--metric", "score", "--out", tmp_path / "page.html").code == 0
    body = (tmp_path / "page.html").read_text().partition("<body")[2]
    assert re.search(r"e\+?308|\d{300}", body) is None
    assert litlab("compare", "e", "--metric", "fit_seconds").code == 2


def test_an_infinite_metric_is_read_as_infinity(write, uri):
    run_id = write("e", {}, {"loss": float("inf"), "low": float("-inf"), "large": 1e308})
    assert Store(uri).find(run_id).metrics == {"loss": float("inf"), "low": float("-inf"), "large": 1e308}
