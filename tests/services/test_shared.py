"""Several controllers of one study, each in its own process, on a journal file and on a real PostgreSQL server."""

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.search import storage
from sweeps.search.heartbeat import controller_name
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.storage import Storage, open_storage
from sweeps.search.study import Study
from sweeps.search.trial_state import CONTROLLER, params_key

FORK = multiprocessing.get_context("fork")
RANGES = {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 100}}
GRID = {"x": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "one": [True, False]}


@pytest.fixture(params=["journal", pytest.param("postgres", marks=pytest.mark.services)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that gives the URL of a new storage."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres")  # type: ignore[no-any-return]
    return lambda name: str(tmp_path / name)


def space_of(ranges: dict[str, Any], trials: int | None) -> Space:
    sampler = "random" if ranges is RANGES else "grid"
    return Space(name="s", experiment="e", space=ranges, trials=trials, sampler=sampler)


def study_of(storage: Storage, space: Space, controller: str = "") -> Study:
    facts = {"values": {"x": 0.3, "n": 7, "one": False}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 9}
    return open_study(storage, "s", space, facts, controller or controller_name(), exclusive=False)


def control(url: str, space: Space, barrier: Any) -> None:
    """Act as a controller, without training; all controllers ask for a trial before one ends its trial."""
    barrier.wait()
    study = study_of(open_storage(url), space)
    trial = study.ask()
    barrier.wait()
    while trial:
        study.optuna.tell(trial, sum(trial.params.values()))
        trial = study.ask()


def ask_and_hang(url: str, space: Space, asked: Any) -> None:
    study_of(open_storage(url), space).ask()
    asked.set()
    threading.Event().wait(60)


@pytest.mark.parametrize(
    ("name", "ranges", "trials"), [("random", RANGES, 20), ("grid", GRID, None), ("part", GRID, 7)]
)
def test_controllers_that_start_at_once_share_the_number_of_trials_exactly(
    place: Callable[[str], str],
    opened: Any,
    at_once: Callable[..., None],
    name: str,
    ranges: dict[str, Any],
    trials: int | None,
) -> None:
    url, space = place(name), space_of(ranges, trials)

    at_once(3, control, url, space)

    done = optuna.load_study(storage=opened(url).optuna, study_name="s").trials
    assert [trial.number for trial in done] == list(range(space.total))
    assert {trial.state.name for trial in done} == {"COMPLETE"}
    assert len({trial.user_attrs[CONTROLLER] for trial in done}) == 3
    assert len({params_key(trial.params) for trial in done}) == space.total
    if ranges is RANGES:
        assert done[0].params == {"x": 0.3, "n": 7}


def test_the_trial_of_a_killed_controller_is_repeated_by_another(place: Callable[[str], str], opened: Any) -> None:
    url, space, asked = place("dead"), space_of(GRID, None), FORK.Event()
    killed = FORK.Process(target=ask_and_hang, args=(url, space, asked))
    killed.start()
    assert asked.wait(60)
    study = study_of(opened(url), space)
    assert study.reap() == []
    assert study.is_shared()
    killed.kill()
    killed.join()
    assert study.reap() == [0]

    while trial := study.ask():
        study.optuna.tell(trial, 1.0)

    complete = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
    assert Counter(params_key(trial.params) for trial in complete) == Counter(map(params_key, space.grid()))
    assert study.n_finished() == 12
    assert len(study.trials()) == 13


def test_the_study_lock_is_held_by_one_controller_at_a_time(place: Callable[[str], str], opened: Any) -> None:
    url = place("turns")
    study = optuna.create_study(storage=opened(url).optuna, study_name="s")
    order: list[str] = []

    def take(name: str) -> None:
        with opened(url).lock("s"):
            order.append(name)
            study.ask()
            order.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(order) == 8
    assert order[::2] == order[1::2]


def hold(url: str, holding: Any) -> None:
    with open_storage(url).lock("s"):
        holding.set()
        threading.Event().wait(120)


@pytest.mark.services
def test_a_machine_that_hangs_while_it_holds_the_study_lock_loses_it_within_a_minute(
    postgres: Callable[[str], str], opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a server, a machine without power and one that hangs look the same."""
    monkeypatch.setattr(storage, "LOCK_IDLE_S", 1)
    url, holding = postgres("silent"), FORK.Event()
    optuna.create_study(storage=opened(url).optuna, study_name="s")
    silent = FORK.Process(target=hold, args=(url, holding))
    silent.start()
    assert holding.wait(60)
    late = threading.Timer(45, silent.kill)
    late.start()

    with opened(url).lock("s"):
        assert silent.is_alive()

    late.cancel()
    silent.kill()
    silent.join()


@pytest.mark.services
def test_a_controller_with_a_wrong_clock_is_not_taken_for_dead(
    postgres: Callable[[str], str], opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = opened(postgres("clocks"))
    one = study_of(place, space_of(GRID, None))
    assert one.ask()
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 1000)
    two = study_of(place, space_of(GRID, None), controller="elsewhere:1:0")
    assert two.ask()

    assert two.reap() == []
    monkeypatch.undo()
    assert one.reap() == []
    assert abs(place.now() - time.time()) < 30
