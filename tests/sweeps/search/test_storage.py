"""Storages are found by their URLs; one that cannot be opened is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from sweeps.search.storage import open_storage, sqlite_path, storage_file, storage_url


def open_and_ask(url: str, together: Any) -> None:
    together.wait()
    optuna.create_study(storage=open_storage(url), study_name="s", load_if_exists=True).ask()


def test_eight_processes_can_open_a_new_database_at_once(tmp_path: Path, at_once: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'optuna.db'}"

    at_once(8, open_and_ask, url)

    trials = optuna.load_study(storage=open_storage(url), study_name="s").trials
    assert [trial.number for trial in trials] == list(range(8))


def test_a_path_opens_a_journal_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    study = optuna.create_study(storage=open_storage("~/journal.log"), study_name="s")
    study.enqueue_trial({"x": 1})

    assert (tmp_path / "journal.log").is_file()
    storage = open_storage(str(tmp_path / "journal.log"))
    assert len(optuna.load_study(storage=storage, study_name="s").trials) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://here", "cannot be opened: expected SQLite, a journal file, PostgreSQL or MySQL, not nonsense"),
        ("postgresql://litlab:secret@127.0.0.1:1/none", "cannot be opened: "),
        ("mysql://litlab:secret@127.0.0.1:1/none", "cannot be opened: "),
        ("/proc/nowhere/journal", "cannot be opened: "),
        ("sqlite:////proc/nowhere/optuna.db", "cannot be opened: "),
    ],
)
def test_a_storage_that_cannot_be_opened_is_refused_in_one_line_without_password(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        open_storage(url)

    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("content", [b"SQLite format 3\x00\xff\xfe\n", b"experiment: a\nspace: b\n", b'{"epoch": 1}\n'])
def test_a_file_of_another_kind_is_refused_and_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    for url in (str(path), f"sqlite:///{path}"):
        with pytest.raises(UserError, match="cannot be opened"):
            open_storage(url)

    assert path.read_bytes() == content


def test_studies_are_stored_next_to_the_runs_database_and_never_in_it(uri: str, tmp_path: Path) -> None:
    store = Store(uri)

    assert storage_url(None, store) == f"sqlite:///{tmp_path / 'runs' / 'optuna.db'}"
    with pytest.raises(UserError, match="MLflow's database"):
        storage_url(uri, store)
    with pytest.raises(UserError, match="expected a file"):
        storage_url("sqlite:///:memory:", store)
    with pytest.raises(UserError, match="expected a file"):
        storage_url("sqlite://", store)


def test_all_urls_of_one_file_are_normalized_to_one_path(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link.db").symlink_to("my.db")

    urls = ["sqlite:///my.db", f"sqlite:///{tmp_path}/my.db", "sqlite:///~/my.db", "sqlite:///link.db"]
    urls += ["sqlite+pysqlite:///my.db", "sqlite:///my.db?timeout=5"]

    assert {sqlite_path(url) for url in urls} == {tmp_path / "my.db"}
    assert {storage_url(url, Store(uri)) for url in urls} == {f"sqlite:///{tmp_path}/my.db"}
    assert sqlite_path("postgresql://a/b") is None
    assert sqlite_path("journal.log") is None
    assert storage_file("postgresql://a/b") is None
    assert storage_file("journal.log") == storage_file("~/journal.log") == tmp_path / "journal.log"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://litlab:se-cret.1@host:5432/optuna",
        "postgresql://host/optuna?user=litlab&password=se-cret.1&sslmode=require",
        "postgresql://litlab@host/optuna?sslkey=a&sslpassword=se-cret.1",
        "'https://litlab:se-cret.1@host'",
    ],
)
def test_a_password_anywhere_in_a_url_is_redacted(url: str) -> None:
    shown = redact_credentials(f"litlab sweep digits-mlp --storage {url} --trials 3")

    assert shown == f"litlab sweep digits-mlp --storage {url.replace('se-cret.1', '***')} --trials 3"
