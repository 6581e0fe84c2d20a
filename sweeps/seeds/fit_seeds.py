"""`litlab fit NAME --seeds 5`: one configuration with several seeds, under a run that has their mean and spread."""

import argparse
import contextlib
import hashlib
import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.runtime.console import numeric_table
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.query import find_runs
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    CONFIG_HASH_TAG,
    EXPERIMENT_TAG,
    HOST_TAG,
    NOTE_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    SEED_TAG,
    SOURCE_NAME_TAG,
)
from sweeps.seeds.summary import in_short, log_summary, metrics_table, seeds_table
from sweeps.workers.batch import JobResult, graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

MAX_SEEDS = 1000
LAST_SEED = 2**32 - 1  # the highest that torch and numpy both take
SHOWN = 30  # seeds of which each has its line in a table


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        arguments: Of `litlab fit`, without a seed.
        seeds: One after another.
        facts: What the experiment says of itself.
        command: As it was called.
    """

    arguments: list[str]
    seeds: range
    facts: dict[str, Any]
    command: str

    @property
    def name(self) -> str:
        """Of the MLflow experiment."""
        return str(self.facts["tags"][EXPERIMENT_TAG])

    @property
    def span(self) -> str:
        """The seeds in words."""
        return f"{self.seeds[0]} to {self.seeds[-1]}" if len(self.seeds) > 1 else str(self.seeds[0])

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each set, as the tags of a run have them."""
        card = self.facts["card"] or {"sha256": {}}
        return {f"data.sha256.{split}": digest for split, digest in card["sha256"].items()}


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab fit NAME --seeds N [--workers W] [--key value ...]`."""
    if {"-h", "--help"} & set(argv):
        from pipelines.commands import fit

        return fit.main(verb, ["--help"])
    options, arguments = _options(argv)
    exit_on_sigterm()
    with (
        tempfile.TemporaryDirectory(prefix="litlab-seeds-") as folder,
        Pool(options.workers, Path(folder)) as pool,
    ):
        pool.warm_up()
        plan = _plan(pool, options, arguments, shlex.join(["litlab", "fit", *argv]))
        store = Store(plan.facts["tracking_uri"])
        with _alone(store, plan), graceful_shutdown(pool) as signals:
            parent = _parent(store, plan)
            runs, ends = _train(pool, store, parent, plan)
    _tell(plan, parent, runs)
    done = f"{len(runs)} of {len(plan.seeds)} seeds are done"
    if signals:
        print(f"litlab: stopped; {done}, the same command goes on from here", file=sys.stderr)
        return 128 + signals[0]
    if any(end.status != "FINISHED" for end in ends):
        print(f"litlab: {done}, the same command tries the others again", file=sys.stderr)
        return 1
    return 1 if parent.refused else 0


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What several seeds need to know, and the arguments of each."""
    parser = argparse.ArgumentParser(prog="litlab fit", allow_abbrev=False, add_help=False)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed_everything")
    options, rest = parser.parse_known_args(list(argv))
    if not 1 <= options.seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {options.seeds}: expected 1 to {MAX_SEEDS}")
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: expected at least 1")
    for flag in (token.partition("=")[0] for token in rest):
        if flag in ("--print_config", "--full-help") or (flag.startswith("--") and flag.endswith(".help")):
            raise UserError(f"{flag} shows something and trains nothing: leave out --seeds")
    return options, rest


def _plan(pool: Pool, options: argparse.Namespace, arguments: list[str], command: str) -> Plan:
    """Look at the experiment, in a process of its own.

    Raises:
        UserError: The experiment, a key or a value is refused.
    """
    first = [] if options.seed_everything is None else ["--seed_everything", options.seed_everything]
    kind, facts = pool.check(Job([*arguments, *first], test=True), [])
    if kind != "done":
        raise UserError(facts if kind == "refused" else f"it cannot run: {facts}")
    if facts["values"]["trainer.fast_dev_run"]:
        raise UserError("trainer.fast_dev_run makes no run: leave out --seeds")
    seed = facts["values"]["seed_everything"]
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed_everything {seed}: --seeds begins with it, so it must be a whole number")
    if seed + options.seeds - 1 > LAST_SEED:
        raise UserError(f"seed_everything {seed}: {options.seeds} seeds from there on would pass {LAST_SEED}")
    return Plan(arguments, range(seed, seed + options.seeds), facts, redact_credentials(command))


@contextlib.contextmanager
def _alone(store: Store, plan: Plan) -> Iterator[None]:
    """See that no other process of this machine trains the same now, so that what says RUNNING has no process.

    Raises:
        UserError: Another one does.
    """
    from filelock import FileLock, Timeout

    what = json.dumps([store.uri, plan.name, plan.facts["hash"], plan.digests, plan.span])
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    path = (store.folder or Path(tempfile.gettempdir())) / f"seeds-{key}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"seeds {plan.span} of this configuration are being trained by another process") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _parent(store: Store, plan: Plan) -> Run:
    """The run of these seeds that was not finished, RUNNING again, or a new one."""
    wanted = {f"tags.`{PARENT_TAG}`": "seeds", f"tags.`{CONFIG_HASH_TAG}`": plan.facts["hash"]}
    same = " and ".join(f"{key} = '{value}'" for key, value in {**wanted, "params.seeds": plan.span}.items())
    order = ["attributes.start_time DESC"]
    for run in store.search([store.experiment_id(plan.name)], f"{same} and attributes.status != 'FINISHED'", order):
        tags, run_id = run.tags, run.run_id
        if {key: tag for key, tag in tags.items() if key.startswith("data.sha256.")} != plan.digests:
            continue
        if run.status == "RUNNING" and (host := tags.get(HOST_TAG)) != platform.node():
            print(f"litlab: run {run_id} of the same seeds may be alive on {host}; this is another", file=sys.stderr)
            continue
        parent = Run.reopen(run)
        parent.set_tags({HOST_TAG: platform.node()})
        print(f"going on with run {run_id}")
        return parent
    return _new_parent(store, plan)


def _new_parent(store: Store, plan: Plan) -> Run:
    tags = {key: tag for key, tag in plan.facts["tags"].items() if key != SEED_TAG}
    tags |= {
        PARENT_TAG: "seeds",
        COMMAND_TAG: plan.command,
        SOURCE_NAME_TAG: f"litlab fit {plan.name} --seeds {len(plan.seeds)}",
    }
    changes = plan.facts["run_name"].removesuffix("seed=0").strip()
    seeds = f"seeds {plan.span}" if len(plan.seeds) > 1 else f"seed {plan.span}"
    parent = Run(store, plan.name, f"{changes}, {seeds}" if changes else seeds, tags)
    params = {key: value for key, value in plan.facts["params"].items() if key != "seed_everything"}
    parent.log_params({**params, "seeds": plan.span})
    if plan.facts["card"]:
        parent.log_dataset(plan.facts["card"])
    return parent


def _train(pool: Pool, store: Store, parent: Run, plan: Plan) -> tuple[list[StoredRun], list[JobResult]]:
    """Train the seeds that are missing, and end the parent; returns all finished runs, and what came of these.

    Raises:
        UserError: The store has gone.
    """
    from mlflow.exceptions import MlflowException

    status, reason = "FAILED", "an error ended it"
    try:
        _end_left(store, parent)
        done = {int(run.seed) for run in _finished(store, parent)}
        missing = [_spec(store, parent, plan, seed) for seed in plan.seeds if seed not in done]
        with LiveDisplay() as on_screen:
            ends = run_jobs(pool, missing, store, on_screen, title=plan.name, reused=len(done))
        _end_left(store, parent)
        runs = _finished(store, parent)
        if pool.stops < 2:
            log_summary(store, parent, _heading(plan, runs), runs)
        status, reason = _status(pool, ends)
    except MlflowException as error:
        said = redact_credentials(str(error).splitlines()[0])
        raise UserError(f"what keeps the runs has gone; the same command goes on later ({said})") from error
    finally:
        parent.finish(status, reason)
    return runs, ends


def _end_left(store: Store, parent: Run) -> None:
    """End the runs that dead processes have left."""
    for run in store.children(parent.run_id):
        store.end(run.run_id, "KILLED", "its process died")


def _finished(store: Store, parent: Run) -> list[StoredRun]:
    return sorted(find_runs(store, [parent.run_id]).runs, key=lambda run: int(run.seed))


def _spec(store: Store, parent: Run, plan: Plan, seed: int) -> Job:
    return Job(
        arguments=plan.arguments,
        seed=seed,
        experiment=plan.name,
        uri=store.uri,
        tags={PARENT_RUN_TAG: parent.run_id},
        test=True,
        devices=plan.facts["devices"],
    )


def _status(pool: Pool, ends: Sequence[JobResult]) -> tuple[str, str]:
    """The parent's status, and why."""
    if pool.stops:
        return "KILLED", "stopped"
    failed = sorted((end.spec.seed, end.reason) for end in ends if end.status != "FINISHED")
    return ("FAILED" if failed else "FINISHED"), "; ".join(f"seed {seed}: {reason}" for seed, reason in failed)


def _heading(plan: Plan, runs: Sequence[StoredRun]) -> str:
    """What the note begins with: the result."""
    done = f"{len(runs)} of {len(plan.seeds)} seeds ({plan.span}) are done"
    result = f": **{short}**" if (short := in_short(runs)) else ""
    description = str(plan.facts["tags"][NOTE_TAG])
    return "\n\n".join(filter(None, [f"{done}{result}.", description]))


def _tell(plan: Plan, parent: Run, runs: Sequence[StoredRun]) -> None:
    """The result on the screen, and what to do with it."""
    console = Console(soft_wrap=True, width=200, highlight=False)  # a terminal folds what is longer; ids stay whole
    if runs:
        console.print(numeric_table(f"{plan.name}, seeds {plan.span}", metrics_table(runs)))
    if 0 < len(runs) <= SHOWN:
        console.print(numeric_table("", seeds_table(runs)))
    uri = plan.facts["tracking_uri"]
    given = f" --tracking_uri {redact_credentials(uri)}" if uri else ""
    facts: Mapping[str, str] = {
        "run": parent.run_id,
        "compare": f"litlab compare {parent.run_id}{given}",
        "look": f"litlab ui{given}",
    }
    for name, value in facts.items():
        console.print(f"{name:<10}  {value}", markup=False)
