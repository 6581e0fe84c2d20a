"""`litlab compare`: finished runs side by side, as a table or as data. Nothing heavy is imported."""

import argparse
import csv
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.comparison import rows
from pipelines.comparison.formatting import footnote, markdown_table, metric_cells, param_cells, table_title
from pipelines.comparison.intervals import Difference
from pipelines.comparison.rows import Comparison, Row
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import escape_control_characters, redact_credentials
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from pipelines.tracking.tags import EXPERIMENT_KEY, FIT_SECONDS, SELECTED_EPOCH

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_ROWS = 40  # of a table on the screen
WIDE = 1000  # columns, where nobody says how wide the screen is
OWN_KEYS = "configuration"  # the one column for all keys, where there is no room for one each
LEAST = ("parameters", "time", "epoch", "95 % interval", "n")  # left out in this order where there is no room
HELP = """usage: litlab compare [NAME ...] [--by KEY ...] [--metric METRIC] [...]

Finished runs side by side. Runs that differ only in the seed are one row: mean,
standard deviation, 95 % interval, and the difference to the best row, paired by
seed: within noise if the 95 % interval of the difference holds 0.

  NAME                an experiment, a study, or the id of a run; none: all
  --by KEY ...        one row for each value of these keys (data.n_train) only;
                      runs are pairs if they agree in seed and all other keys
  --metric METRIC     test/acc, selected/val/loss, fit_seconds ...
  --filter "..."      MLflow's: "params.model.dropout = '0.3' and
                      metrics.test/acc > 0.9"
  --format FORMAT     table, json, csv or md (table: the first 40 rows)
  --plot DIR          figures as PNG and SVG in a folder, and with the table in
                      a run of the experiment comparisons
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab compare [NAME ...] [--by ...] [--metric ...] [--filter ...] [--format ...] [--plot ...]`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    options = _parse(argv)
    store = Store(options.tracking_uri)
    selection = find_runs(store, options.names, options.filter)
    comparison = rows.group_and_rank(selection, options.metric, options.by)
    for note in comparison.notes:
        print(f"litlab: note: {escape_control_characters(note)}", file=sys.stderr)
    if options.format == "table":
        _show(comparison)
    else:
        print(FORMATS[options.format](comparison), end="")
    if options.plot:
        from pipelines.comparison import figures as plots

        drawn = plots.draw(comparison, store)
        command = redact_credentials(shlex.join(["litlab", verb, *argv]))
        run_id = plots.keep(comparison, drawn, store, options.plot, command, as_markdown(comparison))
        where = sys.stdout if options.format == "table" else sys.stderr
        print(f"figures  {options.plot}\nrun      {run_id}", file=where)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="litlab compare", allow_abbrev=False, add_help=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--by", nargs="+", action="extend", default=[])
    parser.add_argument("--metric")
    parser.add_argument("--filter", default="")
    parser.add_argument("--format", choices=("table", *FORMATS), default="table")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--tracking_uri")
    options, unknown = parser.parse_known_intermixed_args(list(argv))
    if unknown:
        flag = next((token for token in unknown if token.startswith("-")), unknown[0]).partition("=")[0]
        known = [f"--{name}" for name in vars(options) if name != "names"]
        near = get_close_matches(flag, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise UserError(f"{flag} is no option: {hint}")
    options.by = list(dict.fromkeys(options.by))
    return options


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """One object for each row, the best first; nothing in it but what JSON has."""
    keys = [key for key in comparison.differing if key != EXPERIMENT_KEY]
    return [
        {
            "experiment": row.configuration.get(EXPERIMENT_KEY),
            "params": {key: row.configuration.get(key) for key in keys},
            "metric": comparison.metric,
            "mean": row.summary.mean,
            "sd": row.summary.sd,
            "n": row.summary.n,
            "ci95": row.summary.ci95,
            "seeds": [run.seed for run in row.runs],
            "values": list(row.values.values()),
            "configurations": row.configurations,
            "best_epoch": row.mean(SELECTED_EPOCH),
            "seconds": row.mean(FIT_SECONDS),
            "parameters": row.mean("parameters"),
            "runs": [run.run_id for run in row.runs],
            "difference": _difference_record(row.difference) if row.difference else None,
        }
        for row in comparison.rows
    ]


def _difference_record(found: Difference) -> dict[str, Any]:
    fields = {key: getattr(found, key) for key in ("mean", "ci95", "n", "paired")}
    return {**fields, "within_noise": found.within_noise}


def as_json(comparison: Comparison) -> str:
    """An array of the records."""
    return json.dumps(as_records(comparison), indent=2, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A header and one line for each row; lists are separated by spaces, params are named as in MLflow's tables."""
    flat = [_flat(record) for record in as_records(comparison)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    ends = ("_low", "_high")
    apart = record["difference"] or {}
    flat: dict[str, Any] = {"experiment": record["experiment"]}
    flat |= {f"params.{key}": value for key, value in record["params"].items()}
    flat |= {key: record[key] for key in ("metric", "mean", "sd", "n")}
    flat |= {f"ci95{end}": value for end, value in zip(ends, record["ci95"] or ("", ""), strict=True)}
    flat |= {key: " ".join(map(str, record[key])) for key in ("seeds", "values")}
    flat |= {key: record[key] for key in ("configurations", "best_epoch", "seconds", "parameters")}
    flat |= {"runs": " ".join(record["runs"]), "difference": apart.get("mean")}
    flat |= {f"difference_ci95{end}": value for end, value in zip(ends, apart.get("ci95") or ("", ""), strict=True)}
    return flat | {f"difference_{key}": apart.get(key) for key in ("n", "paired", "within_noise")}


def as_markdown(comparison: Comparison) -> str:
    """A Markdown table of all rows, with what its marks mean below."""
    lines = [
        [*param_cells(row, comparison).values(), *metric_cells(row, comparison).values()] for row in comparison.rows
    ]
    names = [*rows.titles(comparison.columns).values(), *metric_cells(comparison.rows[0], comparison)]
    text = [table_title(comparison), "", markdown_table([names, *lines], padded=False)]
    remark = footnote(comparison.rows)
    return "\n".join([*text, *(["", remark.replace("*", "\\*")] if remark else [])]) + "\n"


FORMATS = {"json": as_json, "csv": as_csv, "md": as_markdown}


def _show(comparison: Comparison) -> None:
    """The first rows as a table that fits the screen, and what it leaves out."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=WIDE)
    some = comparison.rows[:MOST_ROWS]
    table, without = _fitting(console, comparison, some)
    more = len(comparison.rows) - len(some)
    says = [
        footnote(some),
        f"{more} more rows: --format json, csv or md has all" if more else "",
        f"no room for {', '.join(without)}: --format json has all" if without else "",
    ]
    console.print(Text(escape_control_characters(table_title(comparison))))
    console.print(table)
    for line in filter(None, says):
        console.print(Text(escape_control_characters(line)))


def _fitting(console: "Console", comparison: Comparison, some: Sequence[Row]) -> tuple["Table", Sequence[str]]:
    """The table with as many columns as there is room for, and what was left out."""
    titles = rows.titles(comparison.columns)
    keys = [{titles[key]: text for key, text in param_cells(row, comparison).items()} for row in some]
    values = [metric_cells(row, comparison) for row in some]
    empty = {name for name in values[0] if not any(line[name] for line in values)}
    for count in range(len(LEAST) + 1):
        without = [name for name in LEAST[:count] if name not in empty]
        table = _table(keys, _less(values, {*empty, *without}))
        if console.measure(table, options=console.options.update(width=WIDE)).maximum <= console.width:
            return table, without
    gathered = [{OWN_KEYS: "  ".join(f"{name}={text}" for name, text in line.items() if text)} for line in keys]
    without = [name for name in without if name != "n"]
    return _table(gathered, _less(values, {*empty, *without})), without


def _less(lines: Sequence[dict[str, str]], without: set[str]) -> list[dict[str, str]]:
    return [{name: text for name, text in line.items() if name not in without} for line in lines]


def _table(keys: Sequence[dict[str, str]], values: Sequence[dict[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in keys[0]:
        table.add_column(Text(escape_control_characters(name)), overflow="fold")
    for name in values[0]:
        table.add_column(Text(name), justify="left" if name == "verdict" else "right", no_wrap=True)
    for line, measures in zip(keys, values, strict=True):
        style = {"best": "bold", "worse": "dim"}.get(measures["verdict"])
        table.add_row(
            *(Text(escape_control_characters(text)) for text in [*line.values(), *measures.values()]), style=style
        )
    return table
