"""`litlab list`: show the experiments."""

import json
from collections.abc import Sequence

from pipelines.commands.options import VerbParser
from pipelines.config.experiments import list_experiments

DESCRIPTION = "Show the experiments: name, data, model and a one-line description."


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the experiments."""
    options = make_parser(verb).parse(argv)
    experiments = list_experiments()
    if options.json:
        print(json.dumps(experiments, indent=2))
        return 0
    from rich.table import Table

    from pipelines.runtime.console import Console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("experiment", "data", "model", "description"):
        table.add_column(column, no_wrap=column != "description")
    for row in experiments:
        table.add_row(row["name"], row["data"], row["model"], row["description"])
    Console().print(table)
    return 0
