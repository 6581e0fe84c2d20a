"""Finding runs, and the configuration of a run. The runs are written by MLflow's own client."""

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
    """One database for all tests of this file; each test uses its own experiments."""
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


@pytest.fixture
def write(store) -> Write:
    """Return a function that writes a run and returns its id; each run starts a second after the one before."""
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


def ids(store: Store, *names: str) -> set[str]:
    return {run.run_id for run in find_runs(store, names).runs}


def test_only_finished_runs_that_are_not_deleted_are_found(store, write):
    good, deleted = write("ends"), write("ends")
    for status in ("RUNNING", "FAILED", "KILLED"):
        write("ends", status=status)
    store.client.delete_run(deleted)
    assert ids(store, "ends") == {good}


@pytest.mark.parametrize("kind", ["sweep", "seeds", "comparison"])
def test_a_summary_run_is_left_out_and_its_id_selects_its_children(store, write, kind):
    parent = write(f"of-{kind}", tags={PARENT_TAG: kind})
    children = {write(f"of-{kind}", seed=seed, parent=parent) for seed in range(2)}
    write(f"of-{kind}", parent=parent, status="FAILED")
    single = write(f"of-{kind}")
    assert ids(store, f"of-{kind}") == children | {single}
    found = find_runs(store, [parent])
    assert {run.run_id for run in found.runs} == children
    assert found.parents == [parent]


def test_a_study_of_an_older_litlab_is_a_summary_run_and_a_foreign_run_with_the_tag_study_is_not(store, write):
    old = write("older", tags={"study": "older", "litlab.command": "litlab sweep older"})
    child = write("older", tags={"study": "older", "litlab.command": "litlab sweep older"}, parent=old)
    foreign = write("foreign", tags={"study": "ablation"})
    assert ids(store, "older") == {child}
    assert ids(store, "foreign") == {foreign}


def test_the_name_of_a_study_selects_its_runs_its_metric_and_its_direction(store, write):
    params = {"metric": "val/depth", "direction": "minimize"}
    parent = write("deep-sweep", params=params, tags={"study": "deep", PARENT_TAG: "sweep"})
    child = write("deep-sweep", parent=parent, tags={"stage": "search"})
    found = find_runs(store, ["deep"])
    assert [run.run_id for run in found.runs] == [child]
    assert (found.metric, found.direction, found.parents) == ("selected/val/depth", "minimize", [parent])


def test_what_fresh_seeds_have_shown_of_a_study_is_noted(store, write):
    verdict = "not better than the default: test/acc 0.90 against 0.91 (n = 3)"
    tags = {"study": "deep", PARENT_TAG: "sweep", "litlab.verdict": verdict}
    parent = write("deep-sweep", params={"metric": "val/acc", "direction": "maximize"}, tags=tags)
    write("deep-sweep", parent=parent)
    assert find_runs(store, ["deep"]).notes == [f"deep-sweep: on fresh seeds, the best is {verdict}"]
    assert not find_runs(store, []).notes


def test_the_direction_of_a_study_decides_the_ranking(store, write):
    params = {"metric": "val/depth", "direction": "minimize"}
    parent = write("depths-sweep", params=params, tags={"study": "depths", PARENT_TAG: "sweep"})
    for depth in (3.0, 1.0, 2.0):
        child = write("depths-sweep", params={"model.depth": str(depth)}, parent=parent)
        store.client.log_metric(child, "selected/val/depth", depth)
    assert [row.summary.mean for row in group_and_rank(find_runs(store, ["depths"])).rows] == [1.0, 2.0, 3.0]


def test_a_name_of_an_experiment_and_a_study_selects_the_experiment_with_a_note(store, write):
    run_id = write("both")
    write("both-sweep")
    found = find_runs(store, ["both"])
    assert [run.run_id for run in found.runs] == [run_id]
    assert "The study: both-sweep" in found.notes[0]


def test_names_and_ids_can_be_combined_and_no_run_is_found_twice(store, write):
    one, two, three = write("many-a"), write("many-a"), write("many-b")
    assert ids(store, "many-a", three, one) == {one, two, three}


def test_no_name_selects_all_experiments(store, write):
    new = {write("all-a", seed=1), write("all-b", seed=1)}
    assert new <= ids(store)


def test_an_unknown_name_is_refused_with_suggestions(store, write):
    write("mnist-mlp-dropout")
    with pytest.raises(UserError, match=r"'mnist-mlp-dropuot' is not an experiment.* did you mean mnist-mlp-dropout"):
        find_runs(store, ["mnist-mlp-dropuot"])
    with pytest.raises(UserError, match="there is no run '0123456789abcdef0123456789abcdef'"):
        find_runs(store, ["0123456789abcdef0123456789abcdef"])


def test_a_note_says_why_a_given_run_is_left_out(store, write):
    failed, deleted = write("noted", status="FAILED"), write("noted")
    store.client.delete_run(deleted)
    notes = find_runs(store, [failed, deleted]).notes
    assert notes[0] == f"run {failed} is left out: it is FAILED"
    assert notes[1].startswith(f"left out: run {deleted} was deleted: restore it with `MLFLOW_TRACKING_URI=")
    parent = write("noted", tags={PARENT_TAG: "seeds"})
    assert "none of them is finished" in find_runs(store, [parent]).notes[0]


@pytest.mark.parametrize(
    ("filter_string", "expected"),
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
def test_filters_are_mlflows_and_need_no_backticks(store, write, filter_string, expected):
    if store.client.get_experiment_by_name("filtered") is None:
        write("filtered", {"model.dropout": "0.0", "note": "metrics.test/acc > 2"}, tags={"which": "a"})
        write("filtered", {"model.dropout": "0.3"}, acc=0.8, tags={"which": "b"})
        write("filtered", {"model.dropout": "0.3"}, acc=0.95, tags={"which": "c"})
    assert {run.tags["which"] for run in find_runs(store, ["filtered"], filter_string).runs} == expected


def test_the_store_does_the_filtering(store, write, monkeypatch):
    """Only matching runs are fetched, both of an experiment and of a summary run."""
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
    ("filter_string", "message"),
    [
        ("nonsense", "Invalid clause"),
        ("metrics.test/acc > 'high'", "numeric value"),
        ("params.model.dropout = '0.3", "Invalid clause"),
    ],
)
def test_an_invalid_filter_is_refused_with_mlflows_reason(store, write, filter_string, message):
    write("refused")
    with pytest.raises(UserError, match=message) as caught:
        find_runs(store, ["refused"], filter_string)
    assert str(caught.value).startswith(f"--filter {filter_string}: ")


def test_a_configuration_is_experiment_stage_params_and_data_without_the_seed(store, write):
    tags = {"stage": "confirm", "data.sha256.train": "1" * 64, "data.sha256.test": "2" * 64}
    run_id = write("whole", {**DIGITS, "seed_everything": "7"}, seed=7, tags=tags)
    (run,) = find_runs(store, [run_id]).runs
    digests = {"data.sha256": "22222222 11111111"}
    assert run.configuration == {"experiment": "whole", "stage": "confirm", **DIGITS, **digests}
    assert (run.seed, run.metrics, run.tags["stage"]) == ("7", {"test/acc": 0.9}, "confirm")


@pytest.mark.parametrize(
    ("params", "seed"), [({"seed_everything": "3"}, "3"), ({"seed": "4"}, "4"), ({"C": "1"}, None)]
)
def test_the_seed_of_a_foreign_run_is_a_param_or_its_run_id(store, write, params, seed):
    run_id = write("others", params)
    (run,) = find_runs(store, [run_id]).runs
    assert run.seed == (seed or run_id)
    assert not {"seed", "seed_everything"} & set(run.configuration)


def test_all_pages_of_runs_are_read(store, write, monkeypatch):
    monkeypatch.setattr("pipelines.tracking.store.PAGE", 2)
    expected = {write("pages") for _ in range(5)}
    assert ids(store, "pages") == expected


def test_garbage_collection_is_enabled_afterwards(store, write):
    write("tidy")
    find_runs(store, ["tidy"])
    assert gc.isenabled()
    with pytest.raises(UserError):
        find_runs(store, ["no such thing at all"])
    assert gc.isenabled()


def test_error_messages_do_not_show_the_password(store, monkeypatch):
    """Neither for an unknown name nor for an unreachable store, where MLflow's own message has the complete URI."""
    monkeypatch.setattr(store, "uri", "http://anna:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"no such thing at all.*anna:[*]{3}@127.0.0.1") as unknown:
        find_runs(store, ["no such thing at all"])
    monkeypatch.setattr(store, "_client", MlflowClient(store.uri))
    with pytest.raises(UserError, match=r"cannot be reached: .*Connection refused") as gone:
        find_runs(store, ["digits-mlp"])
    assert "secret" not in str(unknown.value) + str(gone.value)


def test_a_study_with_the_name_of_an_experiment_is_noted_only_if_it_is_newer(store, write):
    write("both")
    write("both-sweep")
    (note,) = find_runs(store, ["both"]).notes
    assert note == "both is an experiment and a study; the experiment is shown. The study: both-sweep"
    write("both")
    assert find_runs(store, ["both"]).notes == []
