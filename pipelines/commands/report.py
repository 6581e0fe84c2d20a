"""`litlab report`: write one HTML page of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger

HELP = """usage: litlab report NAME ... [--out report.html] [--metric METRIC] [...]

Write one HTML page of finished runs, to archive and to share. It has the table
and figures of litlab compare, the search space and results of a study, all
configurations, machine, versions, data, and the commands that reproduce the
runs. The page needs neither a network nor scripts.

  NAME ...            experiments, studies, or run ids
  --out FILE          the page (report.html); an existing file is replaced
  --metric METRIC     as in litlab compare: test/acc, selected/val/loss ...
  --by KEY ...        one row for each value of these keys only
  --filter "..."      MLflow filter: "params.model.dropout = '0.3'"
  --tracking_uri URI  where runs are stored (default: mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab report`, write the page, and print its path."""
    if not argv:
        print(HELP)
        return 2
    parser = VerbParser(verb, HELP)
    parser.add_comparison_arguments()
    parser.add_argument("--out", type=Path)
    options = parser.parse(argv)
    from pipelines.reporting.report import DEFAULT_PATH, report

    result = report(
        options.names,
        out=options.out or DEFAULT_PATH,
        metric=options.metric,
        by=options.by,
        filter_string=options.filter,
        tracking_uri=options.tracking_uri,
    )
    for text in result.missing:
        logger.info(f"note: {text}")
    print(f"report  {result.path}  ({result.path.stat().st_size / 1e6:.1f} MB)")
    return 0
