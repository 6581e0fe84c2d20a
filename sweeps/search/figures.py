"""The figures of a study: Optuna's own, and the configurations with the spread between their seeds."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sweeps.search.study import seed_values
from sweeps.workers.display import format_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial


SHOWN = 20  # configurations in one figure


def of_study(study: "Study", metric: str) -> "dict[str, Figure]":
    """Figures by name; those that the trials are too few for are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if not complete:
        return {}
    wanted: dict[str, Callable[..., Any]] = {"history": draw.plot_optimization_history, "slice": draw.plot_slice}
    if len(study.best_params) > 1:
        wanted["parallel_coordinate"] = draw.plot_parallel_coordinate
    if len(study.best_params) > 1 and len({trial.value for trial in complete}) > 1 and len(complete) > 3:
        wanted["importance"] = draw.plot_param_importances
    drawn = {name: _drawn(plot, study, metric) for name, plot in wanted.items()}
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    return {**figures, "configurations": configurations(complete, metric, best_last=study.direction.name == "MAXIMIZE")}


def _drawn(plot: Callable[..., Any], study: "Study", metric: str) -> "Figure | None":
    import numpy as np
    from matplotlib import pyplot

    names = {} if plot.__name__ == "plot_param_importances" else {"target_name": metric}
    with warnings.catch_warnings(), pyplot.rc_context():  # Optuna changes the style of all figures
        warnings.simplefilter("ignore")  # each of them is experimental
        try:
            axes = np.atleast_1d(plot(study, **names))
        except (ValueError, RuntimeError):
            return None
    figure: Figure = axes.flat[0].figure
    figure.set_size_inches(max(7, 3.5 * len(axes.flat)), 4.5)
    if plot.__name__ == "plot_parallel_coordinate":  # it has axes that no layout engine can place
        axis = axes.flat[0]
        labels = [metric, *sorted(study.best_params)]
        axis.set_xticks(axis.get_xticks(), labels, rotation=0, ha="center")
        figure.set_size_inches(3 * len(labels), 4.5)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.1)
        axis.set_facecolor("0.9")  # so that the palest lines can be seen
    else:
        figure.set_layout_engine("constrained" if len(axes.flat) > 1 else "tight")  # which one colour bar would break
    pyplot.close(figure)
    return figure


def configurations(complete: "list[FrozenTrial]", metric: str, *, best_last: bool) -> "Figure":
    """Each configuration's mean, one line each, the best on top, with a dot for each seed."""
    from matplotlib.figure import Figure

    ordered = sorted(complete, key=lambda trial: float(trial.value or 0.0), reverse=not best_last)[-SHOWN:]
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
