"""A study in SQLite or a journal file has one controller; others are told who it is, and it may die."""

import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.runtime.errors import UserError
from sweeps.search.lock import controller_of, sole_controller
from sweeps.search.storage import open_storage

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}" if request.param == "sqlite" else str(tmp_path / "journal")


def holder(url: str, study: str = "s") -> str | None:
    return controller_of(url, study, open_storage(url))


def hold(url: str, held: Any) -> None:
    with sole_controller(url, "s"):
        held.set()
        time.sleep(60)


@contextmanager
def another_controller(url: str) -> Iterator[Any]:
    """Run a process that controls study "s"."""
    held = FORK.Event()
    process = FORK.Process(target=hold, args=(url, held))
    process.start()
    try:
        assert held.wait(60)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_controller_is_refused_and_told_who_has_the_study_since_when(url: str) -> None:
    begun = time.time()
    with another_controller(url) as first:
        with pytest.raises(UserError) as error, sole_controller(url, "s"):
            pass
        found = re.search(rf"study s is being run by process {first.pid} of \S+ on \S+ since (.*?);", str(error.value))
        assert found
        since = time.mktime(time.strptime(found[1][:19], "%Y-%m-%d %H:%M:%S"))
        assert begun - 1 <= since <= time.time()
        with sole_controller(url, "another study"):
            assert str(first.pid) in str(holder(url))
            assert str(os.getpid()) in str(holder(url, "another study"))


def test_the_study_of_a_killed_controller_is_free_at_once(url: str) -> None:
    with another_controller(url) as first:
        first.kill()
        first.join()

    assert holder(url) is None
    with sole_controller(url, "s"):
        assert str(os.getpid()) in str(holder(url))
    assert holder(url) is None


def test_one_journal_file_has_one_lock_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("journal")
    with another_controller("journal"):
        for name in ("./journal", str(tmp_path / "journal"), "link"):
            with pytest.raises(UserError, match="is being run by"), sole_controller(name, "s"):
                pass


def test_asking_who_controls_a_study_does_not_block_a_controller(url: str) -> None:
    storage, done = open_storage(url), threading.Event()

    def ask() -> None:
        while not done.is_set():
            controller_of(url, "s", storage)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(10):
            with sole_controller(url, "s"):
                pass
    finally:
        done.set()
        asking.join()


@pytest.mark.parametrize("name", ["a/b", "../s", "", ".hidden", "a:b"])
def test_a_study_name_that_is_not_a_file_name_is_refused(url: str, name: str) -> None:
    for place in (url, "postgresql://127.0.0.1:1/none"):
        with pytest.raises(UserError, match="only letters, digits"), sole_controller(place, name):
            pass
