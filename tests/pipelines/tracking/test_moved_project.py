"""A project that is moved, renamed or copied: its runs are found, and nothing is written where it was."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from pipelines.cli import main
from pipelines.diagnostics.check import Context
from pipelines.diagnostics.moved import check_moved, find_changes, relocate
from pipelines.diagnostics.storage import check_disk
from pipelines.runtime.errors import UserError
from pipelines.tracking import run_log
from pipelines.tracking.artifacts import artifact_folder, moved_note
from pipelines.tracking.run import Run
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store
from pipelines.tracking.ui import serve_ui
from pipelines.tracking.uri import local_path

FIT = ["fit", "digits-mlp", "--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false"]
FAILS = """
from pathlib import Path
from lightning.pytorch import Callback

class Fails(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2 and Path(__file__).with_name("now").exists():
            raise RuntimeError("this run fails")
"""


class Project:
    """A project in a folder: a finished run, and one that failed after two epochs."""

    def __init__(self, folder, former, finished, failed):
        self.folder, self.former, self.finished, self.failed = folder, former, finished, failed
        self.uri = f"sqlite:///{folder}/mlflow.db"

    @property
    def database(self):
        return self.folder / "mlflow.db"

    def client(self):
        return MlflowClient(self.uri)

    def files(self, run_id):
        return self.folder / "mlartifacts" / "digits-mlp" / run_id / "artifacts"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The files of a project, and the folder that it was made in, which is gone."""
    base = tmp_path_factory.mktemp("projects")
    former, stash = base / "former" / "project", base / "stash"
    (base / "fails_once.py").write_text(FAILS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{former}/mlflow.db")
        patch.setenv("LITLAB_STATE", str(base / "state"))
        patch.delenv("LITLAB_UNSENT", raising=False)
        patch.syspath_prepend(base)
        assert main([*FIT, "--trainer.max_epochs", "1"]) == 0
        (base / "now").touch()
        assert main([*FIT, "--trainer.callbacks", "fails_once.Fails"]) == 1
        (base / "now").unlink()
        runs = Store().search(list(Store().experiment_names()), "", ["attributes.start_time ASC"])
    former.rename(stash)
    former.parent.rmdir()
    return base, former, stash, [run.run_id for run in runs]


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """The project in another folder."""
    base, former, stash, runs = trained
    shutil.copytree(stash, tmp_path / "a new name")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/a new name/mlflow.db")
    monkeypatch.delenv("LITLAB_UNSENT")
    monkeypatch.syspath_prepend(base)
    yield Project(tmp_path / "a new name", former, *runs)
    shutil.rmtree(former.parent, ignore_errors=True)


@pytest.fixture
def original(project, trained):
    """The original of a project that was copied."""
    shutil.copytree(trained[2], project.former)
    return project.former


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_moved_project_is_read_without_a_change(project, litlab, tmp_path):
    before = digest(project.database)
    tested = litlab("test", project.finished)
    assert tested.code == 0, tested.err
    assert litlab("compare", "digits-mlp").code == 0
    page = litlab("report", "digits-mlp", "--out", tmp_path / "page.html")
    assert page.code == 0, page.err
    assert "is missing" not in (tmp_path / "page.html").read_text()
    predicted = litlab("predict", project.finished, "--out", tmp_path / "out.csv")
    assert predicted.code == 0, predicted.err
    shown = litlab("show", project.finished)
    assert str(project.files(project.finished)) in " ".join(shown.out.split()), shown.out
    assert digest(project.database) == before
    assert not project.former.exists()


def test_a_run_of_a_moved_project_is_resumed_from_its_checkpoint_in_the_new_place(project, litlab):
    resumed = litlab("resume", project.failed)
    assert resumed.code == 0, resumed.err
    assert "after epoch 1, from last.ckpt" in resumed.err
    assert project.client().get_run(project.failed).info.status == "FINISHED"
    assert (project.files(project.failed) / "figures").is_dir()
    assert not project.former.exists()


def test_a_new_fit_in_a_moved_project_goes_to_the_new_place_and_so_does_what_its_module_logs(project, litlab):
    outcome = litlab(*FIT, "--trainer.max_epochs", "1")
    assert outcome.code == 0, outcome.err
    assert (project.files(outcome.run_id) / "config.yaml").is_file()
    (model,) = project.client().get_run(outcome.run_id).outputs.model_outputs
    location = project.client().get_logged_model(model.model_id).artifact_location
    assert (artifact_folder(location, project.uri) / "MLmodel").is_file()
    Store().client.log_text(outcome.run_id, "text", "note.txt")  # as `self.logger.experiment` does
    assert (project.files(outcome.run_id) / "note.txt").is_file()
    assert litlab("test", outcome.run_id).code == 0
    assert not project.former.exists()


def test_doctor_corrects_the_paths_after_a_copy_so_that_mlflow_itself_finds_everything(project, mlflow_store):
    (found,) = check_moved(Context(project.uri, Path("data"), fix=False))
    assert found.state == "to do"
    assert f"are recorded in {project.former}; " in found.message
    (fixed,) = check_moved(Context(project.uri, Path("data"), fix=True))
    assert fixed.state == "fixed"
    (copy,) = project.folder.glob("mlflow.db.*.copy")
    with closing(sqlite3.connect(copy)) as old, closing(sqlite3.connect(project.database)) as new:
        texts = ["\n".join(database.iterdump()) for database in (old, new)]
    assert str(project.former.parent) not in texts[1]
    assert texts[0].replace(project.former.as_uri(), project.folder.as_uri()) == texts[1]
    client = project.client()
    run = client.get_run(project.finished)
    names = {file.path for file in LocalArtifactRepository(run.info.artifact_uri).list_artifacts()}
    assert {"config.yaml", "checkpoints"} <= names
    mlflow_store(project.uri)
    mlflow.pytorch.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    assert find_changes(project.database) == []


def test_what_mlflow_does_itself_is_said_to_need_the_correction(project, litlab):
    registered = litlab("register", project.finished, "digits")
    assert registered.code == 0, registered.err
    note = f"the project was moved to {project.folder}: MLflow itself finds its files after litlab doctor --fix"
    assert note in registered.err
    with serve_ui() as server:
        assert server.note == note
    relocate(project.database)
    assert moved_note(project.client(), project.uri) == ""


def test_a_model_registered_before_the_move_is_loaded_after_the_correction(trained, project, litlab, mlflow_store):
    shutil.copytree(project.folder, project.former)
    former_uri = f"sqlite:///{project.former}/mlflow.db"
    assert litlab("register", project.finished, "digits", "--tracking_uri", former_uri).code == 0
    shutil.rmtree(project.folder)
    project.former.rename(project.folder)
    relocate(project.database)
    mlflow_store(project.uri)
    mlflow.pytorch.load_model("models:/digits/1")


@pytest.mark.slow
def test_nothing_is_written_to_the_original_of_a_copied_project(project, original, litlab):
    before = content(original)
    assert litlab("resume", project.failed).code == 0
    assert litlab(*FIT, "--trainer.max_epochs", "1").code == 0
    Store().client.delete_run(project.finished)
    context = Context(project.uri, Path("data"), fix=True, free=True)
    assert "litlab doctor --fix first" in list(check_disk(context))[-1].message
    assert content(original) == before
    assert [result.state for result in (*check_moved(context), list(check_disk(context))[-1])] == ["fixed", "fixed"]
    assert not project.files(project.finished).exists()
    assert content(original) == before


@pytest.mark.slow
def test_a_copied_database_reads_the_files_of_the_original_and_writes_beside_itself(project, original, litlab):
    shutil.rmtree(project.folder / "mlartifacts")
    before = content(original)
    assert litlab("test", project.finished).code == 0
    outcome = litlab(*FIT, "--trainer.max_epochs", "1")
    assert outcome.code == 0, outcome.err
    assert (project.files(outcome.run_id) / "config.yaml").is_file()
    assert content(original) == before
    refused = litlab("resume", project.failed)
    assert refused.code == 2
    assert f"copy it to {project.files(project.failed)}" in refused.err
    assert content(original) == before


def test_a_database_with_an_unknown_schema_is_not_changed(project):
    with closing(sqlite3.connect(project.database)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = content(project.folder)
    with pytest.raises(UserError, match="schema version ffffffffffff"):
        relocate(project.database)
    assert content(project.folder) == before


def test_artifacts_that_lie_elsewhere_on_purpose_are_left_alone(project, tmp_path):
    client, disk = Store().client, tmp_path / "disk"
    (disk / "mlartifacts" / "large").mkdir(parents=True)
    places = [f"{disk.as_uri()}/mlartifacts/large", f"{disk.as_uri()}/mlartifacts/new", (tmp_path / "x").as_uri()]
    for index, place in enumerate([*places, "s3://bucket/mlartifacts/e"]):
        client.create_experiment(f"e{index}", artifact_location=place)
    for index, place in enumerate(places):
        run = Run(Store(), f"e{index}", "run", {})
        assert run.folder == local_path(f"{place}/{run.run_id}/artifacts")
        run.finish("FINISHED")
    relocate(project.database)
    kept = [client.get_experiment_by_name(f"e{index}").artifact_location for index in range(4)]
    assert kept == [*places, "s3://bucket/mlartifacts/e"]


def test_unsent_data_of_a_moved_or_copied_project_go_to_its_own_database(project, original, litlab):
    log = RunLog.load(run_log.home_of(project.uri, project.finished))
    assert log is None
    known = project.client().get_run(project.finished).info
    log = RunLog.new(f"sqlite:///{original}/mlflow.db", known, project.folder / "unsent" / project.finished)
    log.artifacts, log.tags, log.process = original / "mlartifacts/digits-mlp" / project.finished / "artifacts", {}, {}
    log.tags, log.status, log.end_time = {"sent": "late"}, "FINISHED", 1
    log.save()
    before = digest(original / "mlflow.db")
    sent = litlab("sync", project.finished)
    assert sent.code == 0, sent.out + sent.err
    assert project.client().get_run(project.finished).data.tags["sent"] == "late"
    assert digest(original / "mlflow.db") == before


def test_a_new_start_is_not_advised_while_there_are_checkpoints(project, litlab):
    (project.files(project.failed) / "config.yaml").unlink()
    refused = litlab("resume", project.failed)
    assert refused.code == 2
    assert "checkpoints/last.ckpt" in refused.err
    shutil.rmtree(project.folder / "mlartifacts")
    missing = litlab("resume", project.failed)
    assert missing.code == 2
    assert f"there is no {project.files(project.failed)}" in missing.err
    assert "To restart" not in refused.err + missing.err


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ("/old/p/mlartifacts/mlartifacts", "mlartifacts/mlartifacts"),
        ("/old/mlartifacts/p/mlartifacts/e", "mlartifacts/e"),
        (f"/old/mlartifacts/mlartifacts/{'a' * 32}/artifacts", f"mlartifacts/mlartifacts/{'a' * 32}/artifacts"),
        ("/old/p/mlartifacts/e/models/m-1/artifacts", "mlartifacts/e/models/m-1/artifacts"),
        ("/old/p/elsewhere/e", None),
        ("/old/p/mlruns/0", None),
    ],
)
def test_the_place_of_artifacts_is_that_of_their_layout_beside_the_database(tmp_path, recorded, found):
    expected = Path(recorded) if found is None else tmp_path / found
    assert artifact_folder(f"file://{recorded}", f"sqlite:///{tmp_path}/mlflow.db") == expected


def test_a_project_that_is_moved_into_its_own_parent_or_seen_through_a_link_is_found(tmp_path):
    run = f"mlartifacts/e/{'a' * 32}/artifacts"
    (tmp_path / run).mkdir(parents=True)
    inside = f"file://{tmp_path}/inside/{run}"
    assert artifact_folder(inside, f"sqlite:///{tmp_path}/mlflow.db") == tmp_path / run
    (tmp_path / "link").symlink_to(tmp_path)
    seen = artifact_folder(f"file://{tmp_path}/{run}", f"sqlite:///{tmp_path}/link/mlflow.db")
    assert seen.samefile(tmp_path / run)
