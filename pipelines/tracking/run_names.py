"""Find one run by what people call it: its id or the beginning of it, its name, the latest or the best run."""

import math
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import mode_of
from pipelines.runtime.text import redact_credentials, shorten
from pipelines.tracking.deleted import deleted_run_ids
from pipelines.tracking.filters import FINISHED, quoted
from pipelines.tracking.folds import fold_of
from pipelines.tracking.measured import selected_metric
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    BEST_RUN_TAG,
    MODE_TAG,
    PARENT_RUN_TAG,
    REASON_TAG,
    SEEDS_PARAM,
    SEEDS_TAG,
    STUDY_TAG,
    SWEEP_SUFFIX,
    is_summary,
)

FULL_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{4,31}")
NEWEST_FIRST = ("attributes.start_time DESC",)
MAX_CANDIDATES = 10
MAX_REASON = 200  # characters
FIRST_RUNS = 20  # that are read to find the latest
FORMS = "a run id, its first four or more characters, a run's name, latest, latest:NAME or best:NAME"


def find_run(store: Store, text: str, *, any_status: bool = False) -> StoredRun:
    """Return the run that a text names.

    Args:
        store: The tracking store.
        text: A run id; its first four or more characters; the name of a run; `latest`; `latest:NAME` and `best:NAME`
            of an experiment or a study. The latest run is the newest that does not summarise others. If it failed, it
            is the newest of its experiment that did not fail, if there is one. The best run of an experiment is the
            finished one with the best metric on validation data, that of a study is the study's best. Runs of folds
            are left out if there are others, because each fold has different validation data.
        any_status: Whether the latest run may be one that failed, although others did not.

    Raises:
        UserError: There is no such run, or several have this name.
    """
    if (found := look_up(store, text, any_status=any_status)) is None:
        names = store.experiment_names().values()
        if text in names or f"{text}{SWEEP_SUFFIX}" in names:
            kind = "an experiment" if text in names else "a study"
            raise UserError(f"{text} is {kind}; name one of its runs: best:{text}, latest:{text} or a run id")
        raise UserError(f"there is no run {text!r} in {redact_credentials(store.uri)}; give {FORMS}")
    return found


def look_up(store: Store, text: str, *, any_status: bool = False) -> StoredRun | None:
    """Return the run that a text names, as `find_run` does; None if it is neither a run id nor a run's name.

    Raises:
        RunDeletedError: It names no run but one that was deleted.
        UserError: See `find_run`.
    """
    if FULL_ID.fullmatch(text):
        return store.find(text)
    kind, colon, name = text.partition(":")
    if text == "latest" or (colon and kind == "latest"):
        return _latest(store, name, any_status=any_status)
    if colon and kind == "best":
        return _best(store, name)
    everywhere = list(store.experiment_names())
    conditions = [f"attributes.run_id LIKE '{text}%'"] if _PREFIX.fullmatch(text) else []
    conditions.append(f"attributes.run_name = {quoted(text)}")
    found = next((runs for each in conditions if (runs := store.search(everywhere, each, NEWEST_FIRST))), [])
    if not found and (deleted := [run_id for each in conditions for run_id in deleted_run_ids(store.client, each)]):
        return store.find(deleted[0])  # raises RunDeletedError
    if len(found) > 1:
        lines = [f"  {run.run_id}  {run.experiment}  {run.name}" for run in found[:MAX_CANDIDATES]]
        more = [f"  and {len(found) - MAX_CANDIDATES} more"] if len(found) > MAX_CANDIDATES else []
        raise UserError("\n".join([f"{text!r} names {len(found)} runs; give more of the id:", *lines, *more]))
    return found[0] if found else None


def experiment_ids(store: Store, names: Sequence[str]) -> list[str]:
    """Return the ids of experiments and studies; of all experiments if no name is given.

    Raises:
        UserError: A name is unknown.
    """
    ids = {name: experiment_id for experiment_id, name in store.experiment_names().items()}
    for name in names:
        if name not in ids and f"{name}{SWEEP_SUFFIX}" not in ids:
            raise UserError(unknown_name(store, name, ids))
    return [ids.get(name) or ids[f"{name}{SWEEP_SUFFIX}"] for name in names] if names else list(ids.values())


def latest_run(store: Store, name: str = "") -> StoredRun | None:
    """Return the newest run that summarises no others, of an experiment or study if one is named; None without runs."""
    ids = experiment_ids(store, [name] if name else [])
    for limit in (FIRST_RUNS, None):  # nearly always one of the first is no summary run
        for run in store.search(ids, "", NEWEST_FIRST, limit):
            if not is_summary(run.tags):
                return run
    return None


def _latest(store: Store, name: str, *, any_status: bool) -> StoredRun:
    newest = latest_run(store, name)
    if newest is None:
        raise UserError(f"{name or redact_credentials(store.uri)} has no runs")
    found = newest if any_status else _not_failed(store, newest)
    if whole := _whole(found):
        logger.info("latest is run %s of %s; its summary: %s", found.run_id, whole, found.tags[PARENT_RUN_TAG])
    return found


def _not_failed(store: Store, found: StoredRun) -> StoredRun:
    """Return a run, or if it failed the newest one of its experiment that did not, if there is one."""
    if found.status != "FAILED":
        return found
    runs = store.search([found.experiment_id], "attributes.status != 'FAILED'", NEWEST_FIRST)
    if not (others := [run for run in runs if not is_summary(run.tags)]):
        return found
    failed = ": ".join(filter(None, ["failed", shorten(reason_of(found), MAX_REASON)]))
    logger.info("latest is run %s: run %s is newer, but %s", others[0].run_id, found.run_id, failed)
    return others[0]


def _whole(run: StoredRun) -> str:
    """Return the group that a run belongs to: "study NAME" or "seeds 0 to 4"; "" if it belongs to none."""
    if PARENT_RUN_TAG not in run.tags:
        return ""
    try:
        parent = run.store.find(run.tags[PARENT_RUN_TAG])
    except UserError:  # it was deleted
        return ""
    if STUDY_TAG in run.tags:
        return f"study {run.tags[STUDY_TAG]}"
    seeds = parent.tags.get(SEEDS_TAG, parent.params.get(SEEDS_PARAM))
    return "" if seeds is None else f"seeds {seeds}"


def _best(store: Store, name: str) -> StoredRun:
    if not name:
        raise UserError("best: name an experiment or a study, such as best:digits-mlp")
    ids = experiment_ids(store, [name])
    studies = store.search(ids, f"tags.{STUDY_TAG} IS NOT NULL", NEWEST_FIRST)
    best_runs = [study.tags[BEST_RUN_TAG] for study in studies if is_summary(study.tags) and BEST_RUN_TAG in study.tags]
    if best_runs:
        return store.find(best_runs[0])
    runs = [run for run in store.search(ids, FINISHED, NEWEST_FIRST) if not is_summary(run.tags)]
    runs = [run for run in runs if fold_of(run.params) is None] or runs
    metric = next((found for run in runs if (found := selected_metric(run.metrics, run.tags))), None)
    if metric is None:
        raise UserError(f"{name} has no finished run with a metric on validation data")
    modes = [run.tags[MODE_TAG] for run in runs if MODE_TAG in run.tags and metric in run.metrics]
    sign = -1 if (modes or [mode_of(metric)])[0] == "min" else 1
    measured = [run for run in runs if math.isfinite(run.metrics.get(metric, math.nan))]
    return max(measured, key=lambda run: sign * run.metrics[metric])


def reason_of(run: StoredRun) -> str:
    """Return in one line why a run failed or was stopped; "" if it recorded no reason."""
    lines = run.tags.get(REASON_TAG, "").strip().splitlines()
    line = redact_credentials(lines[0]) if lines else ""
    return line.removeprefix(f"{UserError.__name__}: ").removeprefix(f"{FloatingPointError.__name__}: ")


def unknown_name(store: Store, name: str, known: Collection[str]) -> str:
    """Return the message for a name that is not among the known ones."""
    suggestions = get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
    return f"{name!r} is not an experiment, study or run in {redact_credentials(store.uri)}{hint}"
