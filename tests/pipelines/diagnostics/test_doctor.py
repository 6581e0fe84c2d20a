"""`litlab doctor`: it reports what is wrong, repairs what it can, and survives whatever is broken."""

import hashlib
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from datamodules.mnist import OFFICIAL_SHA256
from pipelines.diagnostics import databases, runs, storage, torch_process
from pipelines.diagnostics.check import Context, run_check
from pipelines.diagnostics.doctor import diagnose
from pipelines.tracking.run import Run
from pipelines.tracking.run_log import RunLog, home_of
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, PROCESS_TAG
from pipelines.tracking.uri import local_path
from sweeps.search.storage import open_storage, storage_url

DEAD = f"{2**22 + 1}:another-start"  # no process has so high a number
DOCTOR = "import sys; from pipelines.cli import main; code = main(['doctor']); print('torch' in sys.modules, code)"


@pytest.fixture
def context(uri, tmp_path):
    """A project's folder; what is there is to be repaired."""
    return Context(uri, tmp_path / "data", fix=True)


def without_fix(context, **changes):
    return replace(context, fix=False, **changes)


def doctor(tmp_path, **environment):
    """The command in a process and a folder of its own: its exit code, whether it imported torch, and its lines."""
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", DOCTOR], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    imported, code = last.split()
    return int(code), imported == "True", lines


def test_on_a_sound_machine_each_line_is_ok_and_torch_is_imported_only_in_its_own_process(tmp_path):
    code, imported_torch, lines = doctor(tmp_path)
    assert (code, imported_torch) == (0, False), lines
    assert all(line.startswith("ok ") for line in lines)
    names = ["torch pair", "optuna.db", "unsent", "mlflow.db", "runs", "disk", *torch_process.STEPS]
    assert list(dict.fromkeys(line[7:19].strip() for line in lines)) == names
    assert not (tmp_path / "runs").exists(), "it only checks"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise OSError('libcudart.so.12: cannot open it')", "cannot be used (OSError: libcudart"),
        ("import os; os.abort()", "Python itself ended (signal 6)"),
    ],
    ids=["a library is missing", "a crash"],
)
def test_a_broken_torch_is_reported_and_all_other_checks_run(tmp_path, content, message):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(content)
    path = os.pathsep.join([str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])
    code, _, lines = doctor(tmp_path, PYTHONPATH=path)
    assert code == 1
    assert len(lines) == 7
    (torch,) = [line for line in lines if not line.startswith("ok ")]
    assert torch.startswith("to do  torch ")
    assert message in torch
    assert "pip install --force-reinstall torch torchvision" in torch


def test_an_exception_in_a_check_becomes_a_result_without_passwords():
    def check():
        raise ZeroDivisionError("postgresql://me:secret@host/db\nand more")

    (result,) = run_check(check, "numbers")
    assert result.state == "to do"
    assert result.message == "could not be checked: ZeroDivisionError: postgresql://me:***@host/db"


def create_outdated_database(uri):
    """Create a database as the version of MLflow before the last change of its tables did."""
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    before = ScriptDirectory.from_config(config).get_revision("head").down_revision
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before)
    engine.dispose()


@pytest.mark.slow
def test_tables_of_an_older_mlflow_are_brought_up_to_date_after_a_copy(context, uri):
    context.folder.mkdir()
    create_outdated_database(uri)
    (result,) = databases.check_runs_database(without_fix(context))
    assert result.state == "to do"
    assert f"mlflow db upgrade {uri}" in result.message
    before = sqlite3.connect(context.database).execute("SELECT * FROM alembic_version").fetchall()
    (result,) = databases.check_runs_database(context)
    assert result.state == "fixed", result.message
    (copy,) = context.folder.glob("mlflow.db.*.copy")
    assert str(copy) in result.message
    assert sqlite3.connect(copy).execute("SELECT * FROM alembic_version").fetchall() == before
    (result,) = databases.check_runs_database(without_fix(context))
    assert result.state == "ok"
    Run(Store(uri), "an experiment", "a run", {}).finish("FINISHED")


def test_tables_of_an_older_optuna_are_brought_up_to_date_after_a_copy(context, uri):
    """Its last change added an index that new databases have under another name."""
    context.folder.mkdir()
    path = context.folder / databases.OPTUNA_FILE
    open_storage(storage_url(None, Store(uri)))
    assert path.exists(), "where litlab sweep creates it"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    assert [result.state for result in databases.check_studies(without_fix(context))] == ["to do"]
    (result,) = databases.check_studies(context)
    assert result.state == "fixed", result.message
    assert len(list(context.folder.glob("optuna.db.*.copy"))) == 1
    assert [result.state for result in databases.check_studies(without_fix(context))] == ["ok"]


def test_tables_of_a_newer_mlflow_and_a_database_of_another_program_are_not_changed(context):
    context.folder.mkdir()
    with sqlite3.connect(context.database) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    (result,) = databases.check_runs_database(context)
    assert "belongs to another program" in result.message
    with sqlite3.connect(context.database) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('of the future')")
    (result,) = databases.check_runs_database(context)
    assert "is of a newer mlflow" in result.message
    assert [path.name for path in context.folder.iterdir()] == ["mlflow.db"]


def test_a_damaged_database_is_reported_with_a_way_to_recover_it(context, uri):
    Store(uri)
    content_before = context.database.read_bytes()
    half = len(content_before) // 2
    for content in (b"x" * 100 + content_before[100:], content_before[:half], content_before[:half] + os.urandom(half)):
        context.database.write_bytes(content)
        (result,) = databases.check_runs_database(context)
        assert result.state == "to do"
        assert str(context.database) in result.message
        assert ".recover" in result.message
        assert context.database.read_bytes() == content


def test_a_server_that_is_down_is_reported_without_its_password(context):
    (result,) = databases.check_runs_database(without_fix(context, tracking_uri="http://me:secret@127.0.0.1:9"))
    assert result.state == "to do"
    assert "http://me:***@127.0.0.1:9 does not answer (" in result.message
    assert "refused" in result.message
    assert "secret" not in result.message


def test_a_fit_whose_process_is_gone_is_ended_and_can_still_be_resumed(litlab, uri, context):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id
    client = MlflowClient(uri)
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, PROCESS_TAG, DEAD)
    (result,) = runs.check_orphans(without_fix(context))
    assert result.state == "to do"
    assert f"litlab resume {run_id}" in result.message
    assert client.get_run(run_id).info.status == "RUNNING"
    (result,) = runs.check_orphans(context)
    assert result.state == "fixed"
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["litlab.reason"]) == ("KILLED", runs.REASON)
    assert f"{run_id}  KILLED" in litlab("resume").err
    assert litlab("resume", run_id).code == 0
    assert client.get_run(run_id).info.status == "FINISHED"


def test_runs_with_unsent_data_are_reported_unless_their_process_is_alive(uri, context):
    run = Run(Store(uri), "experiment", "run", {})
    assert [result.state for result in runs.check_unsent(context)] == ["ok"]
    box = RunLog.load(home_of(uri, run.run_id))
    box.process = {**box.process, PROCESS_TAG: DEAD}
    box.save()
    (result,) = runs.check_unsent(context)
    assert result.state == "to do"
    assert result.message.startswith(run.run_id)
    run.finish("FINISHED")
    assert [result.state for result in runs.check_unsent(context)] == ["ok"]


def test_runs_that_may_still_be_running_are_not_ended(uri, context):
    store = Store(uri)
    study = Run(store, "an experiment", "a study", {"litlab.parent": "sweep"})
    Run(store, "an experiment", "alive", {"mlflow.parentRunId": study.run_id})
    elsewhere = Run(store, "an experiment", "elsewhere", {})
    foreign = Run(store, "an experiment", "of another program", {})
    for run in (study, elsewhere, foreign):
        store.tag(run.run_id, PROCESS_TAG, DEAD)
    store.tag(elsewhere.run_id, HOST_TAG, "elsewhere")
    store.client.delete_tag(foreign.run_id, PROCESS_TAG)
    (result,) = runs.check_orphans(context)
    assert result.state == "ok"
    assert "4 are RUNNING, of which 1 are on other machines" in result.message
    tags = {"mlflow.parentRunId": "0" * 32, "litlab.command": "litlab sweep x"}
    store.tag(Run(store, "an experiment", "a trial", tags).run_id, PROCESS_TAG, DEAD)
    (result,) = runs.check_orphans(context)
    assert result.message.endswith("is now KILLED; to continue, run the same command again: litlab sweep x")


def test_data_files_are_compared_with_the_official_digests(mnist_format, monkeypatch, tmp_path):
    assert "litlab fit mnist-mlp downloads it" in torch_process._mnist(tmp_path).message
    result = torch_process._mnist(mnist_format)
    assert result.state == "to do"
    assert "train-images-idx3-ubyte: the content is damaged" in result.message
    for name in OFFICIAL_SHA256:
        content = (mnist_format / "MNIST" / "raw" / name).read_bytes()
        monkeypatch.setitem(OFFICIAL_SHA256, name, hashlib.sha256(content).hexdigest())
    assert torch_process._mnist(mnist_format).state == "ok"


def test_a_missing_class_folder_is_reported(cifar_format, tmp_path):
    assert torch_process._cifar(tmp_path).state == "ok"
    assert torch_process._cifar(cifar_format).state == "ok"
    (tmp_path / "cifar10" / "train" / "cat").mkdir(parents=True)
    result = torch_process._cifar(tmp_path)
    assert result.state == "to do"
    assert str(tmp_path / "cifar10" / "train" / "airplane") in result.message


def distribution(folder, name, version, *requires):
    """Write metadata of a package as pip installs them."""
    (folder / f"{name}-{version}.dist-info").mkdir()
    needs = [f"Requires-Dist: {requirement}" for requirement in requires]
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *needs]
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join([*lines, ""]))


def test_a_torchvision_for_another_torch_is_reported(context, tmp_path, monkeypatch):
    assert [result.state for result in torch_process.check_torch_pair(context)] == ["ok"]
    distribution(tmp_path, "torchvision", "0.29.9", "torch==2.0.1")
    monkeypatch.syspath_prepend(tmp_path)
    (result,) = torch_process.check_torch_pair(context)
    assert result.state == "to do"
    assert "torchvision requires torch==2.0.1" in result.message


def test_only_old_unfinished_files_are_deleted(context):
    folder = context.folder / "mlartifacts" / "an experiment" / ("0" * 32) / "artifacts" / "checkpoints"
    folder.mkdir(parents=True)
    names = [".last.ckpt.part", ".best.ckpt.part", "last.ckpt", "last.ckpt.damaged"]
    for name in names:
        (folder / name).write_text("some")
    os.utime(folder / names[0], (0, 0))
    assert [result.state for result in storage.check_leftovers(without_fix(context))] == ["to do", "ok"]
    result, _ = storage.check_leftovers(context)
    assert result.state == "fixed"
    assert str(folder / names[0]) in result.message
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[1:])
    (result,) = storage.check_leftovers(context)
    assert result.state == "ok"
    assert "last.ckpt.damaged" in result.message


def create_run(client, experiment_id, *, size):
    """Create a run with an artifact and a model of this many bytes each; return the run's folder and the model's."""
    run = client.create_run(experiment_id)
    model = client.create_logged_model(experiment_id, source_run_id=run.info.run_id)
    folders = [local_path(run.info.artifact_uri), local_path(model.artifact_location)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * size)
    client.finalize_logged_model(model.model_id, "READY")
    return run.info.run_id, model.model_id, *folders


@pytest.fixture
def deleted_runs(uri, context):
    """An experiment with an active run, a deleted run, and a deleted run whose model is registered."""
    store = Store(uri)
    experiment_id = store.experiment_id("an experiment")
    created = [create_run(store.client, experiment_id, size=size) for size in (1_000_000, 2_000_000, 4_000_000)]
    (_, _, active, _), (first, _, _, _), (second, model_id, _, model) = created
    (active / "again").hardlink_to(active / "data")
    store.client.create_registered_model("a model")
    store.client.create_model_version("a model", model.as_uri(), second, model_id=model_id)
    for run_id in (first, second):
        store.client.delete_run(run_id)
    return created


def test_disk_use_of_experiments_and_of_deleted_runs_is_reported(context, deleted_runs):
    use, total, deleted = storage.check_disk(context)
    assert {result.state for result in (use, total, deleted)} == {"ok"}
    assert use.message == "14.0 MB by an experiment, 3 runs"
    assert total.message == "14.0 MB by 1 experiment in all"
    assert deleted.message.startswith("8.0 MB by 2 deleted runs and 1 model of deleted runs; litlab doctor --free")
    assert all(folder.exists() for _, _, *folders in deleted_runs for folder in folders), "it only reports"


@pytest.mark.slow
def test_the_printed_command_deletes_deleted_runs_only(context, deleted_runs, tmp_path, monkeypatch):
    *_, deleted = storage.check_disk(context)
    program, *arguments = shlex.split(re.search(r"\((mlflow gc .*): only the runs\)", deleted.message)[1])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # as for a user; the command must name the store itself
    subprocess.run([sys.executable, "-m", program, *arguments], cwd=tmp_path, check=True, capture_output=True)
    exist = [[folder.exists() for folder in folders] for _, _, *folders in deleted_runs]
    assert exist == [[True, True], [False, True], [False, True]]


@pytest.mark.slow
def test_free_deletes_deleted_runs_and_their_models_unless_they_are_registered(context, uri, deleted_runs):
    *_, result = storage.check_disk(replace(context, free=True))
    assert (result.state, result.message[:12]) == ("fixed", "8.0 MB freed"), result.message
    exist = [[folder.exists() for folder in folders] for _, _, *folders in deleted_runs]
    assert exist == [[True, True], [False, False], [False, True]]
    client, ((active, *_), *_) = MlflowClient(uri), deleted_runs
    runs_left = client.search_runs(list(Store(uri).experiment_names()), run_view_type=ViewType.ALL)
    assert [run.info.run_id for run in runs_left] == [active]
    assert client.get_model_version("a model", "1").status == "READY"
    assert [result.name for result in storage.check_disk(context)] == ["disk", "disk"]


def test_missing_folders_are_not_created(context):
    checks = [storage.check_disk, storage.check_leftovers]
    checks += [databases.check_runs_database, databases.check_studies, runs.check_orphans]
    for check in checks:
        assert all(result.state == "ok" for result in check(context))
    assert not Path(context.folder).exists()


def test_diagnose_returns_the_results_of_all_checks(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_process, "TIMEOUT_S", 0)
    results = {result.name: result for result in diagnose(tracking_uri=uri, data_dir=tmp_path)}
    assert {"torch pair", "optuna.db", "mlflow.db", "runs", "unsent", "torch"} <= results.keys()
    assert results["torch"].state == "to do"
    assert "no answer after 0 s" in results["torch"].message
