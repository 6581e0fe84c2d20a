"""`litlab sweep`: search keys of an experiment; show a study; print its best configuration."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

from pipelines.commands.options import VerbParser, check_system_metrics, take_labels
from pipelines.config.arguments import Keep, without_option
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.status import show_status
from pipelines.runtime.text import escape_control_characters, format_command, redact_credentials
from pipelines.tracking.tags import NOT_BETTER
from pipelines.tracking.uri import tracking_uri_arguments
from sweeps.cluster.options import add_place_options, add_stacked
from sweeps.search.space import NOT_SEARCHED
from sweeps.search.space_files import space_names

if TYPE_CHECKING:
    from sweeps.search.status import StudyStatus
    from sweeps.search.sweep import SweepResult


DESCRIPTION = """Search keys of an experiment with Optuna. Each trial is trained in a separate
process, evaluated on validation data and logged to MLflow. The best one is then
trained on fresh seeds and tested. Run the same command again to continue."""
COUNTED = ("complete", "pruned", "failed", "running")  # states of trials that are part of the total
STATUS = "Show a study: its progress, best trial, active and failed trials."
BEST = "Print the configuration of a study's best trial, for litlab fit -c."


def make_parser(verb: str) -> VerbParser:
    usage = f"NAME | -c FILE [options] [--KEY VALUE ...]\n       litlab {verb} status NAME [--json]"
    usage += f" | litlab {verb} best NAME > best.yaml"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, needs_arguments=True)
    spaces = space_names()
    parser.show_argument("space", metavar="NAME", choices=[*spaces, "status", "best"], help=", ".join(spaces))
    add = parser.add_argument
    add("-c", "--config", dest="space", metavar="FILE", help="a YAML file like a space's")
    add("--trials", type=int, metavar="N", help="total number of trials of the study, over all calls")
    add("--timeout", metavar="2h", help="start no trial after this time")
    add("--trial-timeout", metavar="10m", help="stop a training that takes longer; its trial fails")
    add("--trial_timeout", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_place_options(parser)
    add_stacked(parser)
    add("--sampler", metavar="NAME", help="grid, random, tpe, cmaes, gp, qmc ... of Optuna")
    add("--pruner", metavar="NAME", help="none, median, hyperband ... of Optuna")
    add("--seeds", type=int, metavar="N", help="runs of each configuration; --folds N: on N folds")
    add("--folds", type=int, metavar="N", help=argparse.SUPPRESS)
    add("--confirm", type=int, metavar="N", help="runs of the best on fresh seeds after the search")
    add("--keep", choices=get_args(Keep), metavar="WHICH", help="checkpoints of all, of the best, or none (best)")
    add("--study", metavar="NAME", help="name of the study; default: the name of the space")
    add("--retry_failed", action="store_true", help="train again what failed; each trial counts once")
    add("--retry-failed", dest="retry_failed", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_system_metrics()
    _add_stores(parser)
    parser.add_labels(of="the study", short=True)
    parser.add_notify()
    parser.show_keys("a key of the experiment, the same in all trials")
    return parser


def make_study_parser(verb: str) -> VerbParser:
    """Return the parser of `litlab sweep status` or `litlab sweep best`."""
    parser = VerbParser(f"sweep {verb}", STATUS if verb == "status" else BEST)
    parser.add_argument("study", metavar="NAME", help="name of the study, by default that of its space")
    if verb == "status":
        parser.add_argument("--json", action="store_true", help="print JSON")
    _add_stores(parser)
    return parser


def _add_stores(parser: VerbParser) -> None:
    parser.add_argument("--storage", metavar="URL", help="Optuna's storage; default: optuna.db next to mlflow.db")
    parser.add_tracking_uri("tracking store; default: mlflow.db of this project")


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab sweep NAME ...`, `litlab sweep status NAME` or `litlab sweep best NAME`, and print the result."""
    if argv[:1] == ["status"]:
        return _print_status(argv[1:])
    if argv[:1] == ["best"]:
        return _print_best(argv[1:])
    options, overrides = parse_sweep(argv)
    exit_on_sigterm()
    show_status(f"{options.space}: loading torch and Optuna, checking the space")
    from sweeps.search.sweep import sweep

    command = format_command(verb, without_option(argv, "--notify"))  # it may have a secret in it
    return _print_result(sweep(overrides=overrides, command=command, **vars(options)), options)


def parse_sweep(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of `sweeps.search.sweep.sweep`, and the keys of the experiment."""
    parser = make_parser("sweep")
    options, names, overrides = parser.parse_with_overrides(argv)
    if len(names) > 1:
        raise UserError(f"one space at a time: unexpected argument {names[1]!r}")
    if bool(names) == (options.space is not None):
        raise UserError(f"give one space first ({', '.join(space_names())}), or one file with -c FILE")
    check_system_metrics(options)
    options.labels = take_labels(options)
    options.space = names[0] if names else options.space
    _check_keys([token.partition("=")[0] for token in overrides if token.startswith("--")], parser.option_names)
    return options, overrides


def _check_keys(flags: Sequence[str], known: Sequence[str]) -> None:
    """Refuse misspelt options."""
    for flag in flags:
        is_key = "." in flag or flag.removeprefix("--") in NOT_SEARCHED  # which `sweep` checks
        suggestions = [] if is_key else get_close_matches(flag, known, n=1)
        if suggestions:
            raise UserError(f"unknown option {flag}: did you mean {suggestions[0]}?")


def _print_result(result: "SweepResult", options: argparse.Namespace) -> int:
    """Print a sweep's result and what to do with it; return the exit code."""
    from pipelines.runtime.console import table_console

    console = table_console()
    for line in _result_lines(result):
        console.print(line, markup=False)
    for line in _next_steps(result, options):
        console.print(line, markup=False, soft_wrap=True)
    if result.stop_signal is not None:
        progress = f"{result.n_finished} of {result.space.total} trials are done"
        logger.warning("stopped; %s. Run the same command again to continue.", progress)
        return 128 + result.stop_signal
    if result.n_unconfirmed:
        logger.warning(
            "%d of the runs that confirm the best failed. Run the same command to try them again.", result.n_unconfirmed
        )
        return 1
    return 0 if result.best is not None else 1


def _result_lines(result: "SweepResult") -> list[str]:
    from sweeps.search.study_run import confirmed_lines
    from sweeps.workers.display import format_params

    lines, space, best = [], result.space, result.best
    if result.n_finished < space.total:
        lines.append(f"{result.study}: {result.n_finished} of {space.total} trials; the same command continues")
    if result.n_failed:
        failed = f"{result.n_failed} of the trials failed"
        lines.append(f"{result.study}: {failed}; the same command with --retry_failed trains them again")
    if best is not None:
        value = f"{space.metric} {best.value:.4f}, trial {best.trial}"
        chance = f", the best of {result.n_finished}, so partly chance" if result.n_finished > 1 else ""
        lines.append(f"{result.study}: best single trial {value}{chance}: {format_params(best.params)}")
    lines += confirmed_lines(result.confirmed)
    return [*lines, *([f"On fresh seeds, the best is {result.verdict}"] if result.verdict else [])]


def _next_steps(result: "SweepResult", options: argparse.Namespace) -> list[str]:
    from pipelines.tracking.ui_view import command_or_address

    storage = ["--storage", redact_credentials(options.storage)] if options.storage else []
    best = ["litlab", "sweep", "best", result.study, *storage, *tracking_uri_arguments(result.tracking_uri)]
    lines = [f"run         {result.run_id}"]
    if result.best is not None and not result.verdict.startswith(NOT_BETTER):
        lines.append(f"best        {shlex.join(best)} > best.yaml")
    dashboard = shlex.join(["optuna-dashboard", redact_credentials(result.storage)])
    view = command_or_address(result.tracking_uri, result.study)
    return [*lines, f"view        {view}; {dashboard}"]


def _print_best(argv: Sequence[str]) -> int:
    from sweeps.search.status import best_configuration
    from sweeps.workers.display import format_params

    best = best_configuration(**vars(make_study_parser("best").parse(argv)))
    logger.info("trial %d, %.4f: %s", best.trial.trial, best.trial.value, format_params(best.trial.params))
    if best.verdict.startswith(NOT_BETTER):
        logger.warning("on fresh seeds, this configuration is %s", best.verdict)
    if best.better:
        numbers = ", ".join(map(str, best.better))
        logger.warning("not considered, as another program added them to the study: better trials %s", numbers)
    print(best.config, end="")
    return 0


def _print_status(argv: Sequence[str]) -> int:
    from sweeps.search.status import sweep_status

    options = vars(make_study_parser("status").parse(argv))
    as_json = options.pop("json")
    status = sweep_status(**options)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return 0
    from pipelines.runtime.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for line in _status_lines(status):
        console.print(escape_control_characters(line), markup=False)
    return 0


def _status_lines(status: "StudyStatus") -> list[str]:
    from sweeps.workers.display import format_params

    counts = [f"{number} {state}" for state, number in status.trials.items() if number and state in COUNTED]
    total = f" of {status.total}" if status.total else ""
    objective = f"; {status.direction} {status.metric}" if status.metric else ""
    others = [f"{number} {state}" for state, number in status.trials.items() if number and state not in COUNTED]
    not_counted = f"; not counted: {', '.join(others)}" if others else ""
    lines = [f"{status.study}: {', '.join(counts) or 'no trials yet'}{total}{objective}{not_counted}"]
    lines.append(f"run by {status.controller}" if status.controller else "no controller is running")
    if best := status.best:
        seeds = f" (seeds: {', '.join(f'{value:.4f}' for value in best.seeds)})" if len(best.seeds) > 1 else ""
        lines.append(f"best     trial {best.trial}  {best.value:.4f}{seeds}  {format_params(best.params)}")
    if status.verdict:
        lines.append(f"on fresh seeds, the best is {status.verdict}")
    lines += [f"running  trial {trial.trial}  {format_params(trial.params)}" for trial in status.running]
    lines += [f"failed   trial {trial.trial}  {trial.reason}  {format_params(trial.params)}" for trial in status.failed]
    return [*lines, *([f"run      {status.parent}"] if status.parent else [])]
