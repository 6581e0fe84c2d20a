"""`litlab report`: write one HTML page of finished runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.options import VerbParser, add_comparison_arguments, combine_filters
from pipelines.runtime.log import logger

DESCRIPTION = """Write one HTML page of finished runs, to archive and to share. It has the table
and figures of litlab compare, the search space and results of a study, all
configurations, machine, versions, data, and the commands that reproduce the
runs. The page needs neither a network nor scripts."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    add_comparison_arguments(parser)
    out = "the page (report.html); an earlier page of litlab is replaced"
    parser.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=out)
    text = "your own text below the result, in Markdown (HTML in it is shown as text)"
    parser.add_argument("--text", type=Path, metavar="FILE", help=text)
    ui = "address of litlab ui, for links from run ids; by default that of the tracking server"
    parser.add_argument("--ui", metavar="URL", help=ui)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Write the page, and print its path."""
    options = vars(make_parser(verb).parse(argv))
    combine_filters(options)
    from pipelines.reporting.report import report

    result = report(**options)
    for text in result.missing:
        logger.info(f"note: {text}")
    print(f"report  {result.path}  ({result.path.stat().st_size / 1e6:.1f} MB)")
    return 0
