"""What people call a run: the beginning of its id, its name, latest, best. The runs are written by MLflow's client."""

import itertools

import pytest
from mlflow.entities import Metric

from pipelines.runtime.errors import UserError
from pipelines.tracking.deleted import RunDeletedError
from pipelines.tracking.query import find_runs
from pipelines.tracking.run_names import FIRST_RUNS, NEWEST_FIRST, find_run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_RUN_TAG, PARENT_TAG, REASON_TAG, SEEDS_PARAM


@pytest.fixture
def store(tables, uri):
    return Store(uri)


@pytest.fixture
def write(store):
    starts = itertools.count(1_700_000_000_000, 1000)

    def run(experiment="digits", name="a run", metrics=(), tags=(), status="FINISHED"):
        client, start = store.client, next(starts)
        info = client.create_run(store.experiment_id(experiment), start_time=start, run_name=name, tags=dict(tags)).info
        client.log_batch(info.run_id, [Metric(key, value, start, 0) for key, value in dict(metrics).items()])
        if status != "RUNNING":
            client.set_terminated(info.run_id, status)
        return str(info.run_id)

    return run


@pytest.mark.parametrize("length", [4, 8, 31, 32])
def test_the_beginning_of_an_id_names_a_run(store, write, length):
    run_id = write()
    assert find_run(store, run_id[:length]).run_id == run_id


def test_fewer_than_four_characters_name_no_run(store, write):
    run_id = write()
    with pytest.raises(UserError, match="first four or more characters"):
        find_run(store, run_id[:3])


def test_an_ambiguous_beginning_lists_the_candidates(store, write):
    ids = sorted(write() for _ in range(40))
    pairs = [(one, other) for one, other in itertools.pairwise(ids) if one[:4] == other[:4]]
    write(name="twins", experiment="one")
    write(name="twins", experiment="two")
    with pytest.raises(UserError, match=r"'twins' names 2 runs; give more of the id:\n  [0-9a-f]{32}  two  twins\n"):
        find_run(store, "twins")
    for one, other in pairs:
        with pytest.raises(UserError, match=f"(?s){one}.*{other}|{other}.*{one}"):
            find_run(store, one[:4])


@pytest.mark.parametrize("name", ["dropout=0.5 seed=1", "don't", "beef", 'say "it"'])
def test_a_run_is_found_by_its_name(store, write, name):
    run_id = write(name=name)
    write(name="another")
    assert find_run(store, name).run_id == run_id


@pytest.mark.parametrize("with_experiment", [False, True])
def test_a_deleted_run_is_called_deleted_by_its_short_id_and_its_name_unless_an_active_one_has_the_name(
    store, write, with_experiment
):
    run_id = write("gone", name="a name")
    store.client.delete_run(run_id)
    if with_experiment:
        store.client.delete_experiment(store.client.get_run(run_id).info.experiment_id)
    for text in (run_id[:8], "a name"):
        with pytest.raises(RunDeletedError, match=f"run {run_id} was deleted: restore"):
            find_run(store, text)
    active = write(name="a name")
    assert find_run(store, "a name").run_id == active
    with pytest.raises(UserError, match="there is no run 'nowhere'"):
        find_run(store, "nowhere")


def test_latest_is_the_newest_run_that_summarises_no_others(store, write):
    first, last = write("one"), write("two", status="KILLED")
    write("two", tags={PARENT_TAG: "seeds"})
    assert find_run(store, "latest").run_id == last
    assert find_run(store, "latest:one").run_id == first
    with pytest.raises(UserError, match="'three' is not an experiment"):
        find_run(store, "latest:three")


@pytest.mark.parametrize("name", ["latest", "latest:one"])
def test_latest_is_no_failed_run_if_another_of_its_experiment_did_not_fail_and_says_so(store, write, caplog, name):
    write("two")
    failed = write("one", status="FAILED")
    assert find_run(store, name).run_id == failed
    finished = write("one")
    write("one", tags={PARENT_TAG: "seeds"})
    failed = write("one", status="FAILED", tags={REASON_TAG: "UserError: no val_acc\nmore"})
    caplog.clear()
    with caplog.at_level("INFO", "litlab"):
        assert find_run(store, name).run_id == finished
    assert caplog.messages == [f"latest is run {finished}: run {failed} is newer, but failed: no val_acc"]
    assert find_run(store, name, any_status=True).run_id == failed


def test_latest_says_of_a_run_of_several_seeds_or_of_a_study_what_summarises_it(store, write, caplog):
    parent = write(tags={PARENT_TAG: "seeds"})
    store.client.log_param(parent, SEEDS_PARAM, "0 to 4")
    seed = write(tags={PARENT_RUN_TAG: parent})
    with caplog.at_level("INFO", "litlab"):
        assert find_run(store, "latest").run_id == seed
        trial = write(tags={PARENT_RUN_TAG: parent, "study": "s"})
        assert find_run(store, "latest:digits").run_id == trial
        store.client.delete_run(parent)
        store.client.delete_run(trial)
        assert find_run(store, "latest").run_id == seed
        assert find_run(store, seed).run_id == seed
    assert caplog.messages == [
        f"latest is run {seed} of seeds 0 to 4; its summary: {parent}",
        f"latest is run {trial} of study s; its summary: {parent}",
    ]


def test_latest_is_found_behind_many_newer_summary_runs(store, write):
    run_id = write()
    for _ in range(FIRST_RUNS + 1):
        write(tags={PARENT_TAG: "comparison"})
    assert find_run(store, "latest").run_id == run_id


def test_a_limit_returns_the_first_runs_of_the_order(store, write):
    runs = [write() for _ in range(5)]
    ids = list(store.experiment_names())
    found = store.search(ids, "", NEWEST_FIRST, limit=2)
    assert [run.run_id for run in found] == runs[:-3:-1]
    assert len(store.search(ids, "", NEWEST_FIRST)) == 5


def test_best_is_the_best_on_validation_data_not_on_test_data(store, write):
    write(metrics={"selected/val/acc": 0.7, "test/acc": 0.99})
    best = write(metrics={"selected/val/acc": 0.8, "test/acc": 0.6})
    write(metrics={"selected/val/acc": 0.9}, status="KILLED")
    write(metrics={"selected/val/acc": float("nan")})
    assert find_run(store, "best:digits").run_id == best


def test_best_follows_the_direction_that_a_run_recorded(store, write):
    tags = {"litlab.monitor": "val_depth", "litlab.mode": "min"}
    best = write(metrics={"selected/val_depth": 1.0}, tags=tags)
    write(metrics={"selected/val_depth": 2.0}, tags=tags)
    assert find_run(store, "best:digits").run_id == best


def test_best_leaves_out_folds_which_have_validation_data_of_their_own(store, write):
    folds = [write(metrics={"selected/val/acc": 0.98 + fold / 100}) for fold in (0, 1)]
    for fold, run_id in enumerate(folds):
        store.client.log_param(run_id, "data.folds", 2)
        store.client.log_param(run_id, "data.fold", fold)
    assert find_run(store, "best:digits").run_id == folds[1]
    whole = write(metrics={"selected/val/acc": 0.9})
    assert find_run(store, "best:digits").run_id == whole


def test_best_of_a_study_is_the_run_that_the_study_chose(store, write):
    chosen = write("s-sweep", metrics={"selected/val/acc": 0.5})
    write("s-sweep", metrics={"selected/val/acc": 0.6})
    write("s-sweep", tags={PARENT_TAG: "sweep", "study": "s", "best.run": chosen})
    assert find_run(store, "best:s").run_id == chosen


def test_best_without_anything_measured_says_so(store, write):
    write()
    with pytest.raises(UserError, match="digits has no finished run with a metric on validation data"):
        find_run(store, "best:digits")


def test_compare_takes_the_same_names(store, write):
    one, other = write(name="first"), write(name="second")
    assert [run.run_id for run in find_runs(store, ["first", other[:6]]).runs] == [one, other]
