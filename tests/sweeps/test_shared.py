"""Several controllers of one study, each a process of its own, on a journal and on a real PostgreSQL server."""

import multiprocessing
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage

from sweeps.space import Space
from sweeps.storage import Holder, open_storage, turn
from sweeps.study import CONTROLLER, Study, key_of

FORK = multiprocessing.get_context("fork")
RANGES = {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 100}}
GRID = {"x": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "one": [True, False]}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Callable[[str], str]]:
    """Makes an empty database by name on a server of our own, and returns its URL; skips where there is none."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    pytest.importorskip("psycopg")
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    someone: dict[str, Any] = {}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        if "postgres" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("there is no user to run PostgreSQL")
        someone = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="litlab-pg-"))  # a short path, for the socket
    if someone:
        shutil.chown(folder, "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries[-1] / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **someone)

    def create(name: str) -> str:
        run("createdb", "-h", str(folder), "-U", "litlab", name)
        return f"postgresql+psycopg://litlab@/{name}?host={folder}"

    data, settings = str(folder / "data"), f"-k {folder} -c listen_addresses= -c fsync=off"
    run("initdb", "-D", data, "-U", "litlab", "-A", "trust", "--no-sync")
    run("pg_ctl", "-D", data, "-o", settings, "-l", str(folder / "log"), "-w", "start")
    yield create
    run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["journal", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Where a study is kept: a new storage by name."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres")  # type: ignore[no-any-return]
    return lambda name: str(tmp_path / name)


@pytest.fixture
def opened() -> Iterator[Callable[[str], BaseStorage]]:
    """Opens storages, and closes what Optuna leaves open."""
    every: list[BaseStorage] = []

    def open_one(url: str) -> BaseStorage:
        every.append(open_storage(url))
        return every[-1]

    yield open_one
    for storage in every:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def space_of(wanted: dict[str, Any], trials: int | None) -> Space:
    sampler = "random" if wanted is RANGES else "grid"
    return Space(name="s", experiment="e", space=wanted, trials=trials, sampler=sampler)


def study_of(storage: BaseStorage, space: Space) -> Study:
    facts = {"values": {"x": 0.3, "n": 7, "one": False}, "hash": "h", "max_epochs": 9}
    return Study(storage, "s", space, facts, Holder(None).name, exclusive=False)


def control(url: str, space: Space, together: Any) -> None:
    """What a controller does, but for the training; all begin before one ends a trial."""
    together.wait()
    study = study_of(open_storage(url), space)
    trial = study.ask()
    together.wait()
    while trial:
        study.optuna.tell(trial, sum(trial.params.values()))
        trial = study.ask()


def ask_and_hang(url: str, space: Space, asked: Any) -> None:
    study_of(open_storage(url), space).ask()
    asked.set()
    threading.Event().wait(60)


@pytest.mark.parametrize(
    ("name", "wanted", "trials"), [("ranges", RANGES, 20), ("whole", GRID, None), ("part", GRID, 7)]
)
def test_controllers_that_begin_at_once_share_the_total_exactly(
    place: Callable[[str], str], opened: Any, name: str, wanted: dict[str, Any], trials: int | None
) -> None:
    url, space, together = place(name), space_of(wanted, trials), FORK.Barrier(3)
    controllers = [FORK.Process(target=control, args=(url, space, together)) for _ in range(3)]
    for each in controllers:
        each.start()
    for each in controllers:
        each.join()

    assert [each.exitcode for each in controllers] == [0] * 3
    done = optuna.load_study(storage=opened(url), study_name="s").trials
    assert [trial.number for trial in done] == list(range(space.total))
    assert {trial.state.name for trial in done} == {"COMPLETE"}
    assert len({trial.user_attrs[CONTROLLER] for trial in done}) == 3
    assert len({key_of(trial.params) for trial in done}) == space.total
    if wanted is RANGES:
        assert done[0].params == {"x": 0.3, "n": 7}


def test_a_controller_that_is_killed_leaves_its_trial_to_the_others(place: Callable[[str], str], opened: Any) -> None:
    url, space, asked = place("killed"), space_of(GRID, None), FORK.Event()
    killed = FORK.Process(target=ask_and_hang, args=(url, space, asked))
    killed.start()
    assert asked.wait(60)
    study = study_of(opened(url), space)
    assert study.reap() == []
    assert study.is_shared()
    killed.kill()
    killed.join()

    while trial := study.ask():
        study.optuna.tell(trial, 1.0)

    complete = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
    assert Counter(key_of(trial.params) for trial in complete) == Counter(map(key_of, space.grid()))
    assert study.counted() == 12
    assert len(study.trials()) == 13


def test_turns_are_taken_one_after_another(place: Callable[[str], str], opened: Any) -> None:
    url = place("turns")
    study = optuna.create_study(storage=opened(url), study_name="s")
    seen: list[str] = []

    def take(name: str) -> None:
        with turn(opened(url), study._study_id):
            seen.append(name)
            study.ask()
            seen.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert seen[::2] == seen[1::2]
