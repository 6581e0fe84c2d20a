"""`litlab list`: show the experiments."""

import json
from collections.abc import Mapping, Sequence

from pipelines.commands.options import VerbParser
from pipelines.config.experiments import list_experiments
from pipelines.runtime.errors import UserError

DESCRIPTION = """Show the experiments, grouped by their data. With NAME, show the model and the
description of those whose name or data contain it."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a name, or data, such as mnist")
    parser.add_argument("--long", action="store_true", help="show all with model and description")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the experiments."""
    options = make_parser(verb).parse(argv)
    every = list_experiments()
    experiments = [row for row in every if not options.names or any(_matches(row, name) for name in options.names)]
    if not experiments:
        raise UserError(f"no experiment has {' or '.join(map(repr, options.names))} in its name or data")
    if options.json:
        print(json.dumps(experiments, indent=2))
    elif options.names or options.long:
        _print_long(experiments)
    else:
        _print_groups(experiments)
    return 0


def _matches(row: Mapping[str, str], text: str) -> bool:
    return text.lower() in row["name"].lower() or text.lower() in row["data"].lower()


def _print_groups(experiments: Sequence[Mapping[str, str]]) -> None:
    """Print the names of each group in one row."""
    from rich.table import Table

    from pipelines.runtime.console import Console

    groups: dict[str, list[str]] = {}
    for row in experiments:
        groups.setdefault(row["data"], []).append(row["name"])
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=False)
    for data, names in groups.items():
        table.add_row(data, "  ".join(names))
    console = Console(highlight=False)
    console.print(table)
    console.print("litlab list NAME shows model and description; litlab list --long those of all")


def _print_long(experiments: Sequence[Mapping[str, str]]) -> None:
    from rich.table import Table

    from pipelines.runtime.console import Console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("experiment", "data", "model", "description"):
        table.add_column(column, no_wrap=column != "description")
    for row in experiments:
        table.add_row(row["name"], row["data"], row["model"], row["description"])
    Console().print(table)
