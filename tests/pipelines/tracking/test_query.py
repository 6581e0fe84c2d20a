"""Which runs are found, and what of them makes a configuration; runs are written by MLflow's own client."""

import gc
import itertools
from collections.abc import Callable

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from pipelines.comparison.rows import group_and_rank
from pipelines.runtime.errors import UserError
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_TAG

Write = Callable[..., str]
DIGITS = {"model": "modules.mlp.MLP", "model.dropout": "0.0", "data.n_train": "200"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One database for all tests of this file; each has experiments of its own."""
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


@pytest.fixture
def write(store) -> Write:
    """Writes a run and returns its id; each starts a second after the one before."""
    starts = itertools.count(1_700_000_000_000, 1000)

    def run(experiment, params=DIGITS, acc=0.9, seed=None, status="FINISHED", tags=(), parent=None, start=None) -> str:
        client, start = store.client, start or next(starts)
        tags = dict(tags) | ({"seed": str(seed)} if seed is not None else {})
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        info = client.create_run(store.experiment_id(experiment), start_time=start, tags=tags).info
        metrics = [Metric("test/acc", acc, start, 0)] if acc is not None else []
        client.log_batch(info.run_id, metrics, [Param(key, value) for key, value in dict(params).items()])
        if status != "RUNNING":
            client.set_terminated(info.run_id, status)
        return str(info.run_id)

    return run


def ids(store: Store, *names: str, wanted: str = "") -> set[str]:
    return {run.run_id for run in find_runs(store, names, wanted).runs}


def test_only_runs_that_finished_and_are_not_deleted_are_found(store, write):
    good, deleted = write("ends"), write("ends")
    for status in ("RUNNING", "FAILED", "KILLED"):
        write("ends", status=status)
    store.client.delete_run(deleted)
    assert ids(store, "ends") == {good}


@pytest.mark.parametrize("kind", ["sweep", "seeds", "comparison"])
def test_a_run_that_stands_for_others_is_left_out_and_its_id_means_those(store, write, kind):
    parent = write(f"of-{kind}", tags={PARENT_TAG: kind})
    children = {write(f"of-{kind}", seed=seed, parent=parent) for seed in range(2)}
    write(f"of-{kind}", parent=parent, status="FAILED")
    single = write(f"of-{kind}")
    assert ids(store, f"of-{kind}") == children | {single}
    found = find_runs(store, [parent])
    assert {run.run_id for run in found.runs} == children
    assert found.parents == [parent]


def test_a_study_of_an_older_litlab_is_a_parent_and_a_foreign_run_with_that_tag_is_not(store, write):
    old = write("older", tags={"study": "older", "litlab.command": "litlab sweep older"})
    child = write("older", tags={"study": "older", "litlab.command": "litlab sweep older"}, parent=old)
    foreign = write("foreign", tags={"study": "ablation"})
    assert ids(store, "older") == {child}
    assert ids(store, "foreign") == {foreign}


def test_a_studys_name_means_its_runs_and_brings_its_metric_and_direction(store, write):
    wanted = {"metric": "val/depth", "direction": "minimize"}
    parent = write("deep-sweep", params=wanted, tags={"study": "deep", PARENT_TAG: "sweep"})
    child = write("deep-sweep", parent=parent, tags={"stage": "search"})
    found = find_runs(store, ["deep"])
    assert [run.run_id for run in found.runs] == [child]
    assert (found.metric, found.direction, found.parents) == ("selected/val/depth", "minimize", [parent])


def test_the_study_says_which_end_of_its_metric_is_the_good_one(store, write):
    wanted = {"metric": "val/depth", "direction": "minimize"}
    parent = write("depths-sweep", params=wanted, tags={"study": "depths", PARENT_TAG: "sweep"})
    for depth in (3.0, 1.0, 2.0):
        child = write("depths-sweep", params={"model.depth": str(depth)}, parent=parent)
        store.client.log_metric(child, "selected/val/depth", depth)
    assert [row.summary.mean for row in group_and_rank(find_runs(store, ["depths"])).rows] == [1.0, 2.0, 3.0]


def test_an_experiment_and_a_study_of_the_same_name_are_told_apart(store, write):
    own = write("both")
    write("both-sweep")
    found = find_runs(store, ["both"])
    assert [run.run_id for run in found.runs] == [own]
    assert "both-sweep has the study's" in found.notes[0]


def test_names_of_all_kinds_go_together_and_no_run_counts_twice(store, write):
    one, two, three = write("many-a"), write("many-a"), write("many-b")
    assert ids(store, "many-a", three, one) == {one, two, three}


def test_no_name_means_all_experiments(store, write):
    new = {write("all-a"), write("all-b")}
    assert new <= ids(store)


def test_an_unknown_name_is_refused_and_the_near_ones_are_named(store, write):
    write("mnist-mlp-dropout")
    with pytest.raises(UserError, match=r"'mnist-mlp-dropuot' is no experiment, study or run in .*mnist-mlp-dropout"):
        find_runs(store, ["mnist-mlp-dropuot"])
    with pytest.raises(UserError, match="there is no run '0123456789abcdef0123456789abcdef'"):
        find_runs(store, ["0123456789abcdef0123456789abcdef"])


def test_a_run_that_is_named_but_cannot_be_compared_is_said(store, write):
    failed, deleted = write("said", status="FAILED"), write("said")
    store.client.delete_run(deleted)
    notes = find_runs(store, [failed, deleted]).notes
    assert notes == [f"run {failed} is left out: it is FAILED", f"run {deleted} is left out: it is deleted"]
    parent = write("said", tags={PARENT_TAG: "seeds"})
    assert "of which none is finished" in find_runs(store, [parent]).notes[0]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("params.model.dropout = '0.3'", {"b", "c"}),
        ("params.model.dropout='0.3' and metrics.test/acc>0.9", {"c"}),
        ("metrics.test/acc > 0.9", {"c"}),
        ("metrics.`test/acc` > 0.9 and params.`model.dropout` = '0.3'", {"c"}),
        ("params.note = 'metrics.test/acc > 2'", {"a"}),
        ("tags.which LIKE 'b%'", {"b"}),
        ("attributes.run_name = 'none such'", set()),
    ],
)
def test_filters_are_mlflows_and_need_no_backquotes(store, write, wanted, found):
    if store.client.get_experiment_by_name("filtered") is None:
        write("filtered", {"model.dropout": "0.0", "note": "metrics.test/acc > 2"}, tags={"which": "a"})
        write("filtered", {"model.dropout": "0.3"}, acc=0.8, tags={"which": "b"})
        write("filtered", {"model.dropout": "0.3"}, acc=0.95, tags={"which": "c"})
    assert {run.tags["which"] for run in find_runs(store, ["filtered"], wanted).runs} == found


def test_the_store_does_the_filtering(store, write, monkeypatch):
    """Only what is wanted is fetched, of an experiment and of the runs that another stands for."""
    parent = write("pushed", tags={PARENT_TAG: "seeds"})
    for acc in (0.1, 0.2, 0.95):
        write("pushed", acc=acc, parent=parent)
    fetched, search = [], store.client.search_runs
    monkeypatch.setattr(
        store.client, "search_runs", lambda *args, **more: fetched.append(search(*args, **more)) or fetched[-1]
    )
    for name in ("pushed", parent):
        fetched.clear()
        assert len(find_runs(store, [name], "metrics.test/acc > 0.9").runs) == 1
        assert sum(len(page) for page in fetched) == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("params.model.dropout = 0.3", "quoted string value"),
        ("nonsense", "Invalid clause"),
        ("metrics.test/acc > 'high'", "numeric value"),
        ("params.model.dropout = '0.3", "Invalid clause"),
    ],
)
def test_a_bad_filter_is_the_users_mistake_with_mlflows_reason(store, write, wanted, said):
    write("refused")
    with pytest.raises(UserError, match=said) as caught:
        find_runs(store, ["refused"], wanted)
    assert str(caught.value).startswith(f"--filter {wanted}: ")


def test_a_configuration_is_experiment_stage_params_and_data_but_not_the_seed(store, write):
    tags = {"stage": "confirm", "data.sha256.train": "1" * 64, "data.sha256.test": "2" * 64}
    run_id = write("whole", {**DIGITS, "seed_everything": "7"}, seed=7, tags=tags)
    (run,) = find_runs(store, [run_id]).runs
    digests = {"data.sha256": "22222222 11111111"}
    assert run.configuration == {"experiment": "whole", "stage": "confirm", **DIGITS, **digests}
    assert (run.seed, run.metrics, run.tags["stage"]) == ("7", {"test/acc": 0.9}, "confirm")


@pytest.mark.parametrize(
    ("params", "seed"), [({"seed_everything": "3"}, "3"), ({"seed": "4"}, "4"), ({"C": "1"}, None)]
)
def test_runs_of_others_say_their_seed_as_a_param_or_are_taken_each_for_its_own(store, write, params, seed):
    run_id = write("others", params)
    (run,) = find_runs(store, [run_id]).runs
    assert run.seed == (seed or run_id)
    assert not {"seed", "seed_everything"} & set(run.configuration)


def test_more_runs_than_a_page_holds_are_all_found(store, write, monkeypatch):
    monkeypatch.setattr("pipelines.tracking.store.PAGE", 2)
    wanted = {write("pages") for _ in range(5)}
    assert ids(store, "pages") == wanted


def test_garbage_is_collected_again_afterwards(store, write):
    write("tidy")
    find_runs(store, ["tidy"])
    assert gc.isenabled()
    with pytest.raises(UserError):
        find_runs(store, ["no such thing at all"])
    assert gc.isenabled()


def test_a_password_is_never_shown(store, monkeypatch):
    """Neither where a name is unknown nor where the store has gone; MLflow's own message has the whole address."""
    monkeypatch.setattr(store, "uri", "http://anna:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"no such thing at all.*anna:[*]{3}@127.0.0.1") as unknown:
        find_runs(store, ["no such thing at all"])
    monkeypatch.setattr(store, "_client", MlflowClient(store.uri))
    with pytest.raises(UserError, match=r"cannot be reached: .*Connection refused") as gone:
        find_runs(store, ["digits-mlp"])
    assert "secret" not in str(unknown.value) + str(gone.value)
