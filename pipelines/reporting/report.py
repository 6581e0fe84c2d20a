"""`litlab report`: one HTML page of finished runs, with all that one needs to judge and to repeat them."""

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.comparison import intervals as spread
from pipelines.comparison import rows
from pipelines.comparison.formatting import footnote, format_mean_sd, metric_cells, param_cells
from pipelines.comparison.metric_plots import labels
from pipelines.comparison.rows import Comparison, Row
from pipelines.reporting import html_page as page
from pipelines.reporting import provenance as origins
from pipelines.reporting.parent_runs import Picture, parent
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import escape_control_characters, redact_credentials, typed
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from pipelines.tracking.tags import NOTE_TAG, STAGE_KEY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FILES = 50  # rows whose config.yaml is in the page
NAMED = 6  # rows or experiments that a sentence names
SHORT = 40  # characters of a label that a sentence can bear
HELP = """usage: litlab report NAME ... [--out report.html] [--metric METRIC] [...]

One HTML page of finished runs, to keep and to send: the table of litlab compare
with its figures, what a study searched and found, every configuration, machine,
versions, data, and the commands that make it again. The page needs no network
and no script.

  NAME ...            experiments, studies, or ids of runs
  --out FILE          the page (report.html); an earlier one is replaced
  --metric METRIC     as in litlab compare: test/acc, selected/val/loss ...
  --by KEY ...        one row for each value of these keys only
  --filter "..."      MLflow's: "params.model.dropout = '0.3'"
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""
CAPTIONS = {
    "learning_curves": "Learning curves: mean over seeds, and one standard deviation to either side",
    "against_cost": "{metric} against what a network costs",
    "decision_regions": "What the networks say of the plane",
    "codes": "Codes of test images, beside their principal components",
}


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab report NAME ... [--out FILE]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    options = _parse(argv)
    out = page.target(options.out)
    store = Store(options.tracking_uri)
    comparison = rows.group_and_rank(find_runs(store, options.names, options.filter), options.metric, options.by)
    context = describe(comparison, store)
    commands = [typed(verb, argv), typed("compare", _without_out(argv))]
    page.write(out, page.render("report.html", {**context, "own_commands": commands}))
    for missing in context["missing"]:
        print(f"litlab: note: {escape_control_characters(missing)}", file=sys.stderr)
    print(f"report  {out}  ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="litlab report", allow_abbrev=False, add_help=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--by", nargs="+", action="extend", default=[])
    parser.add_argument("--metric")
    parser.add_argument("--filter", default="")
    parser.add_argument("--tracking_uri")
    options = parser.parse_intermixed_args(list(argv))
    if not options.names:
        raise UserError("name what to report: experiments, studies or ids of runs (litlab list shows the experiments)")
    options.by = list(dict.fromkeys(options.by))
    return options


def _without_out(argv: Sequence[str]) -> list[str]:
    """The same arguments for `litlab compare`, which writes no file."""
    kept = [token for token in argv if not token.startswith("--out=")]
    if "--out" in kept:
        at = kept.index("--out")
        del kept[at : at + 2]
    return kept


def describe(comparison: Comparison, store: Store) -> dict[str, Any]:
    """Everything that the page shows, by the names that its template knows."""
    selection = comparison.selection
    runs = [run for row in comparison.rows for run in row.runs]
    named = labels(comparison)
    parents = [parent(store, run_id) for run_id in dict.fromkeys(selection.parents)]
    figures, unseen = _figures(comparison, store)
    details = [_details(number, label, comparison, store) for number, label in enumerate(named)]
    data = origins.data(runs, store)
    missing = [*unseen, *(line for one in parents for line in one.missing), *(one.missing for one in data)]
    started = sorted(run.started for run in runs)
    return {
        "title": f"{_listed(selection.names)}: {comparison.metric}",
        "descriptions": _descriptions(comparison),
        "made": _when(datetime.now(UTC).timestamp() * 1000),
        "began": (_when(started[0]), _when(started[-1])),
        "where": redact_credentials(store.uri),
        "metric": comparison.metric,
        "better": "lower" if comparison.lower_is_better else "higher",
        "runs": len(runs),
        "summary": summary(comparison, named),
        "notes": comparison.notes,
        "compared": _table(comparison),
        "interval": (spread.__doc__ or "").partition("\n\n")[2],
        "figures": figures,
        "parents": parents,
        "rows": details,
        "environment": origins.environment(runs),
        "data": data,
        "commands": [(row["label"], row["commands"]) for row in details],
        "parent_commands": [fact[1] for one in parents for fact in one.facts if fact[0] == "command"],
        "missing": [line for line in missing if line],
    }


def summary(comparison: Comparison, named: Sequence[str]) -> str:
    """The result in a few sentences, made from the numbers."""
    best, *others = comparison.rows
    which = "lower is better" if comparison.lower_is_better else "higher is better"
    found = best.summary
    among = f"best of {len(comparison.rows)} rows is {_called(0, named)}: " if others else "one row has "
    begin = f"By {comparison.metric} ({which}), the {among}{format_mean_sd(found.mean, found.sd)}"
    if found.ci95 is None:
        begin += " (a single run, of which no spread is known)."
    else:
        interval = metric_cells(best, comparison)["95 % interval"]
        begin += f" (mean ± standard deviation of {found.n} runs; 95 % interval of the mean {interval})."
    return " ".join([begin, *_beside(comparison, named), *_luck(best, others)])


def _beside(comparison: Comparison, named: Sequence[str]) -> list[str]:
    """Which rows may be as good as the best."""
    said = [row.difference.within_noise if row.difference else False for row in comparison.rows]
    within = [_called(number, named) for number, noise in enumerate(said) if noise]
    unknown = said.count(None)
    if len(said) == 1:
        return []
    sentences = []
    if within:
        sentences.append(f"Within the noise of it: {_listed(within)}.")
    elif unknown < len(said) - 1:
        sentences.append("None of the other rows that have enough runs to say is within the noise of it.")
    if unknown:
        rows_said = "1 row has" if unknown == 1 else f"{unknown} rows have"
        sentences.append(f"{rows_said} too few runs to say.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _called(number: int, named: Sequence[str]) -> str:
    """A row by its number, and by its label if that is no longer than a sentence can bear."""
    label = named[number]
    return f"row {number + 1} ({label})" if len(label) <= SHORT else f"row {number + 1}"


def _luck(best: Row, others: Sequence[Row]) -> list[str]:
    if best.label(STAGE_KEY) == "search" and others:
        return ["It is the best of a search, so partly luck: runs on fresh seeds say more of it."]
    return []


def _table(comparison: Comparison) -> dict[str, Any]:
    """The cells of `litlab compare`, without columns in which there is nothing."""
    short = rows.titles(comparison.columns)
    owns = [{short[key]: text for key, text in param_cells(row, comparison).items()} for row in comparison.rows]
    figures = [metric_cells(row, comparison) for row in comparison.rows]
    names = [name for name in figures[0] if any(line[name] for line in figures)]
    lines = [
        [number, *own.values(), *(line[name] for name in names)]
        for number, (own, line) in enumerate(zip(owns, figures, strict=True), 1)
    ]
    numbers = [0, *(at for at, name in enumerate(names, 1 + len(short)) if name != "verdict")]
    header = ["row", *owns[0], *names]
    return {"header": header, "rows": lines, "numbers": numbers, "remark": footnote(comparison.rows)}


def _figures(comparison: Comparison, store: Store) -> tuple[list[Picture], list[str]]:
    """The figures of the comparison, and why there are none."""
    from pipelines.comparison import figures as plots

    try:
        drawn = plots.draw(comparison, store)
    except (UserError, OSError) as error:
        return [], [f"figures cannot be drawn: {error}"]
    pictures, missing = [], []
    for name, figure in drawn.items():
        try:
            pictures.append(_picture(name, figure, comparison.metric))
        except (
            ValueError,
            ArithmeticError,
            RuntimeError,
        ) as error:  # of matplotlib, over a label
            missing.append(f"figure {name} cannot be drawn: {str(error).splitlines()[0]}")
    return pictures, missing


def _picture(name: str, figure: "Figure", metric: str) -> Picture:
    words = name.removeprefix("against_").replace("_", " ")
    caption = CAPTIONS.get(name, f"{{metric}} against {words}" if name.startswith("against_") else words)
    caption = caption.replace("{metric}", metric)
    return Picture(page.inline(figure, name, caption), caption)


def _details(number: int, label: str, comparison: Comparison, store: Store) -> dict[str, Any]:
    """A row's configuration, runs and commands."""
    row, file, missing = comparison.rows[number], "", ""
    if number < MOST_FILES:
        try:
            file = store.find(row.runs[0].run_id).file("config.yaml").read_text(encoding="utf-8", errors="replace")
        except (UserError, OSError) as error:
            missing = str(error)
    others = sorted(key for key in {key for run in row.runs for key in run.metrics} if key.startswith("test/"))
    metrics = list(dict.fromkeys([comparison.metric, *others]))
    lines = [
        [run.run_id, run.name, run.seed, *(_value(run.metrics.get(key)) for key in metrics), _when(run.started)]
        for run in row.runs
    ]
    return {
        "label": f"{number + 1}. {label}",
        "count": "1 run" if len(row.runs) == 1 else f"{len(row.runs)} runs",
        "first": row.runs[0].run_id,
        "file": file,
        "missing": missing,
        "header": ["run", "name", "seed", *metrics, "started"],
        "runs": lines,
        "numbers": list(range(3, 3 + len(metrics))),
        "repeats": row.repeats,
        "commands": [origins.command_of(run.tags) for run in row.runs],
        "params": [] if file else [(key, value) for key, value in row.configuration.items() if value],
    }


def _value(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _descriptions(comparison: Comparison) -> list[tuple[str, str]]:
    """What each experiment says of itself."""
    said: dict[str, str] = {}
    for row in comparison.rows:
        for run in row.runs:
            said.setdefault(run.experiment, run.tags.get(NOTE_TAG, ""))
    return [(name, text) for name, text in said.items() if text]


def _when(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
