"""`litlab sweep`: search, look at a search, and get its best configuration."""

import argparse
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from sweeps.search import space as spaces
from sweeps.search.space import Space
from sweeps.workers.job import Job, as_arguments

if TYPE_CHECKING:
    from sweeps.search.controller import Controller
    from sweeps.search.study_run import Confirmed
    from sweeps.workers.pool import Pool


def _in_lines(names: Sequence[str], indent: int) -> str:
    return textwrap.fill(", ".join(names), 80, initial_indent=" " * indent, subsequent_indent=" " * indent).strip()


HELP = f"""usage: litlab sweep NAME | -c FILE [options] [--KEY VALUE ...]
       litlab sweep status NAME [--json]
       litlab sweep best NAME > best.yaml

Searches an experiment's keys with Optuna. Every trial is a process of its own,
judged on validation data, kept in MLflow. The best one is then trained again,
on fresh seeds, and tested. Called again, it goes on to the total asked for.

  NAME or -c FILE      {_in_lines(spaces.names(), 23)}
  --trials 50          how many in all
  --timeout 2h         begin no trial after that long
  --trial-timeout 10m  end a training that takes longer, as failed
  --workers 2          trainings at a time; they share CPU cores and GPUs
  --stacked 16         small models that a worker trains as one (docs/SWEEPS.md)
  --sampler tpe        grid, random, tpe, cmaes, gp, qmc ...: any of Optuna's
  --pruner median      none, median, hyperband, successivehalving ...: likewise
  --seeds 3            runs of each configuration, whose mean is its value
  --confirm 3          fresh seeds of the best configuration after the search
  --keep all           every trial's checkpoints, not only the best one's
  --study NAME         another study of the same space
  --storage URL        where Optuna keeps it (optuna.db beside mlflow.db)
  --tracking_uri URI   where runs are kept (mlflow.db of this project)
  --KEY VALUE          a key of the experiment, the same in all trials"""


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab sweep NAME ...`, `litlab sweep status NAME`, `litlab sweep best NAME`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    if argv[0] in ("status", "best"):
        from sweeps.search import status as look

        return look.main(argv[0], argv[1:])
    options, rest = _options(argv)
    space = _space(options, rest)
    exit_on_sigterm()
    from sweeps.workers.pool import Pool

    with (
        tempfile.TemporaryDirectory(prefix="litlab-sweep-") as folder,
        Pool(options.workers, Path(folder), space.trial_timeout) as pool,
    ):
        pool.warm_up()
        return _sweep(options, rest, space, pool, shlex.join(["litlab", "sweep", *argv]))


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This verb's own options, and the keys of the experiment."""
    parser = argparse.ArgumentParser(prog="litlab sweep", allow_abbrev=False, add_help=False)
    parser.add_argument("-c", "--config")
    for name in ("--timeout", "--sampler", "--pruner", "--study", "--storage", "--tracking_uri"):
        parser.add_argument(name)
    parser.add_argument("--trial-timeout", "--trial_timeout")
    for name in ("--trials", "--seeds", "--confirm"):
        parser.add_argument(name, type=int)
    parser.add_argument("--keep", choices=("best", "all"))
    for name in ("--workers", "--stacked"):
        parser.add_argument(name, type=int, default=1)
    named = None if argv[0].startswith("-") else argv[0]
    options, rest = parser.parse_known_args(list(argv[1:] if named else argv))
    if (named is None) == (options.config is None):
        raise UserError(f"name one space first ({', '.join(spaces.names())}), or one file with -c FILE")
    if rest and not rest[0].startswith("-"):
        raise UserError(f"one space at a time: {rest[0]!r} is one too many")
    for name, number in (("--workers", options.workers), ("--stacked", options.stacked)):
        if number < 1:
            raise UserError(f"{name} {number}: expected at least 1")
    _refuse_strangers([token.partition("=")[0] for token in rest if token.startswith("--")], parser)
    options.name = named or options.config
    return options, rest


def _refuse_strangers(given: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """What is neither an option nor a key that a study may have."""
    own = [flag for action in parser._actions for flag in action.option_strings]
    for flag in given:
        if flag in ("--seed_everything", "--name"):
            raise UserError(f"{flag}: {spaces.NOT_SEARCHED[flag.removeprefix('--')]}")
        near = get_close_matches(flag, own, n=1) if "." not in flag else []
        if near:
            raise UserError(f"{flag} is no option: did you mean {near[0]}?")


def _space(options: argparse.Namespace, rest: Sequence[str]) -> Space:
    given = ("trials", "timeout", "trial_timeout", "sampler", "pruner", "seeds", "confirm", "keep")
    changes = {key: getattr(options, key) for key in given if getattr(options, key) is not None}
    space = spaces.read(options.name, changes)
    searched = {f"--{key}" for name in space.space for key in spaces.keys_of(name)}
    for flag in (token.partition("=")[0].replace(".init_args.", ".") for token in rest):
        if flag in searched:
            raise UserError(f"{flag} is what space {space.name} searches; take it out of the space to fix it")
    return space


def _sweep(options: argparse.Namespace, rest: list[str], space: Space, pool: "Pool", command: str) -> int:
    from sweeps.search import storage
    from sweeps.search import study_run as record
    from sweeps.search.controller import Controller
    from sweeps.search.display import SweepDisplay
    from sweeps.search.study import Study
    from sweeps.workers.batch import graceful_shutdown

    store, name = Store(options.tracking_uri), options.study or space.name
    url = storage.url_of(options.storage, store)
    holder = storage.StudyLock(storage.sqlite_path(url))
    with holder.alone(name), SweepDisplay() as board:
        arguments = [space.experiment, *as_arguments(space.fixed()), *rest]
        facts = _facts(pool, space, arguments, stacked=options.stacked > 1)
        opened = storage.open_storage(url)
        study = Study(opened, name, space, facts, holder.name, exclusive=storage.sqlite_path(url) is not None)
        experiment = f"{name}-sweep"
        with graceful_shutdown(pool) as signals, study.beating():
            parent = record.open_parent(store, study, space, experiment, redact_credentials(command))
            parts = (study, pool, store, parent, experiment, arguments, facts["devices"], board)
            controller = Controller(*parts, stacked=options.stacked)
            confirmed = _drive(controller, study.own_values(facts["values"]))
    _tell(board, study, parent, confirmed, store, url, options)
    if signals:
        again = "the same command goes on from here"
        print(f"litlab: stopped; {study.counted()} of {space.total} trials are done, {again}", file=sys.stderr)
        return 128 + signals[0]
    if failed := sum(space.confirm - len(runs) for runs in confirmed.values()):
        print(
            f"litlab: {failed} of the trainings that confirm the best failed; the same command tries again",
            file=sys.stderr,
        )
        return 1
    return 0 if study.best() is not None else 1


def _drive(controller: "Controller", own: dict[str, Any]) -> "Confirmed":
    """Search, then confirm; whatever happens, nothing is left under way, and the study's run says what there is.

    Raises:
        UserError: Where runs or study are kept has gone.
    """
    from mlflow.exceptions import MlflowException
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from sweeps.search.confirm import confirm
    from sweeps.search.heartbeat import called

    status, confirmed, last = "FAILED", {}, False
    study = controller.study
    try:
        try:
            controller.search()
            last = not study.has_company() if controller.stops else study.take_end()
            if last:
                controller.tidy()
                confirmed = confirm(controller, own, train=not controller.stops)
            elif not controller.stops:
                others = " and ".join(map(called, study.enders())) or "others"
                controller.board.print(f"{study.name}: the rest is done by {others}")
            status = "KILLED" if controller.stops else "FINISHED"
        finally:
            _end(controller, status, confirmed, last=last)
    except (MlflowException, StorageInternalError, SQLAlchemyError) as error:
        reason = redact_credentials(str(error.__cause__ or error).splitlines()[0])  # Optuna says less than its cause
        raise UserError(f"what keeps runs and study has gone; the same command goes on later ({reason})") from error
    return confirmed


def _end(controller: "Controller", status: str, confirmed: "Confirmed", *, last: bool) -> None:
    from sweeps.search import study_run as record

    try:
        controller.close()
        last = last or not controller.study.has_company()  # else another one does the rest
        if last and controller.stops < 2:
            record.log_summary(controller.parent, controller.study, confirmed)
    except BaseException:
        last = True
        raise
    finally:
        if last:
            controller.parent.finish(status, "stopped" if controller.stops else "")
        else:
            controller.parent.leave()


def _facts(pool: "Pool", space: Space, arguments: list[str], *, stacked: bool) -> dict[str, Any]:
    """What the experiment says of itself, in a process of its own; each end of each range is tried on it.

    Raises:
        UserError: The experiment, a key or a value is refused.
    """
    kind, said = pool.check(Job(arguments, stacked=stacked), [space.settings(point) for point in space.ends()])
    if kind == "done":
        facts: dict[str, Any] = said
        return facts
    raise UserError(f"{space.experiment}: {said}" if kind == "refused" else f"{space.experiment} cannot run: {said}")


def _tell(board: Any, study: Any, parent: Any, confirmed: Any, store: Store, url: str, options: Any) -> None:
    from sweeps.search.study_run import summary

    for line in summary(study, confirmed):
        board.print(line)
    board.print(f"run         {parent.run_id}")
    where = f" --storage {redact_credentials(options.storage)}" if options.storage else ""
    given = f" --tracking_uri {redact_credentials(store.uri)}" if options.tracking_uri else ""
    if study.best() is not None:
        board.print(f"best        litlab sweep best {shlex.quote(study.name)}{where}{given} > best.yaml")
    runs = redact_credentials(store.uri) if store.uri.startswith("http") else f"litlab ui{given}"
    board.print(f"look        {runs}; optuna-dashboard {redact_credentials(url)}")
