"""`litlab compare`: compare finished runs, as a table or as data."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser, add_comparison_arguments, combine_filters
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.comparison.rows import Comparison

DESCRIPTION = """Compare finished runs. Runs that differ only in the seed are one row: mean,
standard deviation, 95 % interval, and the difference to the best row, paired by
seed. It is within noise if the 95 % interval of the difference contains 0."""
OF_EXAMPLES = ("names", "tracking_uri")  # the options that --examples takes, besides format and plot
SAME_FORMATS = {"text": "table", "markdown": "md"}


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    add_comparison_arguments(parser)
    effect = "smallest difference of interest: how many seeds show it"
    parser.add_argument("--min_effect", type=float, metavar="D", help=effect)
    formats = ("table", "text", "json", "csv", "md", "markdown", "latex")
    table = "table (text), json, csv, md (markdown) or latex (booktabs)"
    parser.add_argument("--format", choices=formats, default="table", metavar="FORMAT", help=table)
    long = "all rows, columns and whole run ids"
    parser.add_argument("--long", action="store_true", help=long)
    pivot = "table of the metric by two keys: model data"
    examples = "examples that only one of two runs classifies correctly"
    parser.add_argument("--examples", action="store_true", help=examples)
    parser.add_argument("--pivot", nargs=2, metavar=("KEY", "KEY"), help=pivot)
    plot = 'save figures as PNG, SVG and PDF in a folder, and log them with the table as a run of "comparisons"'
    parser.add_argument("--plot", type=Path, metavar="DIR", help=plot)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the comparison, and draw it if asked to."""
    options = vars(make_parser(verb).parse(argv))
    output, folder, long, pivot = (options.pop(name) for name in ("format", "plot", "long", "pivot"))
    output = SAME_FORMATS.get(output, output)
    combine_filters(options)
    if options.pop("examples"):
        given = [name for name, value in {**options, "pivot": pivot}.items() if value and name not in OF_EXAMPLES]
        if given:
            raise UserError(f"--examples does not take --{given[0].removesuffix('_string')}")
        from pipelines.commands.compare_examples import print_examples

        return print_examples(options["names"], output, folder, options["tracking_uri"])
    if pivot:
        if options["by"] or options["baseline"]:
            raise UserError(f"--pivot takes the place of {'--by' if options['by'] else '--baseline'}: give one of them")
        options["by"] = pivot
    from pipelines.comparison.compare import compare
    from pipelines.comparison.export import FORMATS

    try:
        comparison = compare(**options)
    except UserError as error:
        message = str(error)
        raise UserError(message.replace("--by", "--pivot", 1) if pivot else message) from error
    for note in comparison.notes:
        logger.info(f"note: {note}")
    if pivot:
        _print_pivot(comparison, output)
    elif output == "table":
        from pipelines.commands.compare_table import print_table

        print_table(comparison, long=long)
    else:
        print(FORMATS[output](comparison), end="")
    if folder:
        from pipelines.comparison.figures import draw_figures, log_comparison

        run_id = log_comparison(comparison, draw_figures(comparison), folder, format_command(verb, argv))
        print(f"figures  {folder}\nrun      {run_id}", file=sys.stdout if output == "table" else sys.stderr)
    return 0


def _print_pivot(comparison: "Comparison", output: str) -> None:
    from pipelines.comparison.pivot import FORMATS, pivot

    tables = pivot(comparison)
    if output != "table":
        print(FORMATS[output](tables), end="")
        return
    from pipelines.runtime.console import numeric_table, table_console
    from pipelines.runtime.text import escape_control_characters

    console = table_console()
    for index, table in enumerate(tables):
        print(*[""] * bool(index), escape_control_characters(table.title), sep="\n")
        console.print(numeric_table("", table.table()))
        for note in table.notes:
            print(note)
