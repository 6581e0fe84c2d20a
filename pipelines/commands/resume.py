"""`litlab resume`: continue a stopped fit."""

from collections.abc import Sequence
from typing import get_args

from pipelines.commands.fit import run_and_report
from pipelines.commands.options import RUN_ID, VerbParser, check_system_metrics, find_run_id
from pipelines.config.arguments import Keep
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.status import show_status

DESCRIPTION = """Resume a litlab fit that was stopped or killed, or that crashed: from its last
complete epoch, in the same run. On a CPU the result is bit-identical to that of
an uninterrupted run. Finished runs cannot be resumed. Only the keys below can
be changed: to change others, use litlab fit for a new run."""
MAX_LISTED = 10


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, usage="RUN_ID [--dead] [--KEY VALUE ...]")
    show = parser.show_argument
    show("run_id", **RUN_ID | {"help": f"{RUN_ID['help']}; without it, the unfinished runs are listed"})
    dead = "confirm that the process of a run that is RUNNING on another machine is dead"
    parser.add_argument("--dead", action="store_true", help=dead)
    data_dir = "the folder of the data, if it has changed; the data must be the same"
    show("--data.data_dir", metavar="DIR", help=data_dir)
    show("--data.device", metavar="WHERE", help="where data in memory are held: auto, cpu or cuda")
    show("--monitor", metavar="METRIC", help="what selects the best weights; of past epochs, those with a checkpoint")
    show("--mode", metavar="min|max", help="whether lower or higher values of it are better")
    show("--test_weights", metavar="WHICH", help="best, last, or callback (a ModelCheckpoint's best)")
    show("--checkpoint_every", metavar="N|TIME", help="also save within epochs: 500 (steps), 10m, 2h")
    show("--keep", choices=get_args(Keep), metavar="WHICH", help="checkpoints left at the end: all, best or none")
    show("--leak_check", metavar="BOOL", help="refuse training examples in other sets (true)")
    show("--keep_predictions", metavar="BOOL", help="keep the predictions of the test (true)")
    show("--trainer.enable_progress_bar", metavar="BOOL", help="show a progress bar (true)")
    parser.add_system_metrics()
    parser.add_trust()
    parser.add_notify()
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Continue a run, and print the results."""
    parser = make_parser(verb)
    options, run_ids, overrides = parser.parse_with_overrides(argv)
    check_system_metrics(options)
    if not run_ids:
        raise UserError(_unfinished(options.tracking_uri))
    if len(run_ids) > 1:
        raise UserError(f"unexpected argument {run_ids[1]!r}: one run at a time")
    read_request(verb, overrides, on_run=True, options=parser.option_names)
    show_status(f"{run_ids[0]}: loading torch, the run and its data")
    run_id = find_run_id(run_ids[0], options.tracking_uri, any_status=True)
    from pipelines.training.resume import resume

    given = {"assume_dead": options.dead, "tracking_uri": options.tracking_uri, "trust": options.trust}
    given["system_metrics"] = options.system_metrics
    given["notify"] = options.notify
    return run_and_report(lambda: resume(run_id, overrides=overrides, **given))


def _unfinished(tracking_uri: str | None) -> str:
    """Return the message for a command without a run: it lists the unfinished runs, one a line."""
    from pipelines.tracking.tags import COMMAND_TAG
    from pipelines.training.resumable import unfinished_runs

    runs = unfinished_runs(tracking_uri)
    if not runs:
        return "name a run; all runs of litlab fit are finished"
    lines = [f"  {run.run_id}  {run.status:<8}  {run.tags.get(COMMAND_TAG, '')}" for run in runs[:MAX_LISTED]]
    more = [f"  and {len(runs) - MAX_LISTED} older ones"] if len(runs) > MAX_LISTED else []
    return "\n".join(["name a run: litlab resume RUN_ID; these are not finished:", *lines, *more])
