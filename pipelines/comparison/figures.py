"""Draw the figures of a comparison, save them, and log them as an MLflow run. All can be read in black and white."""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from pipelines.comparison.export import as_markdown
from pipelines.comparison.learning_curves import curve_names, plot_learning_curves
from pipelines.comparison.metric_plots import keys_to_plot, plot_metric_vs_cost, plot_metric_vs_param, row_labels
from pipelines.comparison.row import Row
from pipelines.comparison.rows import Comparison
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.log import logger
from pipelines.runtime.outputs import check_output
from pipelines.runtime.text import first_line, short_names
from pipelines.tracking.endings import recorded
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.run import Run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.summary_runs import save_note, summary_tags
from pipelines.tracking.tags import SELECTED_EPOCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CURVES, MAX_REGIONS, MAX_CODES = 6, 6, 3  # rows in a figure
REGIONS, CODES = "decision_regions", "codes"  # figures of the models; `litlab fit` saves them under the same names
COMPARISONS = "comparisons"  # the MLflow experiment
FORMATS = ("png", "svg", "pdf")
PROGRAM = "litlab"  # that made a figure, in its metadata
MARKS = (  # of PNG, SVG and PDF
    *(f"Software\0{PROGRAM}".encode(), f"<dc:title>{PROGRAM}</dc:title>".encode(), f"/Creator ({PROGRAM})".encode()),
)


@figure_style()
def draw_figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Draw all figures that suit a comparison; of several data sets, the figures of each.

    Returns:
        The figures by name, which ends in `-DATA_SET` if there are several; those with nothing to show are left out.
    """
    figures: dict[str, Figure] = {}
    for data_set, part in comparison.by_data_set().items():
        end = f"-{re.sub(r'[^a-zA-Z0-9_]+', '_', data_set).strip('_')}" if data_set else ""
        figures |= {f"{name}{end}": figure for name, figure in _draw_part(part).items()}
    return figures


def _draw_part(comparison: Comparison) -> dict[str, "Figure"]:
    """Draw the figures of rows on one data set."""
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
    trained = {
        label: row.runs
        for label, row in rows.items()
        if any(SELECTED_EPOCH in run.metrics and curve_names(run.metrics) for run in row.runs)
    }
    return plot_learning_curves(dict(islice(trained.items(), MAX_CURVES))) if trained else None


def _model_figures(rows: Mapping[str, Row]) -> dict[str, "Figure | None"]:
    """Draw what the trained models do; torch is imported only if there is something to draw."""
    tested = {label: row for label, row in rows.items() if SELECTED_EPOCH in row.runs[0].metrics}
    points = {label: row for label, row in tested.items() if test_metrics(row.runs[0].metrics, row.runs[0].tags)}
    coders = {label: row for label, row in tested.items() if "test/knn_acc" in row.runs[0].metrics}
    chosen = {
        REGIONS: rows_that_saved(REGIONS, points, MAX_REGIONS, lambda run: run.configuration.get("data", "")),
        CODES: rows_that_saved(CODES, coders, MAX_CODES, lambda run: run.run_id),
    }
    if not any(chosen.values()):
        return {}
    from pipelines.comparison.model_plots import plot_codes, plot_decision_regions

    figures: dict[str, Figure | None] = {}
    for name, plot in ((REGIONS, plot_decision_regions), (CODES, plot_codes)):
        try:
            figures[name] = plot(chosen[name]) if chosen[name] else None
        except UserError as error:  # the data or a checkpoint are not there any more
            logger.info(f"note: no figure {name}: {error}")
    return figures


def rows_that_saved(
    name: str, rows: Mapping[str, Row], at_most: int, group: Callable[[StoredRun], str]
) -> dict[str, Row]:
    """Return the first rows whose runs saved a figure.

    Args:
        name: The figure: decision regions of classifiers of points in a plane, or codes of two numbers.
        rows: The rows by label.
        at_most: Number of rows.
        group: Runs with the same value saved the same figures: one of them is asked, another one if it cannot be read.
    """
    saved: dict[str, bool] = {}
    chosen: dict[str, Row] = {}
    for label, row in rows.items():
        run = row.runs[0]
        try:
            if group(run) not in saved:
                saved[group(run)] = name in {PurePosixPath(path).stem for path in saved_figures(run)}
        except UserError as error:
            logger.info(f"note: no figure {name} of run {run.run_id}: {error}")
            continue
        if saved[group(run)]:
            chosen[label] = row
        if len(chosen) == at_most:
            break
    return chosen


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
    """Save each figure as NAME.png, NAME.svg and NAME.pdf. No label is cut off.

    Raises:
        UserError: The folder cannot be written to.
    """
    paths = figure_paths(figures, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            with figure_style():
                figure.savefig(folder / f"{name}.png", metadata={"Software": PROGRAM}, bbox_inches="tight")
                about = {"Creator": PROGRAM, "CreationDate": None}
                figure.savefig(folder / f"{name}.pdf", metadata=about, bbox_inches="tight")
            save_svg(figure, folder / f"{name}.svg", name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    return paths


def figure_paths(figures: Iterable[str], folder: Path) -> list[Path]:
    """Return the files that `save_figures` writes."""
    return [folder / f"{name}.{suffix}" for name in figures for suffix in FORMATS]


def save_svg(figure: "Figure", target: Path | IO[str], name: str) -> None:
    """Save a figure as SVG, the same file each time, its text as outlines."""
    from matplotlib import rc_context

    with figure_style(), rc_context({"svg.hashsalt": name}):
        about = {"Date": None, "Creator": PROGRAM}
        figure.savefig(target, format="svg", metadata=about, bbox_inches="tight")


def log_comparison(comparison: Comparison, figures: Mapping[str, "Figure"], folder: Path, command: str) -> str:
    """Save the figures, and log them with the table as a run of the MLflow experiment "comparisons"; return its id.

    Args:
        comparison: The rows.
        figures: The figures by name.
        folder: Where the figures are saved; the run gets copies.
        command: The command that made the comparison.

    Raises:
        UserError: The folder cannot be written to or has another file of such a name, or the tracking store refuses
            the run.
    """
    for path in figure_paths(figures, folder):
        check_output(path, *MARKS, option="--plot")
    paths = save_figures(figures, folder)
    selected = " ".join(comparison.selection.names) or "all runs"
    tags = summary_tags("comparison", command, "litlab compare")
    run = Run(comparison.rows[0].runs[0].store, COMPARISONS, f"compare {selected}"[:200], tags)
    with recorded(run):
        copies = run.folder / "figures"
        copies.mkdir(exist_ok=True)
        for path in paths:
            shutil.copyfile(path, copies / path.name)
        labelled = zip(row_labels(comparison), comparison.rows, strict=True)
        runs = [f"- {label}: {' '.join(run.run_id for run in row.runs)}" for label, row in labelled]
        save_note(run, "\n".join([as_markdown(comparison).strip(), "", "Runs:", "", *runs, ""]), "comparison.md")
    return run.run_id
