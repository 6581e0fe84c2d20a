"""A study has exactly its total of trials and loses none, whichever process dies when. Nothing here trains."""

import os
import platform
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from pipelines.runtime.errors import UserError
from sweeps.search.lock import sole_controller
from sweeps.search.open_study import IDENTITY, TOTAL, open_study
from sweeps.search.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import OLD_PREVIOUS_RUNS, PARENT, Study, previous_runs
from sweeps.search.trial_state import INTERRUPTED, count_states, params_key

SHARED = Path(__file__).parents[2] / "fixtures" / "two-controllers.journal"  # written by 9e18908
RANGE = {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 100}}
GRID = {"x": [0.0, 0.1, 0.3], "one": [True, False]}
DEAD = "elsewhere:1:0"  # a controller


def space_of(wanted: dict[str, Any], **keys: Any) -> Space:
    return Space(**{"name": "s", "experiment": "e", "space": wanted, "trials": 5, "sampler": "random", **keys})


def grid_of(wanted: dict[str, Any], **keys: Any) -> Space:
    return space_of(wanted, **{"trials": None, "sampler": "grid", **keys})


def facts_of(**values: Any) -> dict[str, Any]:
    return {"values": values, "hash": "h", "config": {"x": 1}, "defaults": {}, "max_epochs": 9}


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; creating one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "optuna.db"
    open_storage(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite(tmp_path: Path, empty_storage: Path) -> str:
    shutil.copy(empty_storage, tmp_path / "optuna.db")
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def study_of(url: str, space: Space, controller: str = "", **values: Any) -> Study:
    name = controller or f"{platform.node()}:{os.getpid()}:{time.time_ns()}"
    return open_study(open_storage(url), "s", space, facts_of(**values), name)


def run(study: Study, limit: int = 1000) -> list[dict[str, Any]]:
    """Complete all trials that the study gives; return their configurations."""
    every = []
    while len(every) < limit and (trial := study.ask()):
        every.append(dict(trial.params))
        study.optuna.tell(trial, sum(trial.params.values()))
    return every


def completed(study: Study) -> Counter[str]:
    return Counter(params_key(trial.params) for trial in study.trials() if trial.state == TrialState.COMPLETE)


def points(space: Space) -> Counter[str]:
    return Counter(params_key(point) for point in space.grid())


def test_a_study_runs_exactly_its_total_and_can_be_extended(url: str) -> None:
    assert len(run(study_of(url, space_of(RANGE)))) == 5
    assert len(run(study_of(url, space_of(RANGE)))) == 0
    study = study_of(url, space_of(RANGE, trials=8))
    assert len(run(study)) == 3
    assert study.n_finished() == 8
    assert study.optuna.user_attrs[TOTAL] == 8
    assert study_of(url, space_of(RANGE, trials=2)).ask() is None


def test_active_trials_are_part_of_the_total(url: str) -> None:
    study = study_of(url, space_of(RANGE))

    active = [study.ask() for _ in range(5)]

    assert all(active)
    assert study.ask() is None


def test_pruned_and_failed_trials_count_and_interrupted_ones_do_not(url: str) -> None:
    study = study_of(url, space_of(RANGE, trials=4))
    complete, pruned, failed, stopped = (study.ask() for _ in range(4))
    for each in (complete, pruned, failed, stopped):
        assert each
    study.optuna.tell(complete, 1.0)
    study.optuna.tell(pruned, state=TrialState.PRUNED)
    study.tell(failed.number, "FAIL", None, {"reason": "it raised"})
    study.interrupt(stopped.number, "stopped")

    assert count_states(study.counted()) == {"complete": 1, "pruned": 1, "failed": 1}
    assert study.n_finished() == 3
    assert study.trials()[failed.number].user_attrs["reason"] == "it raised"
    assert study.trials()[stopped.number].user_attrs[INTERRUPTED] == "stopped"
    assert run(study) == [stopped.params]
    assert study.ask() is None


def test_a_grid_tries_each_point_once_and_in_order(url: str) -> None:
    space = grid_of(GRID)

    assert run(study_of(url, space), 2) + run(study_of(url, space)) == space.grid()


def test_the_next_call_completes_a_partial_grid(url: str) -> None:
    assert len(run(study_of(url, grid_of(GRID, trials=4)))) == 4
    study = study_of(url, grid_of(GRID))
    run(study)

    assert completed(study) == points(study.space)


def test_a_grid_continues_from_another_samplers_trials(url: str) -> None:
    before = run(study_of(url, space_of(GRID, trials=1)))
    study = study_of(url, grid_of(GRID))
    run(study)

    assert len(before) == 1
    assert completed(study) == points(study.space)


@pytest.mark.parametrize("choices", [[0.1, 0.2, 0.3, 1e-7, 3e8], [True, False, None, "a", 2], [0, 0.5, 1]])
def test_a_grid_keeps_the_type_of_every_value(url: str, choices: list[Any]) -> None:
    study = study_of(url, grid_of({"x": choices}))
    while trial := study.ask():
        study.optuna.tell(trial, 1.0)

    stored = [trial.params["x"] for trial in study_of(url, grid_of({"x": choices})).trials()]

    assert list(map(repr, stored)) == list(map(repr, choices))


def test_the_default_point_is_tried_first(url: str) -> None:
    assert run(study_of(url, space_of(RANGE), x=0.25, n=7))[0] == {"x": 0.25, "n": 7}
    assert {"x": 0.25, "n": 7} not in run(study_of(url, space_of(RANGE, trials=9), x=0.25, n=7))


@pytest.mark.parametrize(
    ("wanted", "values", "own"),
    [
        (RANGE, {"x": 0.25, "n": 7}, {"x": 0.25, "n": 7}),
        (RANGE, {"x": 0.25, "n": 700}, {}),
        (RANGE, {"x": 0.25}, {}),
        (RANGE, {"x": 0.25, "n": None}, {}),
        ({"x": {"low": 0.0, "high": 1.0}}, {"x": 0}, {"x": 0.0}),
        ({"x": {"low": 0.0, "high": 0.6, "step": 0.1}}, {"x": 0.3}, {"x": 0.3}),
        ({"x": {"low": 0.0, "high": 0.6, "step": 0.1}}, {"x": 0.25}, {}),
        ({"x": [0.0, 0.5]}, {"x": 0}, {"x": 0.0}),
        ({"x": [[1, 2], [3]]}, {"x": [1, 2]}, {"x": "[1, 2]"}),
        ({"a, b": [0.1, 0.2]}, {"a": 0.2, "b": 0.2}, {"a, b": 0.2}),
        ({"a, b": [0.1, 0.2]}, {"a": 0.2, "b": 0.1}, {}),
    ],
)
def test_the_default_point_lies_in_the_space_or_is_empty(
    journal: str, wanted: dict[str, Any], values: dict[str, Any], own: dict[str, Any]
) -> None:
    study = study_of(journal, space_of(wanted), **values)

    assert repr(study.default_point) == repr(own)
    trial = study.ask()
    assert trial is not None
    assert params_key(trial.params) == params_key(study.trials()[0].params)
    assert not own or trial.params == own


def test_a_finished_trial_of_the_same_configuration_is_found(url: str) -> None:
    study = study_of(url, space_of(RANGE))
    first, second = study.ask(), study.ask()
    assert first
    assert second
    assert study.finished_like(first.params) is None
    study.optuna.tell(first, 1.0)
    study.tell(second.number, "FAIL", None, {"reason": "it raised"})
    assert study.ask()

    found = study.finished_like(dict(reversed(first.params.items())))

    assert found is not None
    assert found.number == first.number
    assert study.finished_like(second.params) is None


def test_configurations_differ_by_type_and_not_by_rounding() -> None:
    assert params_key({"x": True}) != params_key({"x": 1}) != params_key({"x": "1"})
    assert params_key({"a": 1, "b": 2}) == params_key({"b": 2, "a": 1})
    assert params_key({"x": 0.1 + 0.2}) == params_key({"x": 0.3})
    assert params_key({"x": 1e-9}) != params_key({"x": 1.000001e-9})


def test_the_best_trial_is_the_first_of_equals(url: str) -> None:
    for direction, best in (("maximize", 1), ("minimize", 0)):
        study = open_study(open_storage(url), direction, space_of(RANGE, direction=direction), facts_of(), "h:1:1")
        assert study.best() is None
        for value in (0.5, 0.9, 0.9, 0.5):
            study.optuna.tell(study.ask(), value)  # type: ignore[arg-type]
        found = study.best()
        assert found is not None
        assert found.trial == best


def test_a_restarted_sampler_does_not_repeat_its_draws(url: str) -> None:
    every = [params["x"] for trials in (3, 6, 9) for params in run(study_of(url, space_of(RANGE, trials=trials)))]

    assert len(set(every)) == 9


def test_one_seed_gives_one_search(tmp_path: Path) -> None:
    runs = [run(study_of(str(tmp_path / name), space_of(RANGE))) for name in "ab"]

    assert runs[0] == runs[1]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc", "grid"])
def test_a_study_continues_with_another_sampler_and_pruner(url: str, sampler: str) -> None:
    first = run(study_of(url, space_of({"x": [0.1, 0.2, 0.3, 0.4]}, trials=2, sampler="tpe")))
    study = study_of(url, space_of({"x": [0.1, 0.2, 0.3, 0.4]}, trials=4, sampler=sampler, pruner="median"))

    n_tried = len({params["x"] for params in first}) if sampler == "grid" else 2  # of a grid, points count
    assert len(run(study)) == 4 - n_tried


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wanted": {**RANGE, "n": {"low": 1, "high": 9}}}, "another space (n)"),
        ({"wanted": {**RANGE, "m": [1, 2]}}, "another space (m)"),
        ({"wanted": {"x": RANGE["x"]}}, "another space (n)"),
        ({"metric": "val/loss"}, "another metric:"),
        ({"direction": "minimize"}, "another direction:"),
        ({"seeds": 3}, "another number of seeds:"),
        ({"metric": "val/loss", "direction": "minimize"}, "another metric and direction:"),
    ],
)
def test_a_study_of_another_space_is_refused_by_name(url: str, change: dict[str, Any], message: str) -> None:
    run(study_of(url, space_of(RANGE)), 1)

    with pytest.raises(UserError) as error:
        study_of(url, space_of(**{"wanted": RANGE, **change}))

    assert message in str(error.value)
    assert "--study" in str(error.value)


def test_a_study_of_another_experiment_is_refused(journal: str) -> None:
    run(study_of(journal, space_of(RANGE)), 1)

    other = {**facts_of(), "hash": "g", "config": {"x": 2}}
    with pytest.raises(UserError, match="another experiment:"):
        open_study(open_storage(journal), "s", space_of(RANGE), other, "h:1:1")


def test_a_study_continues_with_a_key_that_was_added_with_its_default_and_keeps_its_hash(journal: str) -> None:
    run(study_of(journal, space_of(RANGE)), 1)
    config: dict[str, Any] = {"x": 1, "model": {"class_path": "m.M", "init_args": {"added": 2}}}
    defaults: dict[str, Any] = {"": {"model": None}, "m.M": {"added": 2}}
    before = {**facts_of(), "config": {"x": 1, "model": {"class_path": "m.M"}}}
    now = {**facts_of(), "hash": "g", "config": config, "defaults": defaults}
    for facts in (before, now):
        study = open_study(open_storage(journal), "t", space_of(RANGE), facts, "h:1:1")
        run(study, 1)
    assert study.n_finished() == 2
    assert study.optuna.user_attrs[IDENTITY]["experiment"] == "h"

    config["model"]["init_args"]["added"] = defaults["m.M"]["added"] = 3  # another default is another experiment
    with pytest.raises(UserError, match="another experiment:"):
        open_study(open_storage(journal), "t", space_of(RANGE), {**now, "hash": "i"}, "h:1:1")


def test_a_study_that_litlab_did_not_create_is_refused_and_unchanged(url: str) -> None:
    foreign = optuna.create_study(storage=open_storage(url), study_name="s", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("y", 0, 1), 1)

    with pytest.raises(UserError, match="study s already exists"):
        study_of(url, space_of(RANGE))

    assert len(foreign.trials) == 1


def test_a_space_written_differently_is_the_same_space(url: str) -> None:
    before = study_of(url, space_of({"x": [{1: "a"}, [1, 2]], "n": {"low": 1, "high": 3}}))
    before.tell(before.ask().number, "FAIL", None, {"reason": "it raised"})  # type: ignore[union-attr]
    after = study_of(url, space_of({"n": {"high": 3, "low": 1}, "x": [{1: "a"}, [1, 2]]}, pruner="median", confirm=0))

    assert after.n_finished() == 1


def test_a_study_without_counted_trials_restarts_with_another_space(sqlite: str) -> None:
    before = study_of(sqlite, space_of(RANGE), x=0.5, n=3)
    before.interrupt(before.ask().number, "stopped")  # type: ignore[union-attr]

    study = study_of(sqlite, space_of({"x": {"low": 0.0, "high": 9.0}}, direction="minimize"), x=0.5, n=3)

    assert study.trials() == []
    assert study.optuna.direction.name == "MINIMIZE"
    assert run(study)[0] == {"x": 0.5}
    assert study.n_finished() == 5


def test_trials_of_a_dead_controller_are_queued_again(url: str) -> None:
    before = study_of(url, space_of(RANGE), controller=DEAD)
    lost = [trial.params for trial in (before.ask(), before.ask()) if trial]
    study = study_of(url, space_of(RANGE))

    assert study.reap() == [0, 1]
    assert study.reap() == []
    assert study.n_finished() == 0
    assert run(study)[:2] == lost
    assert study.n_finished() == 5
    assert all(trial.state.is_finished() for trial in study.trials())


def test_a_restart_keeps_the_runs_that_earlier_versions_recorded(sqlite: str) -> None:
    before = study_of(sqlite, space_of(RANGE))
    before.optuna.set_user_attr(OLD_PREVIOUS_RUNS, ["first"])
    before.optuna.set_user_attr(PARENT, "second")

    once = study_of(sqlite, space_of(GRID))
    assert previous_runs(once.optuna) == ["first", "second"]
    once.optuna.set_user_attr(PARENT, "third")
    assert previous_runs(study_of(sqlite, space_of(RANGE)).optuna) == ["first", "second", "third"]


def test_a_study_that_two_controllers_of_an_earlier_version_shared_continues_at_once(tmp_path: Path) -> None:
    """The first is about to confirm, the second was alive a moment ago; each has a trial under way."""
    journal = tmp_path / "journal"
    shutil.copy(SHARED, journal)
    old = optuna.load_study(study_name="s", storage=open_storage(str(journal)))
    old.set_user_attr("litlab.beat.two:2:1790000000-b.2", time.time())
    lost = [trial.params for trial in old.trials if trial.state == TrialState.RUNNING]
    with sole_controller(str(journal), "s"):
        study = study_of(str(journal), space_of(RANGE))

        assert study.reap() == [3, 4]
        assert study.n_finished() == 2
        assert [params["x"] for params in run(study)] == [params["x"] for params in lost] + [
            study.trials()[-1].params["x"]
        ]
        assert study.n_finished() == 5
        assert [trial.state for trial in study.trials()[:2]] == [TrialState.COMPLETE] * 2


def test_a_result_of_a_trial_that_an_earlier_version_took_for_dead_counts(journal: str) -> None:
    study = study_of(journal, space_of(RANGE))
    trial = study.ask()
    assert trial is not None
    trial.set_user_attr(INTERRUPTED, "its controller died")
    study.optuna.tell(trial, 1.0)

    assert study.n_finished() == 1


def test_a_trial_that_another_program_has_ended_is_not_queued_again(url: str) -> None:
    study = study_of(url, space_of(RANGE))
    trial = study.ask()
    assert trial is not None
    study.optuna.tell(trial, 1.0)

    assert not study.tell(trial.number, "COMPLETE", 0.5, {})
    study.interrupt(trial.number, "stopped")

    assert [(trial.state.name, trial.value) for trial in study.trials()] == [("COMPLETE", 1.0)]


def test_a_sampler_that_cannot_draw_is_an_error_and_leaves_no_trial_running(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(url, space_of(RANGE))

    def fail(*_: Any) -> None:
        raise ValueError("much")

    with monkeypatch.context() as patch:
        patch.setattr(study.optuna.sampler, "sample_independent", fail)
        with pytest.raises(UserError, match="sampler random: much"):
            study.ask()

    assert [trial.state.name for trial in study.trials()] == ["FAIL"]
    assert len(run(study)) == 5


class Crash(BaseException):
    """The death of a process between two writes."""


@pytest.mark.parametrize("grid", [True, False])
def test_a_crash_between_any_two_writes_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: bool
) -> None:
    write, left = JournalFileBackend.append_logs, 0
    wanted = {"x": [0.0, 0.1], "one": [True]}
    space = grid_of(wanted) if grid else space_of(wanted | RANGE, trials=2)

    def write_or_crash(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash
        write(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", write_or_crash)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power loss is simulated here
    for crash_after in range(200):
        url = str(tmp_path / f"{crash_after}")
        left = crash_after
        try:
            first = study_of(url, space, controller=DEAD, x=0.1, one=True, n=3)
            stopped = first.ask()
            assert stopped is not None
            first.interrupt(stopped.number, "stopped")
            run(first)
            crashed = False
        except Crash:
            crashed = True
        left = 10**6
        study = study_of(url, space, x=0.1, one=True, n=3)
        study.reap()
        run(study)
        assert study.n_finished() == space.total
        assert all(trial.state.is_finished() for trial in study.trials())
        if grid:
            assert completed(study) == points(space)
        else:
            assert completed(study)[params_key({"x": 0.1, "one": True, "n": 3})] == 1
        if not crashed:
            break
    assert 10 < crash_after < 199


def test_the_name_of_the_metric_decides_the_direction(url: str) -> None:
    assert study_of(url, space_of(RANGE, metric="val_rmse")).optuna.direction.name == "MINIMIZE"
    assert space_of(RANGE, metric="val_acc").direction == space_of(RANGE, metric="iou").direction == "maximize"


def test_a_study_of_an_earlier_version_keeps_its_direction(url: str) -> None:
    old = study_of(url, space_of(RANGE, metric="val/loss", direction="maximize"))
    run(old, 2)
    continued = study_of(url, space_of(RANGE, metric="val/loss"))  # which once meant: maximize
    assert (continued.space.direction, continued.n_finished()) == ("maximize", 2)
    with pytest.raises(UserError, match="another direction"):
        study_of(url, space_of(RANGE, metric="val/loss", direction="minimize"))


def test_the_settings_of_a_space_make_it_again() -> None:
    space = space_of(RANGE, metric="val_rmse")
    assert Space(**space.settings_given()) == space
    assert "direction_by_name" not in space.settings_given()
