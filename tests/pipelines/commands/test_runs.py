"""`litlab runs`, `show` and `diff` on two real runs and runs that MLflow's client wrote."""

import csv
import io
import json
import re

import pytest
from mlflow import MlflowClient

from pipelines.tracking.listing import start_of
from pipelines.tracking.tags import PARENT_RUN_TAG, REASON_TAG

SHORT = ("--data.n_train", "200", "--trainer.enable_progress_bar", "false")


@pytest.fixture
def two_fits(litlab, tables):
    """Train twice, with other values of two keys; return the run ids, oldest first."""
    assert litlab("fit", "digits-mlp", *SHORT, "--trainer.max_epochs", "1").code == 0
    assert litlab("fit", "digits-mlp", *SHORT, "--trainer.max_epochs", "2", "--model.dropout", "0.5").code == 0
    return [record["run_id"] for record in reversed(records(litlab))]


def records(litlab, *arguments):
    return json.loads(litlab("runs", *arguments, "--format", "json").out)


def test_runs_are_listed_filtered_shown_and_compared(litlab, two_fits, uri, monkeypatch):
    first, second = two_fits
    client = MlflowClient(uri)
    experiment = client.get_run(first).info.experiment_id
    failed = client.create_run(experiment, tags={"mlflow.user": "ada", "stage": "confirm"}).info.run_id
    client.set_terminated(failed, "FAILED")
    child = client.create_run(experiment, tags={PARENT_RUN_TAG: second}).info.run_id

    def ids(*arguments):
        return [record["run_id"] for record in records(litlab, *arguments)]

    assert ids() == [failed, second, first]
    assert ids("digits-mlp") == [child, failed, second, first]
    assert ids("--last", "1") == [failed]
    assert ids("--status", "failed") == ids("--user", "ada") == ids("--tag", "stage=confirm") == [failed]
    assert ids("--status", "running", "digits-mlp") == [child]
    assert ids("--filter", "params.model.dropout > 0.2") == [second]
    assert ids("--filter", "metrics.test/acc >= 0 and params.trainer.max_epochs < 2") == [first]
    assert ids("--since", "1h") == [failed, second, first]
    assert ids("--since", "2999-01-01") == []

    newest = records(litlab, "--last", "2")[1]
    assert newest["selected_metric"] == "val/acc"
    assert newest["test"] == pytest.approx(client.get_run(second).data.metrics["test/acc"])
    rows = list(csv.DictReader(io.StringIO(litlab("runs", "--format", "csv").out)))
    assert [row["run_id"] for row in rows] == [failed, second, first]

    monkeypatch.setenv("COLUMNS", "80")
    lines = litlab("runs").out.splitlines()
    assert len(lines) == 4
    assert "reason" not in lines[0]
    client.set_tag(failed, REASON_TAG, "UserError: EarlyStopping monitors val_loss, which is not logged\nmore")
    lines = litlab("runs").out.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[-1] == "reason"
    assert re.search(r"  EarlyStopping m[^ ]*… *$", lines[1])
    assert max(map(len, lines)) <= 80
    assert all(word in lines[0] for word in ("id", "name", "status", "val/acc", "test/acc", "started"))

    diff = json.loads(litlab("diff", first[:8], second[:8], "--format", "json").out)
    assert diff["configuration"] == {"trainer.max_epochs": ["1", "2"], "model.dropout": ["0.2", "0.5"]}
    assert diff["data"] == diff["code"] == diff["versions"] == {}
    assert "test/loss" in diff["metrics"]
    assert max(map(len, litlab("diff", first, second).out.splitlines())) <= 80
    assert litlab("diff", first, first).out.endswith("nothing differs\n")

    shown = litlab("show", second[:8]).out
    assert f"run                  {second}\n" in shown
    assert "--model.dropout 0.5" in shown
    assert len(shown.splitlines()) <= 36
    assert re.search(r"\ndata sha256 +test [0-9a-f]{10}, train [0-9a-f]{10}, val [0-9a-f]{10}\n", shown)
    assert "selected by          val/acc\n" in shown
    words = " ".join(shown.split())
    assert re.search(r" model modules\.mlp\.MLP, hidden=\[128, 64\], [^:]*dropout=0\.5", words)
    assert re.search(r" data datamodules\.digits\.Digits, .*batch_size=32 ", words)
    assert "amsgrad" not in shown  # false
    assert litlab("show", "best:digits-mlp").code == 0
    assert json.loads(litlab("show", failed, "--format", "json").out)["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "digits-mpl"], "'digits-mpl' is not an experiment, study or run"),
        (["runs", "--since", "5x"], "--since 5x: give an age"),
        (["runs", "--last", "0"], "--last 0: give a number of runs"),
        (["runs", "--tag", "stage"], "--tag stage: give a key and a value"),
        (["runs", "--filter", "acc > 1"], "--filter acc > 1: "),
        (["runs", "--status", "done"], "--status: invalid choice: 'done'"),
        (["show", "nosuch"], "there is no run 'nosuch'"),
        (["diff", "latest", "nosuch"], "has no runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(litlab, tables, arguments, message):
    outcome = litlab(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_an_empty_project_has_no_runs(litlab, tables):
    assert litlab("runs").out.startswith("no runs in sqlite")


def test_an_age_and_a_date_are_times():
    assert start_of("90m", now=10_000) == 4_600_000
    assert start_of("1.5d", now=200_000) == 70_400_000
    assert start_of("2026-11-27") == start_of("2026-11-27T00:00:00")
