"""Which metric selects the epochs of a study's trials: that of the search, unless the user or an old study says."""

import optuna
import pytest

from sweeps.search.selection import begin_selection, selection_arguments, selects_by_metric
from sweeps.search.space import Space
from sweeps.search.trial_state import CONTROLLER

SPACE = {"model.dropout": [0.1, 0.2]}


@pytest.fixture
def study():
    return optuna.create_study()


def arguments(study, metric="val/loss", direction="minimize", space=SPACE, monitor="val/acc", **values):
    facts = {"values": {"monitor": None, "mode": None, **values}, "monitor": monitor}
    return selection_arguments(study, Space("s", "e", space, metric=metric, direction=direction, trials=2), facts)


def test_a_new_study_selects_by_its_metric(study):
    begin_selection(study)
    assert selects_by_metric(study)
    assert arguments(study) == ["--monitor", "val/loss"]
    assert arguments(study, monitor=None) == ["--monitor", "val/loss"]


def test_the_direction_of_the_search_is_passed_on_if_the_name_tells_another_one(study):
    begin_selection(study)
    assert arguments(study, "val/agreement", "minimize") == ["--monitor", "val/agreement", "--mode", "min"]


def test_nothing_is_passed_on_if_the_experiment_selects_so_or_the_user_has_chosen(study):
    begin_selection(study)
    assert arguments(study, "val/acc", "maximize") == []
    facts = {"values": {"monitor": "val/f1"}, "monitor": "val/acc"}
    assert selection_arguments(study, Space("s", "e", SPACE, metric="val/loss", trials=2), facts) == []


def test_a_study_of_an_earlier_version_keeps_its_rule(study):
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={CONTROLLER: "host:1:1"}))
    begin_selection(study)
    assert not selects_by_metric(study)
    assert arguments(study) == []


def test_a_study_with_points_that_others_queued_is_new(study):
    study.enqueue_trial({"model.dropout": 0.1})
    begin_selection(study)
    assert selects_by_metric(study)
