"""A study on a PostgreSQL server has one controller, whose death or broken connection frees it."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError

from pipelines.runtime.errors import UserError
from sweeps.search import study as study_module
from sweeps.search.lock import controller_of, sole_controller
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.study import Study

pytestmark = pytest.mark.services

RANGES = {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 100}}
SPACE = Space(name="s", experiment="e", space=RANGES, trials=5, sampler="random")
FACTS = {"values": {}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 9}


def study_of(storage: Any, controller: str) -> Study:
    return open_study(storage, "s", SPACE, FACTS, controller)


def execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@contextmanager
def child(url: str) -> Iterator[int]:
    """Run a process that controls study "s" and has a trial under way; it has no connection of this process."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with sole_controller(url, "s") as storage:
                study_of(storage, "first:1:1").ask()
                os.write(theirs, b"x")
                time.sleep(120)
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        assert os.read(ours, 1) == b"x"
        yield pid
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_second_controller_is_told_who_has_the_study_and_takes_over_at_once_when_it_is_killed(
    postgres: Callable[[str], str], opened: Callable[[str], Any]
) -> None:
    url = postgres("killed")
    with child(url) as first:
        who = rf"process {first} of \S+ on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        with pytest.raises(UserError, match=f"study s is being run by {who}"), sole_controller(url, "s"):
            pass
        assert re.match(who, str(controller_of(url, "s", opened(url))))
        assert controller_of(url, "another", opened(url)) is None
        with sole_controller(url, "another"):
            assert f"process {os.getpid()} of" in str(controller_of(url, "another", opened(url)))
        os.kill(first, signal.SIGKILL)
        begun = time.monotonic()
        with sole_controller(url, "s") as storage:
            study = study_of(storage, "second:1:1")
            assert study.reap() == [0]
            assert time.monotonic() - begun < 5
            lost = study.trials()[0].params
            again = study.ask()
            assert again
            assert again.params == lost
    assert controller_of(url, "s", opened(url)) is None


def control(url: str, folder: Path, barrier: Any) -> None:
    """Control study "s" until three others have noted why they cannot."""
    barrier.wait()
    try:
        with sole_controller(url, "s") as storage:
            study_of(storage, "host:1:1").ask()
            (folder / "controller").write_text(f"process {os.getpid()} of")
            deadline = time.monotonic() + 60
            while len(list(folder.glob("refused*"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.1)
    except UserError as error:
        (folder / f"refused{os.getpid()}").write_text(str(error))


def test_of_controllers_that_start_at_once_on_an_empty_database_one_has_the_study(
    postgres: Callable[[str], str], at_once: Callable[..., None], tmp_path: Path
) -> None:
    at_once(4, control, postgres("at_once"), tmp_path)

    refused = [path.read_text() for path in tmp_path.glob("refused*")]
    assert len(refused) == 3
    assert all((tmp_path / "controller").read_text() in reason for reason in refused)


def test_studies_of_one_name_in_two_schemas_have_a_controller_each(postgres: Callable[[str], str]) -> None:
    url = postgres("schemas")
    execute(url, "create schema team")
    with sole_controller(url, "s"), sole_controller(f"{url}&options=-csearch_path%3Dteam", "s"):
        pass


def test_a_controller_whose_connection_breaks_writes_nothing_more(
    postgres: Callable[[str], str], opened: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "CHECK_S", 0)
    url = postgres("broken")
    with sole_controller(url, "s") as storage:
        study = study_of(storage, "first:1:1")
        trial = study.ask()
        assert trial
        study.check_connection()
        execute(url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'litlab%'")
        with sole_controller(url, "s") as storage_of_second:
            assert study_of(storage_of_second, "second:1:1").reap() == [0]
            with pytest.raises(StorageInternalError):  # the connection is broken
                study.check_connection()
            for write in (study.check_connection, study.ask, lambda: study.tell(0, "COMPLETE", 1.0, {})):
                with pytest.raises(UserError, match="the connection to its database broke, and with it the lock"):
                    write()
    states = [trial.state.name for trial in optuna.load_study(study_name="s", storage=opened(url)).trials]
    assert states == ["FAIL", "WAITING"]


@pytest.fixture
def sweep(start_litlab: Callable[..., Any], tables: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that starts `litlab sweep` in its own session, with its output in a file."""
    started = []

    def run(*args: object) -> Any:
        with (tmp_path / f"err{len(started)}").open("w") as err:
            options = {"cwd": tmp_path, "start_new_session": True, "stdout": err, "stderr": err}
            started.append(start_litlab("sweep", "digits-mlp", *args, **options))
        started[-1].output = tmp_path / f"err{len(started) - 1}"
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(timeout=60)


def test_a_sweep_ends_with_a_message_when_the_server_restarts_and_the_same_command_continues_it(
    server: Any, sweep: Callable[..., Any], opened: Callable[[str], Any], until: Callable[..., Any]
) -> None:
    url = server.create("restarted")
    command = ["--storage", url, "--trials", "3", "--confirm", "0", "--study", "restarted"]
    command += ["--trainer.max_epochs", "60", "--workers", "2"]

    def trials() -> list[Any]:
        try:
            return optuna.load_study(study_name="restarted", storage=opened(url)).trials
        except KeyError:
            return []

    first = sweep(*command)
    until(lambda: any(trial.intermediate_values for trial in trials()))
    server.restart()
    opened(url).remove_session()  # its connections broke
    opened(url).engine.dispose()
    assert first.wait(timeout=120) == 2
    text = first.output.read_text()
    assert "Run the same command again to continue." in " ".join(text.split())
    assert "Traceback" not in text
    begun = len(trials())
    again = sweep(*command)
    assert again.wait(timeout=300) == 0, again.output.read_text()
    counted = [trial for trial in trials() if "interrupted" not in trial.user_attrs]
    assert [trial.state.name for trial in counted] == ["COMPLETE"] * 3
    assert len(trials()) == 3 + len([trial for trial in trials() if "interrupted" in trial.user_attrs])
    assert begun >= 1
