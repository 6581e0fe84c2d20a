"""`litlab sweep status` and `litlab sweep best`: a study, read from where it is kept; nothing is changed."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import escape_control_characters, redact_credentials
from pipelines.tracking.store import Store
from sweeps.search import storage
from sweeps.search.heartbeat import at_work, called
from sweeps.search.study import CONTROLLER, IDENTITY, INTERRUPTED, PARENT, TOTAL, best_of, counts, seed_values, tally
from sweeps.workers.display import format_params

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def main(what: str, argv: Sequence[str]) -> int:
    """`litlab sweep status NAME [--json]` and `litlab sweep best NAME`."""
    options = parser(what).parse_args(list(argv))
    store = Store(options.tracking_uri)
    url = storage.url_of(options.storage, store)
    study = _load(url, options.study.removesuffix(".yaml").removesuffix(".yml").rpartition("/")[2])
    if what == "best":
        print(best_config(study, store), end="")
        return 0
    status = status_of(study, storage.holder(storage.sqlite_path(url), study.study_name))
    print(json.dumps(status, indent=2)) if options.json else _show(status)
    return 0


def parser(what: str) -> argparse.ArgumentParser:
    """The options of `status` or `best`."""
    options = argparse.ArgumentParser(prog=f"litlab sweep {what}")
    options.add_argument("study", help="the study's name: the space's, unless --study gave another")
    options.add_argument("--storage", help="where Optuna keeps it (optuna.db beside mlflow.db)")
    options.add_argument("--tracking_uri", help="where runs are kept (mlflow.db of this project)")
    if what == "status":
        options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return options


def _load(url: str, name: str) -> "Study":
    path = storage.sqlite_path(url)
    import optuna

    if path is not None and not path.is_file():
        raise UserError(f"there is no study yet: {path} does not exist (litlab sweep NAME makes it)")
    opened = storage.open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=opened)
    except KeyError as error:
        there = ", ".join(optuna.get_all_study_names(opened)) or "none"
        raise UserError(f"there is no study {name!r} in {redact_credentials(url)}; there is {there}") from error


def status_of(study: "Study", held_by: str | None) -> dict[str, Any]:
    """What a study has done, does, and what failed and why.

    Args:
        study: From its storage.
        held_by: Who drives it now, where the storage can say.
    """
    trials = study.get_trials(deepcopy=False)
    attributes = study.user_attrs
    alive = [held_by] if held_by else at_work(study)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    if not held_by:
        running = [trial for trial in running if trial.user_attrs.get(CONTROLLER) in alive]
    failed = [trial for trial in trials if trial.state.name == "FAIL" and counts(trial)]
    identity = attributes.get(IDENTITY, {})
    return {
        "study": study.study_name,
        "metric": identity.get("metric"),
        "direction": study.direction.name.lower(),
        "trials": {
            **tally(trials),
            "running": len(running),
            "interrupted": sum(INTERRUPTED in trial.user_attrs for trial in trials),
        },
        "total": attributes.get(TOTAL),
        "controllers": alive,
        "best": _best(study),
        "running": [{**_described(trial), "controller": trial.user_attrs.get(CONTROLLER)} for trial in running],
        "failed": [{**_described(trial), "reason": trial.user_attrs.get("reason", "")} for trial in failed],
        "parent": attributes.get(PARENT),
    }


def _best(study: "Study") -> dict[str, Any] | None:
    trial = best_of(study.get_trials(deepcopy=False), study.direction.name.lower())
    if trial is None:
        return None
    return {
        **_described(trial),
        "value": trial.value,
        "seeds": seed_values(trial),
        "runs": trial.user_attrs.get("runs", []),
    }


def _described(trial: "FrozenTrial") -> dict[str, Any]:
    steps = trial.intermediate_values
    return {"trial": trial.number, "params": trial.params, "epochs": max(steps, default=0)}


def _show(status: dict[str, Any]) -> None:
    """The same for a person."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    numbers = ", ".join(f"{number} {state}" for state, number in status["trials"].items() if number) or "no trials yet"
    total = f" of {status['total']}" if status["total"] else ""
    console.print(f"{status['study']}: {numbers}{total}; {status['direction']} {status['metric']}", markup=False)
    console.print("\n".join(_at_work(status)), markup=False)
    if best := status["best"]:
        spread = f" (seeds: {', '.join(f'{value:.4f}' for value in best['seeds'])})" if len(best["seeds"]) > 1 else ""
        console.print(
            escape_control_characters(
                f"best     trial {best['trial']}  {best['value']:.4f}{spread}  {format_params(best['params'])}"
            ),
            markup=False,
        )
    for trial in status["running"]:
        console.print(
            escape_control_characters(f"running  trial {trial['trial']}  {format_params(trial['params'])}"),
            markup=False,
        )
    for trial in status["failed"]:
        console.print(
            escape_control_characters(
                f"failed   trial {trial['trial']}  {trial['reason']}  {format_params(trial['params'])}"
            ),
            markup=False,
        )
    if status["parent"]:
        console.print(f"run      {status['parent']}", markup=False)


def _at_work(status: dict[str, Any]) -> list[str]:
    """Who runs it, and how many trials each has under way."""
    has = Counter(trial["controller"] for trial in status["running"])
    count = {name: f", {has[name]} running" if name in has else "" for name in status["controllers"]}
    return [f"run by {called(name)}{count[name]}" for name in count] or ["nobody runs it now"]


def best_config(study: "Study", store: Store) -> str:
    """The best trial's configuration, for `litlab fit -c`.

    Raises:
        UserError: No trial is complete, or its run is not in this store.
    """
    best = _best(study)
    if best is None:
        raise UserError(f"study {study.study_name} has no complete trial yet")
    if not best["runs"]:
        raise UserError(f"trial {best['trial']} of study {study.study_name} names no run")
    print(f"litlab: trial {best['trial']}, {best['value']:.4f}: {format_params(best['params'])}", file=sys.stderr)
    return store.find(best["runs"][0]).file("config.yaml").read_text()
