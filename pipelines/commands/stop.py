"""`litlab stop`: stop a run from another shell or machine."""

from collections.abc import Sequence

from pipelines.commands.options import RUN_ID, VerbParser

DESCRIPTION = """Ask a run or a study to stop. It ends as after Ctrl-C, with a checkpoint, and
can be continued. It looks every 10 s for its tag litlab.stop, which this
command sets, and which can be set in the MLflow UI too, to any value."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    what = f"{RUN_ID['help']}; an experiment or a study, of which one run is running"
    parser.add_argument("run_id", metavar="RUN_ID", help=what)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Ask the run to stop, and print what continues it."""
    options = make_parser(verb).parse(argv)
    from pipelines.tracking.stop_tag import LOOK_EVERY_S
    from pipelines.training.stop import request_stop

    stop = request_stop(options.run_id, tracking_uri=options.tracking_uri)
    again = " again" if stop.is_repeated else ""
    run = stop.run.run_id
    print(f"run {run} is asked{again} to stop; it looks every {LOOK_EVERY_S:.0f} s: litlab show {run}")
    if stop.continuing:
        print(f"To continue it then: {stop.continuing}")
    return 0
