"""`litlab test` and `litlab validate`: measure a finished run again."""

from collections.abc import Sequence
from typing import Literal

from pipelines.commands.options import VerbParser
from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.log import logger

HELP = """usage: litlab {verb} RUN_ID [--tracking_uri URI] [--KEY VALUE ...]

Evaluate a run's selected checkpoint on the {split} set, and print the
recorded and the new metrics. The run is not changed.

  RUN_ID              as printed by litlab fit and shown in the UI
  --KEY VALUE         override a key of the run's configuration, such as
                        --data.data_dir FOLDER
  --tracking_uri URI  where runs are stored (mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab test RUN_ID` or `litlab validate RUN_ID`, measure, and print the metrics."""
    parser = VerbParser(verb, HELP.format(verb=verb, split={"test": "test", "validate": "validation"}[verb]))
    if not argv:
        parser.print_help()
        return 2
    options, run_ids, overrides = parser.parse_with_overrides(argv)
    if len(run_ids) != 1:
        extra = f"unexpected argument {run_ids[1]!r}: " if run_ids else ""
        raise UserError(f"{extra}name one run: litlab {verb} RUN_ID")
    with gc_paused_for_import("pipelines.evaluation.evaluate"):
        from pipelines.evaluation.evaluate import evaluate_run
    from pipelines.runtime.console import print_results

    split: Literal["val", "test"] = "test" if verb == "test" else "val"
    result = evaluate_run(run_ids[0], split, overrides, tracking_uri=options.tracking_uri)
    rows = {"recorded": result.recorded, "now": result.measured}
    print_results(f"{result.experiment}, run {result.run_id}", rows, {})
    if not result.same_data:
        logger.warning(f"note: this is not the {split} set that the run was measured on")
    return 0
