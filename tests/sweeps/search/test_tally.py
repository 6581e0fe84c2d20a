"""Sums that read each ended trial once agree with those over all trials, whatever happens in which order."""

import random
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.search.tally import Tally
from sweeps.search.trial_state import CONTROLLER, INTERRUPTED, INVALID, RETRY, best_trial, counted_trials, params_key

STATES = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]


def change(study: optuna.Study, active: list[Any], chance: random.Random) -> None:
    """Queue, start or end a trial of litlab or of another program."""
    attributes: dict[str, Any] = {CONTROLLER: "host:1:1"} if chance.random() < 0.8 else {}
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    if attributes and failed and chance.random() < 0.4:
        attributes[RETRY] = chance.choice(failed)
    if chance.random() < 0.5 or not active:
        study.enqueue_trial({"x": chance.choice([0, 1, 2, 3])}, user_attrs=attributes)
        if chance.random() < 0.8:
            active.append(study.ask())
            active[-1].suggest_int("x", 0, 3)
        return
    trial = active.pop(chance.randrange(len(active)))
    state = chance.choice(STATES)
    if state == TrialState.FAIL and chance.random() < 0.5:
        trial.set_user_attr(chance.choice([INTERRUPTED, INVALID]), "why")
    study.tell(trial, chance.choice([0.1, 0.5]) if state == TrialState.COMPLETE else None, state=state)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_grid", [True, False])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_sums_are_those_over_all_trials_after_any_changes(seed: int, is_grid: bool, direction: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chance, study = random.Random(seed), optuna.create_study(direction=direction)
    tally, active = Tally(direction, is_grid=is_grid), list[Any]()
    for _ in range(120):
        change(study, active, chance)
        if chance.random() < 0.3:
            continue
        trials = study.get_trials(deepcopy=False)
        tally.update(trials)
        counted = counted_trials(trials, is_grid=is_grid)
        assert [trial.number for trial in tally.counted()] == [trial.number for trial in counted]
        assert tally.best() == best_trial(trials, direction)
        assert tally.has_queued == any(trial.state == TrialState.WAITING for trial in trials)
        own = [trial for trial in trials if CONTROLLER in trial.user_attrs]
        running = [trial for trial in own if trial.state == TrialState.RUNNING]
        tried = {params_key(trial.params) for trial in [*counted, *running]}
        assert tally.tried() == tried
        assert tally.n_taken() == (len(tried) if is_grid else len(counted) + len(running))
        done = [trial for trial in own if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        for x in range(4):
            like, first = tally.trained_like({"x": x}), next((t for t in done if t.params == {"x": x}), None)
            assert (like and like.number) == (first and first.number)
    assert tally.counted()
