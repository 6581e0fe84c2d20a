"""The ledger of a test set: which configurations were evaluated on it, and when first.

It is read from the runs of the tracking store, of all experiments and any status, also from those that were deleted in
MLflow. Runs that differ only in the seed or the fold have one look. Imports nothing heavy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import counted
from pipelines.tracking.client import unreachable
from pipelines.tracking.folds import fold_of
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.mlflow_internals import database_engine, database_tables
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    CONFIG_HASH_TAG,
    DATA_HASH_TAG,
    FOLDS_PARAM,
    PARENT_RUN_TAG,
    PARENT_TAG,
    TEST_METRICS_TAG,
    TESTED_TAG,
    is_summary,
)

TEST_DIGEST_TAG = f"{DATA_HASH_TAG}.test"
MAX_RUNS = 1000  # runs that are read from a server, which has no request that counts them
Times = dict[str, int]  # by configuration, in milliseconds since the epoch


@dataclass(frozen=True)
class Ledger:
    """Who looked at a test set.

    Attributes:
        first_looks: When each configuration was first evaluated on it, by `look_of` its runs, in milliseconds since the
            epoch.
        is_complete: False if a server has more than `MAX_RUNS` runs on this test set: of the others nothing is known.
    """

    first_looks: Times
    is_complete: bool = True

    @property
    def text(self) -> str:
        """How many configurations looked: "12 configurations"."""
        return f"{'' if self.is_complete else 'at least '}{counted(len(self.first_looks), 'configuration')}"


def look_of(run: StoredRun) -> str:
    """Return what the runs of one configuration share: its hash; of folds, which have one each, the summary run."""
    config, parent = run.tags.get(CONFIG_HASH_TAG), run.tags.get(PARENT_RUN_TAG)
    shared = (config,) if fold_of(run.params) is None else (parent, config)
    return next((text for text in shared if text), run.run_id)


def read_ledger(store: Store, digest: str) -> Ledger:
    """Return the ledger of the test set with a SHA-256.

    Raises:
        UserError: The store cannot be reached.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if store.uri.startswith(("http", "databricks")):
            return from_server(store, digest)
        return from_database(store, digest)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(unreachable(store.uri, error)) from error


def record_look(run: StoredRun, digest: str, look: str, now: int) -> bool:
    """Tag a run whose weights were evaluated on a test set after its end; return whether the store has the look.

    Args:
        run: The run.
        digest: SHA-256 of the test set.
        look: See `look_of`; another one if the evaluation changed the configuration.
        now: The time, in milliseconds since the epoch.
    """
    recorded = _recorded_looks(run.tags.get(f"{TESTED_TAG}.{digest}", ""))
    tested = run.tags.get(TEST_DIGEST_TAG) == digest and test_metrics(run.metrics, run.tags)
    if look in recorded or (tested and look == look_of(run)):
        return True
    return run.store.tag(run.run_id, f"{TESTED_TAG}.{digest}", json.dumps({**recorded, look: now}))


def _recorded_looks(text: str) -> Times:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(look): int(time) for look, time in found.items()} if isinstance(found, Mapping) else {}


def _first(looks: Iterable[tuple[str, int]]) -> Times:
    times: Times = {}
    for look, time in looks:
        times[look] = min(time, times.get(look, time))
    return times


def from_server(store: Store, digest: str, most: int = MAX_RUNS) -> Ledger:
    """Return the ledger by requests of MLflow's client, which returns whole runs: at most so many, the oldest."""
    from mlflow.entities import ViewType

    ids = [one.experiment_id for one in store.client.search_experiments(view_type=ViewType.ALL)]

    def search(condition: str) -> Any:
        oldest = ["attributes.start_time ASC"]
        return store.client.search_runs(ids, condition, ViewType.ALL, max_results=most, order_by=oldest)

    trained, later = search(f"tags.`{TEST_DIGEST_TAG}` = '{digest}'"), search(f"tags.`{TESTED_TAG}.{digest}` != ''")
    runs = [store.read(run) for run in trained]
    tested = [run for run in runs if not is_summary(run.tags) and test_metrics(run.metrics, run.tags)]
    looks = [(look_of(run), run.ended or run.started) for run in tested]
    looks += [each for run in later for each in _recorded_looks(run.data.tags[f"{TESTED_TAG}.{digest}"]).items()]
    return Ledger(_first(looks), is_complete=not (trained.token or later.token))


def from_database(store: Store, digest: str) -> Ledger:
    """Return the ledger by a query of the database: to read whole runs would take longer than the comparison."""
    from sqlalchemy import select

    tables = database_tables()
    later = select(tables.tags.value).where(tables.tags.key == f"{TESTED_TAG}.{digest}")
    with database_engine(store.client).connect() as connection:
        known = {str(key): 0.0 for (key,) in connection.execute(select(tables.metrics.key).distinct())}
        found = connection.execute(_looks(digest, [*test_metrics(known, {})]))
        looks = [(str(look), int(time)) for look, time in found]
        looks += [each for (text,) in connection.execute(later) for each in _recorded_looks(text).items()]
    return Ledger(_first(looks))


def _looks(digest: str, metrics: Sequence[str]) -> Any:
    """Return the statement for each look, and its time, of the runs that were tested after their training.

    Args:
        digest: Of the test set.
        metrics: The names of metrics that tell that they are of a test.
    """
    from sqlalchemy import and_, case, exists, func, or_, select
    from sqlalchemy.orm import aliased

    tables = database_tables()
    data, config, parent, other = (aliased(tables.tags) for _ in range(4))
    run_id = data.run_uuid

    def having(tag: Any, key: str) -> Any:
        return and_(tag.run_uuid == run_id, tag.key == key)

    by_config = func.coalesce(config.value, run_id)
    by_parent = func.coalesce(parent.value, config.value, run_id)
    measured = and_(tables.metrics.run_uuid == run_id, tables.metrics.key.in_(metrics))
    runs = (
        select(
            case((tables.params.value != "null", by_parent), else_=by_config).label("look"),
            func.coalesce(tables.runs.end_time, tables.runs.start_time, 0).label("time"),
        )
        .select_from(data)
        .join(tables.runs, tables.runs.run_uuid == run_id)
        .outerjoin(config, having(config, CONFIG_HASH_TAG))
        .outerjoin(parent, having(parent, PARENT_RUN_TAG))
        .outerjoin(tables.params, having(tables.params, FOLDS_PARAM))
        .where(data.key == TEST_DIGEST_TAG, data.value == digest)
        .where(~exists().where(having(other, PARENT_TAG)))
        .where(or_(exists().where(measured), exists().where(having(other, TEST_METRICS_TAG))))
        .subquery()
    )
    return select(runs.c.look, func.min(runs.c.time)).group_by(runs.c.look)
