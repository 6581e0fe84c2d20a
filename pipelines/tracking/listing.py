"""List runs of any status: when they ran, and what they reached. Imports neither torch nor Lightning."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import without_split
from pipelines.tracking.existing import NoRunsError, existing_store
from pipelines.tracking.filters import parse_filter, quoted
from pipelines.tracking.measured import selected_metric, test_metrics
from pipelines.tracking.query import explained_requests, search_matching
from pipelines.tracking.run_names import NEWEST_FIRST, experiment_ids, reason_of
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import PARENT_RUN_TAG, REASON_TAG, SELECTED, USER_TAG

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Measured:
    """A metric and its value."""

    metric: str
    value: float


@dataclass(frozen=True)
class ListedRun:
    """A run in a list.

    Attributes:
        run: The run.
        selected: The metric by which the run selected its weights, at the selected epoch; None if nothing was selected.
        test: The same metric on the test set, or else the first one of the test; None if it was not tested.
        seconds: From its start to its end, or until now.
    """

    run: StoredRun
    selected: Measured | None
    test: Measured | None
    seconds: float

    @property
    def failure(self) -> str:
        """In one line why the run failed; "" if it did not, or if it recorded no reason."""
        return reason_of(self.run) if self.run.status == "FAILED" else ""

    def record(self) -> dict[str, Any]:
        """Return the run as plain data; times are in UTC."""
        run, selected, test = self.run, self.selected, self.test
        return {
            "run_id": run.run_id,
            "name": run.name,
            "experiment": run.experiment,
            "status": run.status,
            "reason": run.tags.get(REASON_TAG, ""),
            "user": run.tags.get(USER_TAG, ""),
            "started": _iso(run.started),
            "ended": _iso(run.ended) if run.ended else None,
            "seconds": round(self.seconds, 3),
            "selected_metric": selected.metric if selected else None,
            "selected": selected.value if selected else None,
            "test_metric": test.metric if test else None,
            "test": test.value if test else None,
            "params": run.params,
            "metrics": run.metrics,
        }


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def list_runs(
    names: Sequence[str] = (),
    *,
    status: str | None = None,
    filter_string: str = "",
    tags: Mapping[str, str] | None = None,
    since: str | None = None,
    user: str | None = None,
    last: int | None = None,
    tracking_uri: str | None = None,
) -> list[ListedRun]:
    """Return runs, newest first.

    Args:
        names: Experiments and studies, with all their runs. Empty selects all experiments, without the runs that
            belong to another one, such as the trials of a sweep.
        status: "running", "finished", "failed" or "killed".
        filter_string: See `filters.parse_filter`.
        tags: Values of tags.
        since: Age of the oldest run, such as "7d" ("m" minutes, "h" hours, "d" days, "w" weeks), or a date.
        user: Who started the run.
        last: At most so many.
        tracking_uri: By default the project's mlflow.db.

    Raises:
        UserError: A name is unknown, or the filter or `since` is invalid.
    """
    try:
        store = existing_store(tracking_uri)
    except NoRunsError:
        if names:
            raise
        return []
    conditions = [
        f"attributes.status = '{status.upper()}'" if status else "",
        run_conditions(tags, since, user),
        "" if names else f"tags.`{PARENT_RUN_TAG}` IS NULL",
    ]
    with explained_requests(store, filter_string):
        ids, run_filter = experiment_ids(store, names), parse_filter(*conditions, filter_string)
        return [listed(run) for run in search_matching(store, ids, run_filter, NEWEST_FIRST, last)]


def run_conditions(tags: Mapping[str, str] | None = None, since: str | None = None, user: str | None = None) -> str:
    """Return a filter for runs with these tags that started after a time or by a user; see `list_runs`.

    Raises:
        UserError: `since` is invalid.
    """
    wanted = dict(tags or {}) | ({USER_TAG: user} if user else {})
    started = [f"attributes.start_time >= {start_of(since)}"] if since else []
    return " and ".join([*started, *(f"tags.`{key}` = {quoted(value)}" for key, value in wanted.items())])


def start_of(since: str, now: float | None = None) -> int:
    """Return the time that "7d" or "2026-11-27" stands for, in milliseconds since the epoch.

    Raises:
        UserError: It is neither an age nor a date.
    """
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", since):
        return int(1000 * ((time.time() if now is None else now) - float(age[1]) * _UNITS[age[2]]))
    try:
        return int(1000 * datetime.fromisoformat(since).astimezone().timestamp())
    except ValueError as error:
        raise UserError(
            f"--since {since}: give an age, such as 90m, 12h, 7d or 2w, or a date, such as 2026-11-27"
        ) from error


def listed(run: StoredRun) -> ListedRun:
    """Return a run with its most important metrics."""
    selected, tested = selected_metric(run.metrics, run.tags), test_metrics(run.metrics, run.tags)
    name = without_split((selected or "").removeprefix(f"{SELECTED}/"))
    test = next((metric for metric in tested if without_split(metric) == name), next(iter(tested), None))
    return ListedRun(
        run,
        Measured(selected.removeprefix(f"{SELECTED}/"), run.metrics[selected]) if selected else None,
        Measured(test, tested[test]) if test else None,
        max(0.0, (run.ended or 1000 * time.time()) - run.started) / 1000,
    )
