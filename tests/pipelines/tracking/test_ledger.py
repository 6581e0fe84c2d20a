"""The ledger of a test set: which configurations the runs of a store evaluated on it, in the order of their looks."""

import pytest
from mlflow import MlflowClient

from datamodules.digits import Digits
from pipelines.comparison.compare import compare
from pipelines.comparison.formatting import look_note
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predict_data import predict_data
from pipelines.tracking.ledger import MAX_RUNS, from_database, from_server, look_of, read_ledger
from pipelines.tracking.removal import plan_removals, remove
from pipelines.tracking.store import Store
from pipelines.tracking.tags import STAGE_TAG

SHORT = ["--trainer.max_epochs", "1", "--data.n_train", "300", "--keep_predictions", "false"]
UNTESTED = "--trainer.limit_test_batches"


@pytest.fixture(scope="module")
def digest() -> str:
    data = Digits()
    data.setup("test")
    return data.test_set.digest()


@pytest.fixture
def fit(litlab, tables):
    """Return a function that trains and tests one short run, and returns its id."""

    def train(*arguments: str) -> str:
        outcome = litlab("fit", "digits-mlp", *SHORT, *arguments)
        assert outcome.code == 0, outcome.err
        return outcome.run_id

    return train


def test_each_configuration_that_was_evaluated_on_a_test_set_is_one_look_whatever_its_seeds(litlab, fit, uri, digest):
    first = fit()
    renamed = fit("--name", "another-name", "--seed_everything", "2")
    wider = fit("--model.hidden", "[64]")
    assert litlab("baseline", "svm-linear", "digits-mlp", "--data.n_train", "200").code == 0
    fit("--data.split_seed", "1")  # another training set: another configuration, tested on the same examples
    store = Store(uri)
    looks = read_ledger(store, digest).first_looks
    assert len(looks) == 4
    order = sorted(looks, key=lambda look: looks[look])
    assert order[:2] == [look_of(store.find(run_id)) for run_id in (first, wider)]
    assert look_of(store.find(renamed)) == order[0]
    assert looks[order[0]] == store.find(first).ended
    assert read_ledger(store, "0" * 64).first_looks == {}
    runs = store.search(list(store.experiment_names()), "")
    assert (len(runs), from_database(store, digest)) == (5, from_server(store, digest)), "both count the same"
    assert len(runs) < MAX_RUNS
    assert from_server(store, digest).text == "4 configurations"
    assert from_server(store, digest, most=1).text == "at least 1 configuration"


def test_deleted_and_removed_runs_remain_in_the_ledger(litlab, fit, uri, digest):
    kept, deleted, removed = fit(), fit("--model.dropout", "0.1"), fit("--model.dropout", "0.7")
    store = Store(uri)
    MlflowClient(uri).delete_run(deleted)
    removals, _ = plan_removals(store, [store.find(removed)], named=True)
    for removal in removals:
        remove(removal)
    assert from_database(store, digest) == from_server(store, digest)
    assert len(read_ledger(store, digest).first_looks) == 3
    comparison = compare(["digits-mlp"])
    assert [row.runs[0].run_id for row in comparison.rows] == [kept]
    assert look_note(comparison)[0].startswith("1st of 3 looks at this test set; ")


def test_a_run_without_a_test_is_no_look_until_its_weights_are_tested_or_predict_the_test_set(fit, uri, digest):
    untested = fit(UNTESTED, "0")
    store = Store(uri)
    assert store.find(untested).tags["data.sha256.test"] == digest
    assert read_ledger(store, digest).first_looks == {}
    predict_data(untested, [UNTESTED, "1.0"])
    (look,) = read_ledger(store, digest).first_looks
    evaluate_run(untested, "val")
    evaluate_run(untested, "test", [UNTESTED, "1.0"])
    assert from_database(store, digest) == from_server(store, digest)
    assert [*read_ledger(store, digest).first_looks] == [look], "the same configuration again"


def test_litlab_test_adds_a_look_only_if_it_changes_the_configuration(fit, uri, digest):
    run_id = fit()
    store = Store(uri)
    looks = read_ledger(store, digest).first_looks
    evaluate_run(run_id, "test")
    assert read_ledger(store, digest).first_looks == looks
    evaluate_run(run_id, "test", ["--data.normalization", "unit"])
    assert looks.items() < read_ledger(store, digest).first_looks.items()
    assert len(read_ledger(store, digest).first_looks) == 2


def test_a_summary_run_and_a_pruned_trial_are_no_looks(fit, uri, digest):
    run_id = fit()
    store = Store(uri)
    place = store.find(run_id).experiment_id
    tags = {"data.sha256.test": digest}
    summary = store.client.create_run(place, tags={**tags, "litlab.parent": "seeds"}).info.run_id
    store.client.log_metric(summary, "test/acc", 0.9)
    trial = store.client.create_run(place, tags={**tags, STAGE_TAG: "search"}).info.run_id
    store.client.log_metric(trial, "val/acc", 0.9)
    assert len(from_database(store, digest).first_looks) == len(from_server(store, digest).first_looks) == 1
