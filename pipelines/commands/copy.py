"""`litlab copy`: copy runs to another tracking store."""

from collections.abc import Sequence

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import count, redact_credentials

MAX_LISTED = 20
DESCRIPTION = """Copy runs to another tracking store, with the runs below them: params, tags,
metrics with their history, data sets, models, artifacts, status and times. Runs
that were copied before are left as they are, and an interrupted copy is
completed. Runs that are active are left out."""
EPILOG = """examples:
  litlab copy digits-mlp --to http://server:5000
  litlab copy 114c6c51 --from sqlite:///old/mlflow.db --to sqlite:///mlflow.db"""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, usage="RUN_ID|NAME ... --to URI [--from URI]", epilog=EPILOG)
    add = parser.add_argument
    what = "a run, or an experiment or a study with all its runs"
    add("names", metavar="RUN_ID|NAME", nargs="+", help=what)
    add("--to", required=True, metavar="URI", help="the other store: sqlite:///FILE or http://SERVER")
    add("--from", dest="tracking_uri", metavar="URI", help="where the runs are (mlflow.db of this project)")
    parser.add_tracking_uri("the same as --from")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Copy the runs, and print each with its copy."""
    options = make_parser(verb).parse(argv)
    from pipelines.tracking.copies import copy_runs
    from pipelines.tracking.store import StoredRun

    def progress(done: int, total: int, run: StoredRun) -> None:
        show_status(f"{done} of {count(total, 'run')} copied; copying {run.run_id[:8]} {run.name}")

    copied, left_out = copy_runs(options.names, options.to, tracking_uri=options.tracking_uri, progress=progress)
    for message in left_out:
        logger.warning("left out: %s", message)
    new = [each for each in copied if each.is_new]
    for each in new[:MAX_LISTED]:
        print(f"{each.run.run_id} -> {each.copy_id}")
    if len(new) > MAX_LISTED:
        print(f"and {count(len(new) - MAX_LISTED, 'more run')}")
    before = len(copied) - len(new)
    there = f"; {count(before, 'run')} had been copied before" if before else ""
    print(f"copied {count(len(new), 'run')} to {redact_credentials(options.to)}{there}")
    return 0
