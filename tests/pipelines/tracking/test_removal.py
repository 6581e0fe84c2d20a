"""`litlab rm`: what it takes with a run, what it refuses, and that it can be repeated."""

import io
import re
import sys

import pytest

from pipelines.tracking import removal
from pipelines.tracking.removal import plan_removals, remove
from pipelines.tracking.run import Run
from pipelines.tracking.run_log import RunLog, home_of
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    HOST_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    REMOVED_TAG,
    SOURCE_NAME_TAG,
    STUDY_TAG,
)
from pipelines.training.resumable import unfinished_runs

pytestmark = pytest.mark.usefixtures("tables")


def new_run(status="FINISHED", **tags):
    """A run with a checkpoint of 1 MB and, unless it is RUNNING, a logged model."""
    run = Run(Store(), "an experiment", "run", {SOURCE_NAME_TAG: "litlab fit x", **tags})
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints/best.ckpt").write_bytes(bytes(10**6))
    if status == "RUNNING":
        return run.run_id
    run.finish(status)
    client = run.store.client
    model = client.create_logged_model(run.experiment_id, name="model", source_run_id=run.run_id)
    (run.folder / "model.txt").write_text("a model")
    client.log_model_artifact(model.model_id, str(run.folder / "model.txt"))
    return run.run_id


def files_of(tmp_path):
    return {path.name for path in (tmp_path / "runs" / "mlartifacts").rglob("*") if path.is_file()}


def test_a_removed_run_leaves_no_file_and_nothing_offers_to_restore_or_to_resume_it(litlab, tmp_path):
    run_id, kept = new_run("KILLED"), new_run("KILLED")
    store = Store()
    assert {run.run_id for run in unfinished_runs()} == {run_id, kept}
    listed = litlab("rm", run_id[:8], "--dry_run")
    assert (listed.code, "1 run, 1.0 MB would be removed" in listed.out) == (0, True)
    assert store.find(run_id).status == "KILLED", "a dry run removes nothing"
    removed = litlab("rm", run_id[:8], "--yes")
    assert (removed.code, removed.out.splitlines()[-1]) == (0, "removed 1 run, 1.0 MB")
    folders = {path.name for path in (tmp_path / "runs/mlartifacts/an experiment").iterdir()}
    assert folders == {kept, "models"}
    (model,) = store.client.search_logged_models([store.find(kept).experiment_id])
    assert [path.name for path in (tmp_path / "runs/mlartifacts/an experiment/models").iterdir()] == [model.model_id]
    assert [run.run_id for run in unfinished_runs()] == [kept]
    for verb in (["resume"], ["show"], ["test"]):
        outcome = litlab(*verb, run_id)
        assert (outcome.code, "was removed with its files on" in outcome.err) == (2, True)
        assert "restore" not in outcome.err
    again = litlab("rm", run_id, "--yes")
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert f"run {run_id} was removed on" in again.err
    store.client.restore_run(run_id)  # in the UI
    assert "there is nothing to resume" in litlab("resume", run_id).err
    assert [run.run_id for run in unfinished_runs()] == [kept]


def test_a_parent_takes_its_children_with_it_and_unsent_data_go_too(litlab, tmp_path):
    parent = new_run(**{PARENT_TAG: "seeds"})
    child = new_run(**{PARENT_RUN_TAG: parent})
    explanation = new_run(**{PARENT_RUN_TAG: child})
    log = RunLog.new(Store().uri, Store().client.get_run(child).info)
    log.save()
    (log.home / "part").write_bytes(bytes(10**6))
    assert "run" in litlab("runs").out
    outcome = litlab("rm", parent, "--yes")
    assert outcome.code == 0
    assert re.fullmatch(r"removed 1 run and 2 runs below, 4\.[01] MB", outcome.out.splitlines()[-1])
    assert not files_of(tmp_path)
    assert not log.home.exists()
    for run_id in (parent, child, explanation):
        assert REMOVED_TAG in Store().client.get_run(run_id).data.tags
    assert litlab("runs").out.startswith("no runs in sqlite")


def test_filters_select_as_in_runs_and_leave_out_what_is_active(litlab):
    failed, alive, finished = new_run("FAILED", team="a"), new_run("RUNNING", team="a"), new_run(team="b")
    outcome = litlab("rm", "--tag", "team=a", "--since", "1h", "--yes")
    assert outcome.code == 0
    assert f"left out: run {alive} is running in process" in outcome.err
    assert [run.run_id for run in Store().search(["1"], "")] == [finished, alive]
    assert litlab("rm", "--experiment", "an experiment", "--status", "finished", "--yes").code == 0
    assert [run.run_id for run in Store().search(["1"], "")] == [alive]
    assert litlab("rm", "--status", "failed", "--yes").out == "no runs to remove\n"
    assert litlab("rm", failed, "--yes").code == 2


def test_what_is_in_use_is_refused_by_name(litlab):
    study = new_run("RUNNING", **{PARENT_TAG: "sweep", STUDY_TAG: "s"})
    trial = new_run(**{PARENT_RUN_TAG: study, STUDY_TAG: "s"})
    elsewhere = new_run("RUNNING", **{HOST_TAG: "another"})
    registered = new_run()
    client = Store().client
    client.create_registered_model("digits")
    client.create_model_version("digits", "file:///model", run_id=registered)
    refusals = {
        study: f"run {study} is running in process",
        trial: f"run {trial} belongs to a run that is active: run {study} is running",
        elsewhere: "is RUNNING on another, and this machine cannot check",
        registered: "has a registered model, digits version 1",
    }
    for run_id, message in refusals.items():
        outcome = litlab("rm", run_id, "--yes")
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
        assert message in outcome.err
        assert Store().find(run_id)
    assert litlab("rm", elsewhere, "--dead", "--yes").code == 0
    client.set_tag(study, PROCESS_TAG, "1:0")  # a process that is gone
    assert "removed 1 run and 1 run below, " in litlab("rm", study, "--yes").out


def test_without_a_terminal_it_does_not_ask_and_exits_with_2(litlab, monkeypatch):
    run_id = new_run()
    refused = litlab("rm", run_id)
    assert (refused.code, "there is no terminal to ask on: give --yes" in refused.err) == (2, True)
    assert "litlab rm --experiment an experiment" in litlab("rm", "an experiment", "--yes").err
    for arguments in ([], ["--yes"], [run_id, "--status", "failed", "--yes"]):
        assert litlab("rm", *arguments).code == 2

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for answer, code in (("\n", 1), ("", 1), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert litlab("rm", run_id).code == code


@pytest.mark.parametrize("step", ["_delete_in_mlflow", "_delete_files"])
def test_a_removal_that_was_interrupted_is_repeated(litlab, tmp_path, monkeypatch, step):
    parent = new_run(**{PARENT_TAG: "seeds"})
    child = new_run(**{PARENT_RUN_TAG: parent})
    store = Store()
    removals, _ = plan_removals(store, [store.find(parent)], named=True)
    assert [each.run.run_id for each in removals] == [child, parent]
    with monkeypatch.context() as patch:
        done = getattr(removal, step)

        def interrupted(*arguments):
            done(*arguments)
            raise KeyboardInterrupt

        patch.setattr(removal, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove(removals[0])
    assert files_of(tmp_path)
    assert litlab("rm", parent, "--yes").code == 0
    assert not files_of(tmp_path)
    assert not store.client.search_logged_models(["1"])


def test_a_run_that_was_deleted_in_the_ui_is_removed_with_its_files(litlab, tmp_path):
    run_id = new_run()
    Store().client.delete_run(run_id)
    assert litlab("rm", run_id, "--yes").code == 0
    assert not files_of(tmp_path)
    assert "was removed with its files" in litlab("show", run_id).err
    assert not home_of(Store().uri, run_id).exists()
