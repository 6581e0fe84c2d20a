"""`litlab doctor`: says what is wrong, mends what it can, and stands whatever is broken."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from datamodules.mnist import OFFICIAL_SHA256
from pipelines.diagnostics import databases, machine, runs
from pipelines.diagnostics import installation as installed
from pipelines.diagnostics import torch_process as child
from pipelines.diagnostics.finding import Place, guarded
from pipelines.tracking import ui
from pipelines.tracking.outbox import Outbox, home_of
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, PROCESS_TAG
from sweeps.search.storage import open_storage, storage_url

DEAD = f"{2**22 + 1}:another-start"  # no process has so high a number
DOCTOR = "import sys; from pipelines.cli import main; code = main(['doctor']); print('torch' in sys.modules, code)"


@pytest.fixture
def place(uri, tmp_path):
    """A project's folder; what is there is to be mended."""
    return Place(uri, tmp_path / "data", fix=True)


def look(place, **changes):
    return Place(**{"given": place.given, "data_dir": place.data_dir, "fix": False, **changes})


def doctor(tmp_path, **environment):
    """The command in a process and a folder of its own: its exit code, whether it imported torch, and its lines."""
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", DOCTOR], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    imported, code = last.split()
    return int(code), imported == "True", lines


def test_where_all_is_well_each_line_is_ok_and_torch_stays_in_its_own_process(tmp_path):
    code, imported_torch, lines = doctor(tmp_path)
    assert (code, imported_torch) == (0, False), lines
    assert all(line.startswith("ok ") for line in lines)
    names = ["Python", "packages", "torch pair", "git", "disk", "writing", "memory", "ports", "leftovers"]
    names += ["optuna.db", "mlflow.db", "runs", "unsent", *child.STEPS]
    assert list(dict.fromkeys(line[7:19].strip() for line in lines)) == names
    assert not (tmp_path / "runs").exists(), "it only looks"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise OSError('libcudart.so.12: cannot open it')", "cannot be used (OSError: libcudart"),
        ("import os; os.abort()", "Python itself ended (signal 6)"),
    ],
    ids=["a library is missing", "a crash"],
)
def test_a_broken_torch_and_a_broken_folder_are_told_and_all_else_is_looked_at(tmp_path, content, said):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(content)
    (tmp_path / "runs").write_text("no folder")
    path = os.pathsep.join([str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])
    code, _, lines = doctor(tmp_path, PYTHONPATH=path)
    assert code == 1
    writing, torch = [line for line in lines if not line.startswith("ok ")]
    assert writing.startswith("to do  writing ")
    assert f"{tmp_path / 'runs'}: Not a directory" in writing
    assert torch.startswith("to do  torch ")
    assert said in torch
    assert "pip install --force-reinstall torch torchvision" in torch


def test_a_check_that_fails_is_a_line_like_any_other():
    def check():
        raise ZeroDivisionError("postgresql://me:secret@host/db\nand more")

    (found,) = guarded(check, "numbers")
    assert found.state == "to do"
    assert found.said == "could not be checked: ZeroDivisionError: postgresql://me:***@host/db"


def outdated(uri):
    """A database as the version of MLflow before the last change of its tables has made it."""
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    before = ScriptDirectory.from_config(config).get_revision("head").down_revision
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before)
    engine.dispose()


def test_tables_of_an_older_mlflow_are_brought_up_to_date_after_a_copy(place, uri):
    place.folder.mkdir()
    outdated(uri)
    (found,) = databases.runs(look(place))
    assert found.state == "to do"
    assert f"mlflow db upgrade {uri}" in found.said
    before = sqlite3.connect(place.database).execute("SELECT * FROM alembic_version").fetchall()
    (found,) = databases.runs(place)
    assert found.state == "fixed", found.said
    (copy,) = place.folder.glob("mlflow.db.*.copy")
    assert str(copy) in found.said
    assert sqlite3.connect(copy).execute("SELECT * FROM alembic_version").fetchall() == before
    (found,) = databases.runs(look(place))
    assert found.state == "ok"
    Run(Store(uri), "an experiment", "a run", {}).finish("FINISHED")


def test_tables_of_an_older_optuna_are_brought_up_to_date_after_a_copy(place, uri):
    """Its last change added an index that new databases have under another name."""
    place.folder.mkdir()
    path = place.folder / databases.OPTUNA
    open_storage(storage_url(None, Store(uri)))
    assert path.exists(), "where litlab sweep has it"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    assert [found.state for found in databases.studies(look(place))] == ["to do"]
    (found,) = databases.studies(place)
    assert found.state == "fixed", found.said
    assert len(list(place.folder.glob("optuna.db.*.copy"))) == 1
    assert [found.state for found in databases.studies(look(place))] == ["ok"]


def test_tables_of_a_newer_mlflow_and_a_database_of_something_else_are_left_alone(place):
    place.folder.mkdir()
    with sqlite3.connect(place.database) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    (found,) = databases.runs(place)
    assert "is a database of something else" in found.said
    with sqlite3.connect(place.database) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('of the future')")
    (found,) = databases.runs(place)
    assert "was made by a newer mlflow" in found.said
    assert [path.name for path in place.folder.iterdir()] == ["mlflow.db"]


def test_a_damaged_database_is_named_with_a_way_out(place, uri):
    Store(uri)
    whole = place.database.read_bytes()
    half = len(whole) // 2
    for content in (b"x" * 100 + whole[100:], whole[:half], whole[:half] + os.urandom(half)):
        place.database.write_bytes(content)
        (found,) = databases.runs(place)
        assert found.state == "to do"
        assert str(place.database) in found.said
        assert ".recover" in found.said
        assert place.database.read_bytes() == content


def test_a_server_that_is_down_is_named_without_its_password(place):
    (found,) = databases.runs(look(place, given="http://me:secret@127.0.0.1:9"))
    assert found.state == "to do"
    assert "http://me:***@127.0.0.1:9 does not answer (" in found.said
    assert "refused" in found.said
    assert "secret" not in found.said


def test_a_fit_that_is_gone_is_ended_and_can_still_be_resumed(litlab, uri, place):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id
    client = MlflowClient(uri)
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, PROCESS_TAG, DEAD)
    (found,) = runs.orphans(look(place))
    assert found.state == "to do"
    assert f"litlab resume {run_id}" in found.said
    assert client.get_run(run_id).info.status == "RUNNING"
    (found,) = runs.orphans(place)
    assert found.state == "fixed"
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["litlab.reason"]) == ("KILLED", runs.REASON)
    assert [path.name for path in runs.checkpoints(place)] == ["best.ckpt", "last.ckpt"]
    assert f"{run_id}  KILLED" in litlab("resume").err
    assert litlab("resume", run_id).code == 0
    assert client.get_run(run_id).info.status == "FINISHED"
    assert runs.checkpoints(place) == []


def test_runs_of_which_something_waits_are_named_unless_their_process_is_alive(uri, place):
    run = Run(Store(uri), "experiment", "run", {})
    assert [found.state for found in runs.unsent(place)] == ["ok"]
    box = Outbox.load(home_of(uri, run.run_id))
    box.process = {**box.process, PROCESS_TAG: DEAD}
    box.save()
    (found,) = runs.unsent(place)
    assert found.state == "to do"
    assert found.said.startswith(run.run_id)
    run.finish("FINISHED")
    assert [found.state for found in runs.unsent(place)] == ["ok"]


def test_runs_that_somebody_may_be_at_are_left_alone(uri, place):
    store = Store(uri)
    study = Run(store, "an experiment", "a study", {"litlab.parent": "sweep"})
    Run(store, "an experiment", "alive", {"mlflow.parentRunId": study.run_id})
    elsewhere = Run(store, "an experiment", "elsewhere", {})
    foreign = Run(store, "an experiment", "of another program", {})
    for run in (study, elsewhere, foreign):
        store.tag(run.run_id, PROCESS_TAG, DEAD)
    store.tag(elsewhere.run_id, HOST_TAG, "elsewhere")
    store.client.delete_tag(foreign.run_id, PROCESS_TAG)
    (found,) = runs.orphans(place)
    assert found.state == "ok"
    assert "4 are RUNNING, of which 1 are of other machines" in found.said
    tags = {"mlflow.parentRunId": "0" * 32, "litlab.command": "litlab sweep x"}
    store.tag(Run(store, "an experiment", "a trial", tags).run_id, PROCESS_TAG, DEAD)
    (found,) = runs.orphans(place)
    assert found.said.endswith("is KILLED now; to go on, the same command: litlab sweep x")


def test_data_files_are_held_against_the_official_digests(mnist_format, monkeypatch, tmp_path):
    assert "litlab fit mnist-mlp downloads it" in child._mnist(tmp_path).said
    found = child._mnist(mnist_format)
    assert found.state == "to do"
    assert "train-images-idx3-ubyte: the content is damaged" in found.said
    for name in OFFICIAL_SHA256:
        content = (mnist_format / "MNIST" / "raw" / name).read_bytes()
        monkeypatch.setitem(OFFICIAL_SHA256, name, hashlib.sha256(content).hexdigest())
    assert child._mnist(mnist_format).state == "ok"


def test_folders_of_images_lack_no_class(cifar_format, tmp_path):
    assert child._cifar(tmp_path).state == "ok"
    assert child._cifar(cifar_format).state == "ok"
    (tmp_path / "cifar10" / "train" / "cat").mkdir(parents=True)
    found = child._cifar(tmp_path)
    assert found.state == "to do"
    assert str(tmp_path / "cifar10" / "train" / "airplane") in found.said


def test_damaged_checkpoints_are_named(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"x" * 1000)
    (found,) = child._damaged([tmp_path / "last.ckpt"])
    assert found.state == "to do"
    assert f"{tmp_path / 'last.ckpt'} is damaged" in found.said


def distribution(folder, name, version, *requires):
    """Metadata as pip installs them, before all others on the path."""
    (folder / f"{name}-{version}.dist-info").mkdir()
    needs = [f"Requires-Dist: {one}" for one in requires]
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *needs]
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join([*lines, ""]))


def test_a_torchvision_for_another_torch_and_a_version_that_litlab_refuses_are_named(place, tmp_path, monkeypatch):
    distribution(tmp_path, "torchvision", "0.29.9", "torch==2.0.1")
    distribution(tmp_path, "lightning", "2.6.3")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = installed.pair(place)
    assert found.state == "to do"
    assert "torchvision asks for ==2.0.1" in found.said
    (found,) = installed.packages(place)
    assert found.state == "to do"
    assert "lightning 2.6.3 is here, litlab asks for" in found.said


def test_only_old_halves_of_files_are_deleted(place):
    folder = place.folder / "mlartifacts" / "an experiment" / ("0" * 32) / "artifacts" / "checkpoints"
    folder.mkdir(parents=True)
    names = [".last.ckpt.part", ".best.ckpt.part", "last.ckpt", "last.ckpt.damaged"]
    for name in names:
        (folder / name).write_text("some")
    os.utime(folder / names[0], (0, 0))
    assert [found.state for found in machine.leftovers(look(place))] == ["to do"]
    (found,) = machine.leftovers(place)
    assert found.state == "fixed"
    assert str(folder / names[0]) in found.said
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[1:])
    (found,) = machine.leftovers(place)
    assert found.state == "ok"
    assert "last.ckpt.damaged" in found.said


def test_too_little_room_memory_or_no_port_is_to_do_and_the_numbers_are_said(place, monkeypatch):
    checks = (machine.space, machine.memory, machine.ports)
    assert {found.state for check in checks for found in check(place)} == {"ok"}
    monkeypatch.setattr(machine, "LEAST_GB", 1e9)
    monkeypatch.setattr(ui, "PORTS_TO_TRY", 0)
    found = [each for check in checks for each in check(place)]
    assert {each.state for each in found} == {"to do"}
    assert all(" GB free" in each.said for each in found[:-1])


def test_a_folder_that_cannot_be_written_to_is_named(place, monkeypatch):
    monkeypatch.setattr(machine.tempfile, "tempdir", "/proc")
    (found,) = [found for found in machine.writing(place) if found.state == "to do"]
    assert found.said.startswith("/proc: ")


def test_folders_that_are_not_there_yet_are_not_made(place):
    for check in (machine.space, machine.writing, machine.leftovers, databases.runs, databases.studies, runs.orphans):
        assert all(found.state == "ok" for found in check(place))
    assert not Path(place.folder).exists()
