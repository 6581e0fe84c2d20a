"""Draw the figures of a comparison, save them, and log them as an MLflow run. All can be read in black and white."""

import re
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipelines.comparison.export import as_markdown
from pipelines.comparison.learning_curves import KINDS, plot_learning_curves
from pipelines.comparison.metric_plots import keys_to_plot, plot_metric_vs_cost, plot_metric_vs_param, row_labels
from pipelines.comparison.rows import Comparison, Row, short_names
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line
from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import StoredRun
from pipelines.tracking.summary_runs import save_note, summary_tags
from pipelines.tracking.tags import SELECTED_EPOCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CURVES, MAX_REGIONS, MAX_CODES = 6, 6, 3  # rows in a figure
REGIONS, CODES = "decision_regions", "codes"  # figures of the models; `litlab fit` saves them under the same names
COMPARISONS = "comparisons"  # the MLflow experiment
DPI = 150


def draw_figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Draw all figures that suit a comparison.

    Returns:
        The figures by name; those with nothing to show are left out.
    """
    rows = dict(zip(row_labels(comparison), comparison.rows, strict=True))
    figures = {"learning_curves": _learning_curves(rows)}
    names = short_names(comparison.columns)
    for key in keys_to_plot(comparison):
        name = re.sub(r"\W+", "_", names.get(key, key.rpartition(".")[2]))
        figures[f"against_{name}"] = plot_metric_vs_param(comparison, key)
    figures["against_cost"] = plot_metric_vs_cost(comparison)
    figures |= _model_figures(rows)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _learning_curves(rows: Mapping[str, Row]) -> "Figure | None":
    """Draw the first rows that were trained epoch by epoch, unlike scikit-learn's baselines."""
    logged = {f"{split}/{kind}" for split in ("train", "val") for kind in KINDS}
    trained = {
        label: row.runs
        for label, row in rows.items()
        if any(SELECTED_EPOCH in run.metrics and logged & set(run.metrics) for run in row.runs)
    }
    return plot_learning_curves(dict(islice(trained.items(), MAX_CURVES))) if trained else None


def _model_figures(rows: Mapping[str, Row]) -> dict[str, "Figure | None"]:
    """Draw what the trained models do; torch is imported only if there is something to draw."""
    regions, codes = _rows_with_regions(rows), _rows_with_codes(rows)
    if not regions and not codes:
        return {}
    from pipelines.comparison import model_plots

    figures: dict[str, Figure | None] = {}
    for name, plot, chosen in (
        (REGIONS, model_plots.plot_decision_regions, regions),
        (CODES, model_plots.plot_codes, codes),
    ):
        try:
            figures[name] = plot(chosen) if chosen else None
        except UserError as error:  # the data or a checkpoint are not there any more
            logger.info(f"note: no figure {name}: {error}")
    return figures


def _rows_with_regions(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows of classifiers of points in a plane: their runs saved a figure of decision regions.

    That depends on the data alone, so one run for each class of data is asked, another one if that cannot be read.
    """
    is_plane: dict[str, bool | None] = {}
    tested = (
        (label, row)
        for label, row in rows.items()
        if SELECTED_EPOCH in row.runs[0].metrics and any(key.startswith("test/") for key in row.runs[0].metrics)
    )
    chosen: dict[str, Row] = {}
    for label, row in tested:
        data = row.runs[0].configuration.get("data", "")
        if is_plane.get(data) is None:
            is_plane[data] = _has_figure(row.runs[0], REGIONS)
        if is_plane[data]:
            chosen[label] = row
        if len(chosen) == MAX_REGIONS:
            break
    return chosen


def _rows_with_codes(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows of autoencoders with two numbers per code: their runs saved a figure of codes."""
    coders = (
        (label, row)
        for label, row in rows.items()
        if {SELECTED_EPOCH, "test/knn_acc"} <= set(row.runs[0].metrics) and _has_figure(row.runs[0], CODES)
    )
    return dict(islice(coders, MAX_CODES))


def _has_figure(run: StoredRun, name: str) -> bool | None:
    """Return whether a run saved a figure; None, and print a note, if that is unknown."""
    try:
        return name in {PurePosixPath(path).stem for path in saved_figures(run)}
    except UserError as error:
        logger.info(f"note: no figure {name} of run {run.run_id}: {error}")
        return None


def saved_figures(run: StoredRun) -> list[str]:
    """Return the paths of the figures that a run saved, such as "figures/codes.png".

    Raises:
        UserError: The store cannot list them.
    """
    from mlflow.exceptions import MlflowException

    try:
        return sorted(entry.path for entry in run.store.client.list_artifacts(run.run_id, "figures"))
    except (MlflowException, OSError) as error:
        raise UserError(first_line(error)) from error


def save_figures(figures: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    """Save each figure as NAME.png and NAME.svg.

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
    """Save an SVG file that can be inlined beside others: its ids start with its name, its text is outlines."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
        figure.savefig(path, dpi=DPI, metadata={"Date": None})
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{path.stem}-", path.read_text())
    path.write_text(text)


def log_comparison(comparison: Comparison, figures: Mapping[str, "Figure"], folder: Path, command: str) -> str:
    """Save the figures, and log them with the table as a run of the MLflow experiment "comparisons".

    Args:
        comparison: The rows.
        figures: The figures by name.
        folder: Where the figures are saved; the run gets copies.
        command: The command that made the comparison.

    Returns:
        The run id.

    Raises:
        UserError: The folder cannot be written to, or the tracking store refuses the run.
    """
    paths = save_figures(figures, folder)
    selected = " ".join(comparison.selection.names) or "all runs"
    tags = summary_tags("comparison", command, "litlab compare")
    run = Run(comparison.rows[0].runs[0].store, COMPARISONS, f"compare {selected}"[:200], tags)
    with recorded(run):
        copies = run.folder / "figures"
        copies.mkdir(exist_ok=True)
        for path in paths:
            shutil.copyfile(path, copies / path.name)
        save_note(run, _note(comparison), "comparison.md")
    return run.run_id


def _note(comparison: Comparison) -> str:
    """Return the table and the run ids of each row, in Markdown."""
    runs = [
        f"- {label}: {' '.join(run.run_id for run in row.runs)}"
        for label, row in zip(row_labels(comparison), comparison.rows, strict=True)
    ]
    return "\n".join([as_markdown(comparison).strip(), "", "Runs:", "", *runs, ""])
