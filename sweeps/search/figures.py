"""Figures of a study: Optuna's own, and the best configurations with the spread over their seeds."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sweeps.search.trial_state import seed_values
from sweeps.workers.display import format_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial

MAX_CONFIGURATIONS = 20  # in one figure


def study_figures(study: "Study", metric: str) -> "dict[str, Figure]":
    """Return figures by name, without those that need more trials than there are."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as visualization

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if not complete:
        return {}
    plots: dict[str, Callable[..., Any]] = {
        "history": visualization.plot_optimization_history,
        "slice": visualization.plot_slice,
    }
    if len(study.best_params) > 1:
        plots["parallel_coordinate"] = visualization.plot_parallel_coordinate
    if len(study.best_params) > 1 and len({trial.value for trial in complete}) > 1 and len(complete) > 3:
        plots["importance"] = visualization.plot_param_importances
    drawn = {name: _draw(plot, study, metric) for name, plot in plots.items()}
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    maximize = study.direction.name == "MAXIMIZE"
    return {**figures, "configurations": plot_configurations(complete, metric, maximize=maximize)}


def _draw(plot: Callable[..., Any], study: "Study", metric: str) -> "Figure | None":
    import numpy as np
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    names = {} if plot.__name__ == "plot_param_importances" else {"target_name": metric}
    with warnings.catch_warnings(), pyplot.rc_context():  # Optuna changes the style of all later figures
        warnings.simplefilter("ignore", ExperimentalWarning)  # litlab tests the plots that it uses
        warnings.filterwarnings("ignore", message="Attempting to set identical low and high")  # a key of one value
        try:
            axes = np.atleast_1d(plot(study, **names))
        except (ValueError, RuntimeError):
            return None
    figure: Figure = axes.flat[0].figure
    figure.set_size_inches(max(7, 3.5 * len(axes.flat)), 4.5)
    if plot.__name__ == "plot_parallel_coordinate":  # no layout engine can place its axes
        axis = axes.flat[0]
        labels = [metric, *sorted(study.best_params)]
        axis.set_xticks(axis.get_xticks(), labels, rotation=0, ha="center")
        figure.set_size_inches(3 * len(labels), 4.5)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.1)
        axis.set_facecolor("0.9")  # so that the palest lines can be seen
    else:
        figure.set_layout_engine(
            "constrained" if len(axes.flat) > 1 else "tight"
        )  # a single colour bar breaks the first
    pyplot.close(figure)
    return figure


def plot_configurations(complete: "list[FrozenTrial]", metric: str, *, maximize: bool) -> "Figure":
    """Plot the best configurations, one line each, the best on top: the mean, and a dot for each seed."""
    from matplotlib.figure import Figure

    ordered = sorted(complete, key=lambda trial: float(trial.value or 0.0), reverse=not maximize)[-MAX_CONFIGURATIONS:]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(ordered)), layout="tight")
    axis = figure.subplots()
    for row, trial in enumerate(ordered):
        seeds = seed_values(trial)
        axis.plot(seeds, [row] * len(seeds), "o", color="0.6", markersize=4)
        axis.plot([float(trial.value or 0.0)], [row], "D", color="C0", markersize=6)
    axis.set_yticks(range(len(ordered)), [format_params(trial.params) for trial in ordered], fontsize=8)
    axis.set(xlabel=f"{metric}: mean (diamond), each seed (dot)", ylim=(-0.7, len(ordered) - 0.3))
    axis.grid(alpha=0.3)
    return figure
