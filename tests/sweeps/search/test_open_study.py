"""A study of 455f4d7 or earlier, which recorded a hash only, is compared by what its trials have saved."""

from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from pipelines.runtime.errors import UserError
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_RUN_TAG
from sweeps.search.open_study import is_same_experiment, trial_runs
from sweeps.search.space import Space

VALUES = {"model": "m.A", "model.width": 8, "model.lr": 0.1}
CONFIG = {"model": {"class_path": "m.A", "init_args": {"width": 8, "lr": 0.1}}}
OTHER_CLASS = {"model": {"class_path": "m.B", "init_args": {"depth": 2}}}
OTHER_WIDTH = {"model": {"class_path": "m.A", "init_args": {"width": 9, "lr": 0.1}}}


@pytest.fixture
def store(uri: str) -> Store:
    return Store(uri)


@pytest.fixture
def parent(store: Store) -> str:
    with recorded(Run(store, "s-sweep", "sweep s", {})) as run:
        return run.run_id


def save_trials(store: Store, parent: str, *configs: dict[str, Any] | None) -> None:
    """Create a trial's run for each configuration; it saves none if that is None."""
    for config in configs:
        with recorded(Run(store, "s-sweep", "trial", {PARENT_RUN_TAG: parent})) as run:
            run.log_params({"model": (config or CONFIG)["model"]["class_path"]})
            if config is not None:
                run.save_config(config)


def is_same(store: Store, parent: str, searched: dict[str, Any]) -> bool:
    space = Space(name="s", experiment="e", space=searched, trials=5, sampler="random")
    facts = {"values": VALUES, "config": CONFIG, "defaults": {}}
    return is_same_experiment(None, trial_runs(store, parent), space, facts)


LR, CLASSES = {"model.lr": {"low": 0.0, "high": 1.0}}, {"model": ["m.A", "m.B"]}


@pytest.mark.parametrize("searched", [LR, CLASSES], ids=["a value", "a class"])
def test_a_trial_that_saved_no_configuration_is_passed_over(
    store: Store, parent: str, searched: dict[str, Any]
) -> None:
    save_trials(store, parent, None, CONFIG)
    assert is_same(store, parent, searched)


@pytest.mark.parametrize("searched", [LR, CLASSES], ids=["a value", "a class"])
def test_the_configuration_of_another_experiment_is_not_the_same(
    store: Store, parent: str, searched: dict[str, Any]
) -> None:
    save_trials(store, parent, None, OTHER_WIDTH)
    assert not is_same(store, parent, searched)


def test_a_trial_with_the_experiments_own_class_is_preferred(store: Store, parent: str) -> None:
    save_trials(store, parent, OTHER_CLASS)
    assert is_same(store, parent, CLASSES), "only the keys of a searched class differ"
    save_trials(store, parent, OTHER_WIDTH)
    assert not is_same(store, parent, CLASSES)


def test_trials_without_any_configuration_or_a_deleted_study_run_do_not_match(store: Store, parent: str) -> None:
    save_trials(store, parent, None)
    assert not is_same(store, parent, LR)
    assert not is_same(store, "0" * 32, LR)


def test_a_lost_server_is_not_a_study_without_runs(store: Store, parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run_id: str) -> None:
        raise MlflowException("connection refused")

    save_trials(store, parent, CONFIG)
    monkeypatch.setattr(store.client, "get_run", fail)
    with pytest.raises(UserError, match="cannot be reached: connection refused"):
        is_same(store, parent, LR)
