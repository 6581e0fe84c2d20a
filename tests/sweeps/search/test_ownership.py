"""What others put into a study is kept, counted by one rule, and never spoils the trials of litlab. Nothing trains."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from pipelines.runtime.errors import UserError
from sweeps.search.open_study import IDENTITY, open_study
from sweeps.search.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.search.trial_state import INTERRUPTED, INVALID, REASON, RETRY, params_key

RANGE = {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 100}}
GRID = {"x": [0.0, 0.1], "one": [True, False]}
FACTS = {"values": {}, "hash": "h", "config": {"x": 1}, "defaults": {}, "max_epochs": 9}


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}" if request.param == "sqlite" else str(tmp_path / "journal")


def study_of(url: str, wanted: dict[str, Any], **keys: Any) -> Study:
    space = Space(**{"name": "s", "experiment": "e", "space": wanted, "trials": 4, "sampler": "random", **keys})
    name = f"{platform.node()}:{os.getpid()}:{time.time_ns()}"
    return open_study(open_storage(url), "s", space, FACTS, name)


def grid_of(url: str, **keys: Any) -> Study:
    return study_of(url, GRID, **{"sampler": "grid", "trials": None, **keys})


def foreign_study(url: str, direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(storage=open_storage(url), study_name="s", direction=direction)
    study.set_user_attr("mine", "my notes")
    return study


def run(study: Study) -> list[dict[str, Any]]:
    """Complete all trials that the study gives; return their configurations."""
    every = []
    while trial := study.ask():
        every.append(dict(trial.params))
        study.tell(trial.number, "COMPLETE", float(trial.number), {})
    return every


def test_a_foreign_study_with_queued_points_of_the_space_is_adopted_with_points_and_attributes(url: str) -> None:
    foreign = foreign_study(url)
    foreign.enqueue_trial({"x": 0.25, "n": 7}, user_attrs={"why": "a guess"})
    foreign.enqueue_trial({"x": 0.5})  # n is drawn

    for _ in range(2):  # it is litlab's from then on
        study = study_of(url, RANGE)
        configurations = run(study)
        assert study.n_finished() == 4
        assert study.optuna.user_attrs["mine"] == "my notes"
        assert study.trials()[0].user_attrs["why"] == "a guess"
        if configurations:
            assert configurations[0] == {"x": 0.25, "n": 7}
            assert configurations[1]["x"] == 0.5
    assert len(configurations) == 0


REFUSED = {
    "a value outside": (lambda study: study.enqueue_trial({"x": 1.5, "n": 3}), "x is 1.5; it must be a number from 0"),
    "no whole number": (lambda study: study.enqueue_trial({"x": 0.5, "n": 3.5}), "n is 3.5; it must be a whole number"),
    "another key": (lambda study: study.enqueue_trial({"x": 0.5, "y": 3}), "y is not searched; the keys are x; n"),
    "a running trial": (lambda study: study.ask(), "it has 1 trials that are not queued but RUNNING"),
    "a failed trial": (lambda study: study.tell(study.ask(), state=TrialState.FAIL), "not queued but FAIL"),
    "a complete trial": (lambda study: study.tell(study.ask(), 0.5), "not queued but COMPLETE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_any_other_foreign_study_is_refused_by_name_and_unchanged(url: str, case: str) -> None:
    act, message = REFUSED[case]
    foreign = foreign_study(url)
    act(foreign)
    before = [(trial.state, trial.params, trial.user_attrs) for trial in foreign.get_trials()]

    with pytest.raises(UserError, match="study s already exists and was not created by litlab") as error:
        study_of(url, RANGE)

    assert message in str(error.value)
    assert "--study OTHER" in str(error.value)
    assert [(trial.state, trial.params, trial.user_attrs) for trial in foreign.get_trials()] == before
    assert foreign.user_attrs == {"mine": "my notes"}


def test_a_foreign_study_of_another_direction_or_of_several_objectives_is_refused(url: str) -> None:
    foreign_study(url, "minimize")
    with pytest.raises(UserError, match="it has the direction minimize, not maximize"):
        study_of(url, RANGE)
    storage = open_storage(url)
    optuna.delete_study(study_name="s", storage=storage)
    optuna.create_study(storage=storage, study_name="s", directions=["maximize", "minimize"])
    with pytest.raises(UserError, match="it has the direction maximize and minimize, not maximize"):
        study_of(url, RANGE)


def _attribute(study: Study) -> None:
    study.optuna.set_user_attr("mine", "my notes")


def _queued_point(study: Study) -> None:
    study.optuna.enqueue_trial({"x": 0.5, "n": 3})


def _running_trial(study: Study) -> None:
    study.optuna.ask()


def _note_in_the_dashboard(study: Study) -> None:
    storage = study.optuna._storage
    storage.set_study_system_attr(storage.get_study_id_from_name("s"), "dashboard:note_str:0", "my notes")


@pytest.mark.parametrize("add", [_attribute, _queued_point, _running_trial, _note_in_the_dashboard])
def test_a_study_of_litlab_with_something_of_others_is_not_restarted_with_another_space(
    tmp_path: Path, add: Callable[[Study], None]
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    before = study_of(url, RANGE)
    add(before)
    n_trials = len(before.trials())

    with pytest.raises(UserError, match=r"another space .*--study"):
        study_of(url, GRID)

    assert len(before.trials()) == n_trials
    assert before.optuna.user_attrs[IDENTITY]["space"] == RANGE


def test_queued_points_that_are_not_in_the_space_fail_alone_and_do_not_count(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(url, {**RANGE, "c": ["a", "b"]})
    bad = [{"c": "z"}, {"x": 7.0}, {"x": "much"}, {"x": float("nan")}, {"n": 0}, {"n": None}, {"other": 1}]
    for point in bad:
        study.optuna.enqueue_trial(point)
    study.optuna.enqueue_trial({"x": 0.5, "n": 3, "c": "b"})

    assert run(study)[0] == {"x": 0.5, "n": 3, "c": "b"}
    assert study.n_finished() == 4
    states = [trial.state.name for trial in study.trials()]
    assert states == ["FAIL"] * 7 + ["COMPLETE"] * 4
    assert study.trials()[0].user_attrs[REASON] == "c is 'z'; it must be one of 'a', 'b'"
    assert all(INVALID in trial.user_attrs for trial in study.trials()[:7])
    assert "trial 0 was queued with a point that is not in the space: c is 'z'" in caplog.text
    assert study.retry_failed() == 0


@pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.FAIL])
def test_a_trial_of_others_with_other_choices_is_named_as_what_stops_the_study(url: str, state: TrialState) -> None:
    study = study_of(url, {"c": ["a", "b"]})
    ranges = {"c": CategoricalDistribution(["a", "z"])}
    study.optuna.add_trial(create_trial(state=state, params={"c": "a"}, distributions=ranges))
    with pytest.raises(UserError, match=r"trial 0, which another program has added, has other values of c.*--study"):
        study.ask()
    assert not [trial for trial in study.trials() if trial.state.name == "RUNNING"]


def test_a_grid_is_complete_when_each_of_its_points_has_been_tried_whatever_others_queue(url: str) -> None:
    study = grid_of(url)
    for point in ({"x": 0.1, "one": True}, {"x": 0.1, "one": True}, {"x": 0.2, "one": True}, {"x": 0.1}):
        study.optuna.enqueue_trial(point)
    run(study)

    tried = {params_key(trial.params) for trial in study.trials() if trial.state.name == "COMPLETE"}
    assert tried == {params_key(point) for point in study.space.grid()}
    assert study.n_finished() == 4
    assert study.ask() is None


def test_trials_of_other_programs_do_not_count_are_not_the_best_and_stay(url: str) -> None:
    study = study_of(url, RANGE)
    params, ranges = {"x": 0.5}, {"x": FloatDistribution(0.0, 1.0)}
    study.optuna.add_trial(create_trial(params=params, distributions=ranges, value=99.0))
    theirs = study.optuna.ask()  # another program runs it

    assert study.reap() == []
    assert len(run(study)) == 4
    best = study.best()
    assert best is not None
    assert best.value < 99
    assert study.finished_like(params) is None
    assert study.trials()[theirs.number].state.name == "RUNNING"
    assert study.n_finished() == 4


def test_failed_trials_are_queued_again_and_count_once(url: str) -> None:
    study = study_of(url, RANGE)
    failed = [study.ask(), study.ask()]
    for trial in failed:
        assert trial
        study.tell(trial.number, "FAIL", None, {REASON: "no memory"})
    run(study)
    assert study.n_finished() == 4

    assert study.retry_failed() == 2
    assert study.retry_failed() == 0, "they are queued already"
    assert study.n_finished() == 2
    first = study.ask()
    assert first
    study.interrupt(first.number, "stopped")  # the retry is queued again, and is still one
    assert study.n_finished() == 2
    again = run(study)
    assert sorted(map(params_key, again)) == sorted(params_key(trial.params) for trial in failed if trial)
    assert study.n_finished() == 4
    assert [trial.user_attrs[RETRY] for trial in study.counted() if RETRY in trial.user_attrs] == [1, 0]
    assert study.ask() is None


def test_a_retry_that_fails_again_can_be_retried_and_one_that_cannot_start_leaves_the_failed_trial(url: str) -> None:
    study = grid_of(url)
    first = study.ask()
    assert first
    study.tell(first.number, "FAIL", None, {})
    run(study)
    for _ in range(2):
        assert study.retry_failed() == 1
        trial = study.ask()
        assert trial
        assert trial.params == first.params
        study.tell(trial.number, "FAIL", None, {})
        assert study.n_finished() == 4
    assert study.retry_failed() == 1
    trial = study.ask()
    assert trial
    study.interrupt(trial.number, "refused", requeue=False)
    assert study.n_finished() == 4
    assert study.retry_failed() == 1


def test_an_interrupted_point_of_others_keeps_its_attributes(url: str) -> None:
    study = study_of(url, RANGE)
    study.optuna.enqueue_trial({"x": 0.5}, user_attrs={"why": "a guess"})
    trial = study.ask()
    assert trial
    study.interrupt(trial.number, "stopped")

    queued = study.trials()[-1]
    assert queued.user_attrs["why"] == "a guess"
    assert INTERRUPTED not in queued.user_attrs
    assert run(study)[0] == trial.params
