"""`litlab list`: show the experiments."""

import json
from collections.abc import Sequence

from pipelines.commands.options import VerbParser
from pipelines.config.experiments import list_experiments

HELP = """usage: litlab list [--json]

Show the experiments: name, data, model and a one-line description.

  --json   print a JSON array instead of a table"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab list [--json]`, and print the experiments."""
    parser = VerbParser(verb, HELP, tracking_uri=False)
    parser.add_argument("--json", action="store_true")
    options = parser.parse(argv)
    experiments = list_experiments()
    if options.json:
        print(json.dumps(experiments, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("experiment", "data", "model", "description"):
        table.add_column(column, no_wrap=column != "description")
    for row in experiments:
        table.add_row(row["name"], row["data"], row["model"], row["description"])
    Console().print(table)
    return 0
