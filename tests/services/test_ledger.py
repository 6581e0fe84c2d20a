"""The ledger of a test set in PostgreSQL, and on an MLflow server, which has no request that counts runs."""

import pytest

from pipelines.tracking.ledger import Ledger, from_server, read_ledger
from pipelines.tracking.store import Store
from pipelines.tracking.tags import CONFIG_HASH_TAG, FOLDS_PARAM, PARENT_RUN_TAG, TESTED_TAG

DIGEST = "a" * 64
pytestmark = pytest.mark.services


def ledger(uri: str) -> Ledger:
    """Write two seeds of a configuration, a run without a hash, two folds, and a later test; read the ledger."""
    store, seed = Store(uri), {CONFIG_HASH_TAG: "seeds"}
    folds = [{PARENT_RUN_TAG: "parent", CONFIG_HASH_TAG: f"fold {fold}"} for fold in range(2)]
    place = store.experiment_id("looks")
    for tags in (seed, seed, {}, *folds):
        run_id = store.client.create_run(place, tags={**tags, "data.sha256.test": DIGEST}).info.run_id
        store.client.log_param(run_id, FOLDS_PARAM, "2" if tags in folds else "null")
        store.client.log_metric(run_id, "test/acc", 0.9)
        store.client.set_terminated(run_id)
    store.client.set_tag(run_id, f"{TESTED_TAG}.{DIGEST}", '{"later": 5}')
    store.client.delete_run(run_id)
    found = read_ledger(store, DIGEST)
    assert found == from_server(store, DIGEST)
    assert len(found.first_looks) == 4
    return found


def test_a_postgresql_database_counts_the_looks(postgres):
    found = ledger(postgres("ledger"))
    assert {"seeds", "parent", "later"} < found.first_looks.keys()
    assert found.first_looks["later"] == 5


def test_a_server_counts_the_looks(tracking):
    found = ledger(tracking)
    assert {"seeds", "parent", "later"} < found.first_looks.keys()
    assert found.is_complete
