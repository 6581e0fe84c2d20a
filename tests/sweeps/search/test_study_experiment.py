"""The MLflow experiment of a study: its name, also if the study's name ends as that of its experiment."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.runtime.errors import UserError
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_RUN_TAG, PARENT_TAG
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import PARENT, Study
from sweeps.search.study_run import open_parent
from sweeps.search.trial_runs import TrialRuns

SPACE = {"model.dropout": {"low": 0.0, "high": 0.7}}


@pytest.fixture
def named_study(tmp_path: Path) -> Callable[[str], Study]:
    """Return a function that makes a study of three trials, none of which has started."""
    space = Space("s", "e", SPACE, "", metric="val/loss", direction="minimize", sampler="random", trials=3)
    facts = {"values": {}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 9}
    return lambda name: open_study(open_storage(str(tmp_path / "journal")), name, space, facts, "host:1:1")


@pytest.mark.parametrize(
    ("name", "existing", "experiment"),
    [
        ("x", [], "x-sweep"),
        ("x-sweep", [], "x-sweep"),
        ("x-sweep", [("x-sweep", "x-sweep")], "x-sweep"),
        ("x-sweep", [("x-sweep", "x")], "x-sweep-sweep"),
        ("x-sweep", [("x-sweep", None)], "x-sweep-sweep"),
        ("x", [("x-sweep", "x-sweep")], None),
    ],
    ids=["new", "suffix", "again", "another study", "an experiment", "taken"],
)
def test_the_experiment_of_a_study_ends_with_sweep_once_unless_that_has_other_runs(
    named_study, uri, name, existing, experiment
):
    store = Store(uri)
    for of_run, study in existing:
        with recorded(Run(store, of_run, "a run", {"study": study} if study else {})):
            pass
    if experiment is None:
        with pytest.raises(
            UserError, match=r"study x: its MLflow experiment would be x-sweep, which study x-sweep has"
        ):
            open_parent(store, named_study(name), "litlab sweep x")
        return
    with recorded(open_parent(store, named_study(name), "litlab sweep x")) as run:
        assert store.find(run.run_id).experiment == experiment


def test_a_study_of_an_earlier_version_with_a_doubled_suffix_is_continued_and_found_by_its_name(named_study, uri):
    store, study = Store(uri), named_study("x-sweep")
    with recorded(Run(store, "x-sweep-sweep", "sweep x-sweep", {"study": "x-sweep", PARENT_TAG: "sweep"})) as earlier:
        study.optuna.set_user_attr(PARENT, earlier.run_id)
    with recorded(open_parent(store, study, "litlab sweep x-sweep")) as again:
        job = TrialRuns(study, again, ["e"], devices=1).search_job({}, 0, 0, stacked=False)
    assert (again.run_id, job.experiment) == (earlier.run_id, "x-sweep-sweep")
    with recorded(Run(store, job.experiment, "trial", {"study": "x-sweep", PARENT_RUN_TAG: again.run_id})) as trial:
        pass
    assert find_run(store, "latest:x-sweep").run_id == trial.run_id
