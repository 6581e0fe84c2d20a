"""`litlab test` and `litlab validate`: measure a finished run again."""

from collections.abc import Sequence
from typing import Literal

from pipelines.commands.options import RUN_ID, VerbParser, find_run_id
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status

DESCRIPTION = """Evaluate a run's selected checkpoint on the {} set, and print the
recorded and the new metrics. {}"""
UNCHANGED = {
    "val": "The run is not changed.",
    "test": """Nothing recorded is changed; a run
without predictions gets those of the test, and a new look at the test set is
recorded.""",
}
SPLITS: dict[str, Literal["val", "test"]] = {"validate": "val", "test": "test"}


def make_parser(verb: str) -> VerbParser:
    split = SPLITS[verb]
    description = DESCRIPTION.format({"val": "validation", "test": "test"}[split], UNCHANGED[split])
    parser = VerbParser(verb, description, usage="RUN_ID [--KEY VALUE ...]", needs_arguments=True)
    parser.show_argument("run_id", **RUN_ID)
    parser.show_keys("override a key of the run's configuration, such as --data.data_dir FOLDER")
    parser.add_trust()
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Evaluate a run again, and print the recorded and the new metrics."""
    parser = make_parser(verb)
    options, run_ids, overrides = parser.parse_with_overrides(argv)
    if len(run_ids) != 1:
        extra = f"unexpected argument {run_ids[1]!r}: " if run_ids else ""
        raise UserError(f"{extra}name one run: litlab {verb} RUN_ID")
    read_request(verb, overrides, on_run=True, options=parser.option_names)
    show_status(f"{run_ids[0]}: loading torch, the run and its data")
    run_id = find_run_id(run_ids[0], options.tracking_uri)
    from pipelines.evaluation.evaluate import evaluate_run
    from pipelines.runtime.console import print_results

    where = {"tracking_uri": options.tracking_uri, "trust": options.trust}
    result = evaluate_run(run_id, SPLITS[verb], overrides, **where)
    rows = {"recorded": result.recorded, "now": result.measured}
    print_results(f"{result.experiment}, run {result.run_id}", rows, {})
    if not result.same_data:
        logger.warning(f"note: this is not the {SPLITS[verb]} set that the run was measured on")
    elif result.draws_randomly and result.measured != result.recorded:
        step = "validation_step" if verb == "validate" else "test_step"
        logger.warning(f"note: {step} or the data draw random numbers, and these are others than in the training")
    return 0
