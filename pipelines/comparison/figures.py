"""The figures of a comparison, and how they are kept; they can be read in black and white too."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.comparison.learning_curves import KINDS, curves
from pipelines.comparison.metric_plots import keys, labels, plot_metric_vs_cost, plot_metric_vs_param
from pipelines.comparison.rows import Comparison, Row, titles
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import Store
from pipelines.tracking.tags import COMMAND_TAG, NOTE_TAG, PARENT_TAG, SELECTED_EPOCH, SOURCE_NAME_TAG, SOURCE_TYPE_TAG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves", "draw", "keep", "save"]

CURVES, REGIONS, CODES = 6, 6, 3  # rows that each figure has room for
PLANES, CODERS = "datamodules.circles.", "modules.autoencoder."
COMPARISONS = "comparisons"  # the MLflow experiment
MAX_NOTE = 8000  # characters of a tag that MLflow takes
DPI = 150


def draw(comparison: Comparison, store: Store) -> dict[str, "Figure"]:
    """All figures that suit a comparison, by name; what has nothing to show is left out."""
    named = dict(zip(labels(comparison), comparison.rows, strict=True))
    drawn = {"learning_curves": _learning_curves(named, store)}
    short = titles(comparison.columns)
    for key in keys(comparison):
        name = re.sub(r"\W+", "_", short.get(key, key.rpartition(".")[2]))
        drawn[f"against_{name}"] = plot_metric_vs_param(comparison, key)
    drawn["against_cost"] = plot_metric_vs_cost(comparison)
    drawn |= _views(named, store)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _learning_curves(named: Mapping[str, Row], store: Store) -> "Figure | None":
    """Of the first rows that were trained epoch by epoch; what scikit-learn has fitted was not."""
    logged = {f"{split}/{kind}" for split in ("train", "val") for kind in KINDS}
    trained = {
        label: row.runs
        for label, row in named.items()
        if any(SELECTED_EPOCH in run.metrics and logged & set(run.metrics) for run in row.runs)
    }
    return curves(dict(list(trained.items())[:CURVES]), store) if trained else None


def _views(named: Mapping[str, Row], store: Store) -> dict[str, "Figure | None"]:
    """What the networks themselves show; only they need torch."""
    planes = {
        label: row for label, row in named.items() if _param(row, "data").startswith(PLANES) and _param(row, "model")
    }
    coders = {
        label: row
        for label, row in named.items()
        if _param(row, "model").startswith(CODERS) and _param(row, "model.code") == "2"
    }
    if not planes and not coders:
        return {}
    from pipelines.comparison import model_plots as views

    drawn: dict[str, Figure | None] = {}
    for name, view, rows in (
        ("decision_regions", views.decision_regions, dict(list(planes.items())[:REGIONS])),
        ("codes", views.codes, dict(list(coders.items())[:CODES])),
    ):
        try:
            drawn[name] = view(rows, store) if rows else None
        except UserError as error:  # the data, or a checkpoint, lie elsewhere now
            print(f"litlab: note: no figure {name}: {error}", file=sys.stderr)
    return drawn


def _param(row: Row, key: str) -> str:
    return row.runs[0].configuration.get(key, "")


def save(figures: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    """Write each figure as NAME.png and as NAME.svg.

    Raises:
        UserError: The folder cannot be written to.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths += [folder / f"{name}.png", folder / f"{name}.svg"]
            figure.savefig(paths[-2], dpi=DPI)
            _save_svg(figure, paths[-1])
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    return paths


def _save_svg(figure: "Figure", path: Path) -> None:
    """One that can stand beside others in one page: its ids begin with its name, its letters are outlines."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
        figure.savefig(path, dpi=DPI, metadata={"Date": None})
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{path.stem}-", path.read_text())
    path.write_text(text)


def keep(
    comparison: Comparison, figures: Mapping[str, "Figure"], store: Store, folder: Path, command: str, table: str
) -> str:
    """Save the figures, and keep them with the table in an MLflow run of the experiment "comparisons".

    Args:
        comparison: What was compared.
        figures: By name.
        store: Where the run goes.
        folder: Where the figures are saved too.
        command: What was typed.
        table: The rows, in Markdown.

    Returns:
        The id of the run.

    Raises:
        UserError: The folder cannot be written to, or the store takes no run.
    """
    paths = save(figures, folder)
    what = " ".join(comparison.selection.names) or "all runs"
    tags = {
        PARENT_TAG: "comparison",
        COMMAND_TAG: redact_credentials(command),
        SOURCE_NAME_TAG: "litlab compare",
        SOURCE_TYPE_TAG: "LOCAL",
    }
    run = Run(store, COMPARISONS, f"compare {what}"[:200], tags)
    with recorded(run):
        kept = run.folder / "figures"
        kept.mkdir(exist_ok=True)
        for path in paths:
            shutil.copyfile(path, kept / path.name)
        note = _note(comparison, table)
        (run.folder / "comparison.md").write_text(note)
        if len(note) > MAX_NOTE:
            note = note[: MAX_NOTE - 100] + " ...\n\nThe whole of it is in comparison.md."
        run.set_tags({NOTE_TAG: note})
    return run.run_id


def _note(comparison: Comparison, table: str) -> str:
    """The table, and the runs that it is made of, in Markdown."""
    lines = [
        f"- {label}: {' '.join(run.run_id for run in row.runs)}"
        for label, row in zip(labels(comparison), comparison.rows, strict=True)
    ]
    return "\n".join([table.strip(), "", "Runs:", "", *lines, ""])
