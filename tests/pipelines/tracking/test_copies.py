"""`litlab copy`: a copy has everything that the run has, is made once, and its links name copies."""

import json

import mlflow
import pytest

from pipelines.tracking.copies import copy_runs
from pipelines.tracking.run import Run
from pipelines.tracking.run_copy import _Copy
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    BEST_RUN_TAG,
    COPIED_RUN_TAG,
    COPIED_STORE_TAG,
    COPYING_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    STOP_TAG,
    STUDY_TAG,
)
from pipelines.tracking.uri import local_path

FIT = ["fit", "digits-mlp", "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"]
pytestmark = pytest.mark.usefixtures("tables")


def new_run(experiment="an experiment", status="FINISHED", store=None, **tags):
    """A run with 1,201 values of three metrics, of which some are not finite, and a file."""
    run = Run(store or Store(), experiment, "run", tags)
    run.log_params({"lr": 0.1, "words": "a b"})
    for epoch in range(400):
        run.log_metrics({"train/loss": 1 / (epoch + 1), "val/loss": float("nan"), "x": epoch}, epoch)
    run.log_metrics({"x": float("inf")}, 400)
    (run.folder / "figures").mkdir()
    (run.folder / "figures/a.txt").write_text(run.run_id)
    if status != "RUNNING":
        run.finish(status, "because" if status != "FINISHED" else "")
    return run.run_id


@pytest.fixture
def other(tmp_path):
    """The URI of another store."""
    return f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"


def everything(store, run_id):
    """What a copy must have of a run, besides tags."""
    run = store.client.get_run(run_id)
    histories = {
        key: [
            (repr(point.value), point.timestamp, point.step) for point in store.client.get_metric_history(run_id, key)
        ]
        for key in run.data.metrics
    }
    folder = store.find(run_id).folder
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    times = run.info.start_time, run.info.end_time, run.info.status, run.info.run_name
    datasets = [each.dataset.digest for each in run.inputs.dataset_inputs]
    return run.data.params, histories, files, times, datasets


def test_the_copy_of_a_fit_is_tested_compared_and_loaded_in_the_other_store(litlab, other):
    assert litlab(*FIT).code == 0
    (run,) = Store().search(["1"], "")
    copied = litlab("copy", "latest", "--to", other)
    assert (copied.code, copied.out.splitlines()[-1]) == (0, f"copied 1 run to {other}")
    store = Store(other)
    (copy,) = store.search(["1"], "")
    assert copied.out.startswith(f"{run.run_id} -> {copy.run_id}\n")
    assert everything(store, copy.run_id) == everything(Store(), run.run_id)
    assert copy.tags == {**run.tags, COPIED_RUN_TAG: run.run_id, COPIED_STORE_TAG: Store().uri}
    assert litlab("test", copy.run_id, "--tracking_uri", other).code == 0
    assert copy.run_id[:8] in litlab("runs", "--tracking_uri", other).out
    compared = json.loads(litlab("compare", "digits-mlp", "--format", "json", "--tracking_uri", other).out)
    assert compared == json.loads(
        litlab("compare", "digits-mlp", "--format", "json").out.replace(run.run_id, copy.run_id)
    )
    (model,) = store.client.search_logged_models(["1"])
    (output,) = store.client.get_run(copy.run_id).outputs.model_outputs
    assert (model.source_run_id, output.model_id, str(model.status)) == (copy.run_id, model.model_id, "READY")
    described = mlflow.models.Model.load(str(local_path(model.artifact_location)))
    assert (described.run_id, described.model_id) == (copy.run_id, model.model_id)
    assert litlab("register", copy.run_id, "digits", "--tracking_uri", other).code == 0
    assert (
        litlab("copy", "digits-mlp", "--to", other).out == f"copied 0 runs to {other}; 1 run had been copied before\n"
    )


def test_a_study_is_copied_with_its_trials_and_all_links_name_copies(litlab, other):
    study = new_run("s-sweep", **{PARENT_TAG: "sweep", STUDY_TAG: "s"})
    trials = [
        new_run("s-sweep", status, **{PARENT_RUN_TAG: study, STUDY_TAG: "s"}) for status in ("FINISHED", "KILLED")
    ]
    source, store = Store(), Store(other)
    source.client.set_tag(study, BEST_RUN_TAG, trials[0])
    source.client.set_tag(study, STOP_TAG, "too late")
    (alone,), _ = copy_runs([trials[1]], other)
    assert store.find(alone.copy_id).tags[PARENT_RUN_TAG] == study, "there is no copy of it yet"
    copied, left_out = copy_runs(["s"], other)
    copies = {each.run.run_id: each.copy_id for each in copied}
    assert ([each.is_new for each in copied], left_out) == ([True, True, False], [])
    assert [run.run_id for run in store.children(copies[study])] == [copies[trial] for trial in trials]
    assert store.find(copies[study]).tags[BEST_RUN_TAG] == copies[trials[0]]
    assert STOP_TAG not in store.find(copies[study]).tags
    for run_id, copy_id in copies.items():
        assert everything(store, copy_id) == everything(source, run_id)
    assert not [each for each in copy_runs([study], other)[0] if each.is_new]
    assert litlab("show", "best:s", "--tracking_uri", other).out.splitlines()[0].endswith(copies[trials[0]])


@pytest.mark.parametrize(
    "step",
    [
        "log_models",
        "end",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("open", "log_params_and_metrics", "log_artifacts")),
    ],
)
def test_a_copy_that_was_interrupted_is_completed(other, monkeypatch, step):
    run_id, source = new_run(), Store()
    model = source.client.create_logged_model("1", name="model", source_run_id=run_id)
    source.client.log_model_artifact(model.model_id, str(source.find(run_id).folder / "metrics.jsonl"))
    source.client.finalize_logged_model(model.model_id, "READY")
    done = getattr(_Copy, step)

    def interrupted(self, *arguments):
        done(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Copy, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_runs([run_id], other)
    ((copied,), _), store = copy_runs([run_id], other), Store(other)
    (copy,) = store.search(["1"], "")
    assert copy.run_id == copied.copy_id
    assert copied.is_new == (step != "end")
    assert COPYING_TAG not in copy.tags
    assert everything(store, copy.run_id) == everything(source, run_id)
    (again,) = store.client.search_logged_models(["1"])
    assert (local_path(again.artifact_location) / "metrics.jsonl").is_file()


def test_a_copy_of_a_copy_is_one_of_the_same_run(other, tmp_path):
    run_id, third = new_run(), f"sqlite:///{tmp_path / 'third' / 'mlflow.db'}"
    ((copied,), _) = copy_runs([run_id], other)
    ((back,), _) = copy_runs([copied.copy_id], Store().uri, tracking_uri=other)
    assert (back.copy_id, back.is_new) == (run_id, False)
    ((further,), _) = copy_runs([copied.copy_id], third, tracking_uri=other)
    ((direct,), _) = copy_runs([run_id], third)
    assert (direct.copy_id, further.is_new, direct.is_new) == (further.copy_id, True, False)
    assert Store(third).find(direct.copy_id).tags[COPIED_STORE_TAG] == Store().uri


def test_what_cannot_be_copied_is_said(litlab, other, uri):
    running = new_run(status="RUNNING", **{PARENT_TAG: "seeds"})
    child = new_run(**{PARENT_RUN_TAG: running})
    finished = new_run()
    outcome = litlab("copy", "an experiment", "--to", other)
    assert outcome.code == 0
    assert f"left out: run {running} is RUNNING: copy it when it has ended" in outcome.err
    assert f"left out: run {child} is part of a run that is left out" in outcome.err
    assert [run.tags[COPIED_RUN_TAG] for run in Store(other).search(["1"], "")] == [finished]
    mistakes = {
        ("latest", "--to", uri): "is the store of the runs; name another one",
        ("nosuch", "--to", other): "'nosuch' is not an experiment, study or run",
        ("latest",): "the following arguments are required: --to",
        ("latest", "--to", "nosuch"): "expected sqlite:///FILE",
    }
    for arguments, message in mistakes.items():
        refused = litlab("copy", *arguments)
        assert (refused.code, message in refused.err) == (2, True), refused.err


@pytest.mark.slow
def test_a_run_is_copied_to_a_server_and_back_and_removed_there_with_its_files(litlab, mlflow_server, tmp_path):
    """Starts a server, the only place where artifacts are not files of this machine."""
    assert litlab(*FIT).code == 0
    (run,) = Store().search(["1"], "")
    folder, third = tmp_path / "server", f"sqlite:///{tmp_path / 'third' / 'mlflow.db'}"
    folder.mkdir()
    with mlflow_server(folder) as server:
        ((copied,), _) = copy_runs([run.run_id], server.uri)
        files = {path.name for path in (folder / "files").rglob("*") if path.is_file()}
        assert {"best.ckpt", "config.yaml", "model.pt2"} <= files
        assert litlab("test", copied.copy_id, "--tracking_uri", server.uri).code == 0
        ((back,), _) = copy_runs([copied.copy_id], third, tracking_uri=server.uri)
        assert everything(Store(third), back.copy_id) == everything(Store(), run.run_id)
        removed = litlab("rm", copied.copy_id, "--yes", "--tracking_uri", server.uri)
        assert removed.code == 0, removed.err
        assert not [path for path in (folder / "files").rglob("*") if path.is_file()]
        assert litlab("rm", copied.copy_id, "--yes", "--tracking_uri", server.uri).code == 2
