"""Tracking URIs: whatever the name of its folder, a database is where its URI says."""

from pathlib import Path

import pytest

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_file, sqlite_uri, store_uri
from sweeps.search.storage import open_storage, storage_url

NAMES = ["why?", "a?b=c", "100%", "a%20b", "a#b", "a b", "größe 日本", "a&b;c", "q?x=1&y=2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("escaped", [False, True])
def test_the_databases_of_runs_and_studies_are_in_the_folder_whatever_its_name(tmp_path, name, escaped):
    folder = tmp_path / name
    folder.mkdir()
    given = sqlite_uri(folder / "mlflow.db") if escaped else f"sqlite:///{folder}/mlflow.db"
    store = Store(given)
    run = store.create_run("e", "run", {"litlab.key": "x"})
    store.client.log_text(run.run_id, "text", "note.txt")
    assert store.find(run.run_id).file("note.txt").read_text() == "text"
    open_storage(storage_url(None, store))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in folder.iterdir()} >= {"mlflow.db", "optuna.db", "mlartifacts"}
    assert store_uri(store.uri) == store.uri
    assert database_file(store.uri) == folder / "mlflow.db"


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/m.db", "/a/m.db"),
        ("sqlite:////a/m.db?timeout=60", "/a/m.db"),
        ("sqlite:////a?b=c/m.db?timeout=60", "/a?b=c/m.db"),
        ("sqlite+pysqlite:////a%3Fb/m.db", "/a?b/m.db"),
    ],
)
def test_options_are_no_part_of_the_file_name_and_are_kept(uri, file):
    assert database_file(uri) == Path(file)
    assert store_uri(uri).endswith("?timeout=60") == uri.endswith("?timeout=60")


def test_an_escaped_space_is_decoded_unless_there_is_a_folder_with_the_escape_in_its_name(tmp_path):
    (tmp_path / "a b").mkdir()
    uri = f"sqlite:///{tmp_path}/a%20b/mlflow.db"
    assert database_file(uri) == tmp_path / "a b/mlflow.db"
    (tmp_path / "a%20b").mkdir()
    assert database_file(uri) == tmp_path / "a%20b/mlflow.db"


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store_uri("sqlite:///x/m.db") == f"sqlite:///{tmp_path}/x/m.db"


@pytest.mark.parametrize("uri", ["ftp://server", "mlruns", "sqlite:x"])
def test_other_uris_are_refused(uri):
    with pytest.raises(UserError, match="expected sqlite:///FILE"):
        store_uri(uri)
