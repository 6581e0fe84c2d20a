"""Figures of a study: its history, its values against each key, its trials as lines, importances, configurations.

They can be read in black and white: complete trials are dots, pruned ones crosses at their last value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.evaluation.plots import panels
from pipelines.runtime.figure_style import COLOURS, figure_style
from sweeps.search.trial_state import seed_values
from sweeps.workers.display import format_params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial

MAX_CONFIGURATIONS = 20  # in one figure
MAX_LABEL = 24  # characters of a choice
COMPLETE, PRUNED = "complete trial", "pruned trial, at its last epoch"


@dataclass(frozen=True)
class Key:
    """A searched key as an axis.

    Attributes:
        name: Its name.
        positions: The place of each trial on the axis, by number; the logarithm on a logarithmic one.
        ticks: Places with their labels.
        is_log: Whether the axis is logarithmic.
        is_numeric: Whether the values are numbers; otherwise the places are the indices of the choices.
    """

    name: str
    positions: dict[int, float]
    ticks: dict[float, str]
    is_log: bool
    is_numeric: bool

    @classmethod
    def of(cls, name: str, trials: "Sequence[FrozenTrial]") -> "Key":
        """Return the axis of a key of some trials."""
        values = {trial.number: trial.params[name] for trial in trials if name in trial.params}
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
        if not numeric:
            texts = {number: _shorten(str(value)) for number, value in values.items()}
            places = {text: float(index) for index, text in enumerate(sorted(set(texts.values())))}
            ticks = {place: text for text, place in places.items()}
            return cls(name, {number: places[text] for number, text in texts.items()}, ticks, False, False)
        is_log = any(getattr(trial.distributions.get(name), "log", False) for trial in trials)
        known = sorted({float(value) for value in values.values()})
        shown = known if len(known) <= 4 else [known[0], known[len(known) // 2], known[-1]]
        place = math.log10 if is_log else float
        ticks = {place(value): f"{value:.3g}" for value in shown}
        return cls(name, {number: place(value) for number, value in values.items()}, ticks, is_log, True)

    def fraction(self, place: float) -> float:
        """Return where a place is between the ends of the axis, 0 to 1."""
        places = [*self.positions.values(), *self.ticks]
        low, high = min(places), max(places)
        return (place - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Results:
    """What the figures of a study show.

    Attributes:
        trials: The complete and pruned trials, by number.
        values: The value of each, by number: of a pruned trial, that of its last epoch.
        best: The best complete trial.
        metric: The objective.
        maximize: Whether higher values are better.
    """

    trials: "list[FrozenTrial]"
    values: dict[int, float]
    best: "FrozenTrial"
    metric: str
    maximize: bool


@figure_style()
def study_figures(study: "Study", metric: str, importances: Mapping[str, float] | None = None) -> "dict[str, Figure]":
    """Return figures by name, without those that need more trials than there are.

    Args:
        study: The study, with litlab's trials only.
        metric: The objective.
        importances: The share of the differences that each key explains; empty if it is unknown.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        return {}
    pruned = [trial for trial in trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    values = {trial.number: float(trial.value or 0.0) for trial in complete}
    values |= {trial.number: trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned}
    shown = sorted([*complete, *pruned], key=lambda trial: trial.number)
    maximize = study.direction.name == "MAXIMIZE"
    best = (max if maximize else min)(complete, key=lambda trial: float(trial.value or 0.0))
    results = Results(shown, values, best, metric, maximize)
    keys = [Key.of(name, shown) for name in dict.fromkeys(name for trial in shown for name in trial.params)]
    figures = {
        "history": _plot_history(results),
        "slice": _plot_slices(keys, results),
    }
    if len(keys) > 1:
        figures["parallel_coordinate"] = _plot_parallel(keys, results)
    if importances:
        figures["importance"] = _plot_importances(importances)
    return {**figures, "configurations": plot_configurations(complete, metric, maximize=maximize)}


def _shorten(text: str) -> str:
    text = text.rpartition(".")[2] if text.replace(".", "").isidentifier() else text
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 4]} ..."


def _scatter(axis: "Axes", x: Mapping[int, float], results: Results) -> None:
    """Draw complete trials as dots, pruned ones as crosses, and the best as a star."""
    y, best = results.values, results.best
    for state, marker, colour, label in (
        ("COMPLETE", "o", COLOURS[0], COMPLETE),
        ("PRUNED", "x", COLOURS[1], PRUNED),
    ):
        numbers = [trial.number for trial in results.trials if trial.state.name == state and trial.number in x]
        if numbers:
            across, up = [x[number] for number in numbers], [y[number] for number in numbers]
            axis.scatter(across, up, s=26, marker=marker, color=colour, alpha=0.75, label=label)
    if best.number in x:
        label = f"best, trial {best.number}"
        axis.scatter(x[best.number], y[best.number], s=130, marker="*", color="black", zorder=4, label=label)
    axis.grid()


def _plot_history(results: Results) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, (axis,) = panels(1, size=(7, 4.2))
    _scatter(axis, {number: float(number) for number in results.values}, results)
    complete = [trial.number for trial in results.trials if trial.state.name == "COMPLETE"]
    so_far = [
        (max if results.maximize else min)(results.values[number] for number in complete[: end + 1])
        for end in range(len(complete))
    ]
    axis.step(complete, so_far, where="post", color="black", linewidth=1.2, label="best so far")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="trial", ylabel=results.metric)
    axis.legend()
    return figure


def _plot_slices(keys: Sequence[Key], results: Results) -> "Figure":
    figure, axes = panels(len(keys), 3, size=(3.3, 3.2), extra=(1.2 if len(keys) == 1 else 0, 0.4), sharey=True)
    for axis, key in zip(axes, keys, strict=True):
        places = {number: 10**place if key.is_log else place for number, place in key.positions.items()}
        if key.is_log:
            axis.set_xscale("log")
        _scatter(axis, places, results)
        if not key.is_numeric:
            axis.set_xticks(list(key.ticks), list(key.ticks.values()), rotation=30, ha="right")
            axis.set_xlim(-0.5, len(key.ticks) - 0.5)
        axis.set_xlabel(key.name)
    for axis in axes[:: min(3, len(axes))]:
        axis.set_ylabel(results.metric)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _plot_parallel(keys: Sequence[Key], results: Results) -> "Figure":
    """Draw each trial as a line through its values; better ones darker, pruned ones dotted, the best black."""
    from matplotlib import colormaps

    values, best = results.values, results.best
    low, high = min(values.values()), max(values.values())
    ticks = {low: f"{low:.4g}", high: f"{high:.4g}"}
    axes = [Key(results.metric, values, ticks, is_log=False, is_numeric=True), *keys]
    figure, (axis,) = panels(1, size=(1.8 * len(axes) + 1.2, 4.2))
    for trial in results.trials:
        number = trial.number
        points = [(x, key.fraction(key.positions[number])) for x, key in enumerate(axes) if number in key.positions]
        height = axes[0].fraction(values[number])
        goodness = height if results.maximize else 1 - height
        is_best = number == best.number
        style = "-" if trial.state.name == "COMPLETE" else ":"
        colour = "black" if is_best else colormaps["cividis_r"](0.15 + 0.7 * goodness)
        width = 2.6 if is_best else 1.0
        axis.plot(*zip(*points, strict=True), style, color=colour, linewidth=width, zorder=3 if is_best else 2)
    for x, key in enumerate(axes):
        axis.axvline(x, color="0.4", linewidth=0.8, zorder=1)
        for place, text in key.ticks.items():
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
            axis.text(x + 0.04, key.fraction(place), text, va="center", fontsize=8, bbox=box, zorder=4)
    axis.set_xticks(range(len(axes)), [key.name.replace(".", ".\n") for key in axes])
    axis.set(yticks=[], xlim=(-0.15, len(axes) - 0.5), ylim=(-0.05, 1.05))
    axis.set_title(f"thick black: trial {best.number}, the best; darker lines are better, dotted ones were pruned")
    for side in ("left", "right", "top", "bottom"):
        axis.spines[side].set_visible(False)
    return figure


def _plot_importances(importances: Mapping[str, float]) -> "Figure":
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure, (axis,) = panels(1, size=(7, 1.1 + 0.4 * len(ordered)))
    bars = axis.barh([key for key, _ in ordered], [value for _, value in ordered], color=COLOURS[0])
    axis.bar_label(bars, [f"{value:.2f}" for _, value in ordered], padding=3)
    axis.set(xlabel="share of the differences between trials (PED-ANOVA)", xlim=(0, 1.1 * ordered[-1][1] or 1))
    return figure


@figure_style()
def plot_configurations(complete: "list[FrozenTrial]", metric: str, *, maximize: bool) -> "Figure":
    """Plot the best configurations, one line each, the best on top: the mean, and a dot for each seed."""
    ordered = sorted(complete, key=lambda trial: float(trial.value or 0.0), reverse=not maximize)[-MAX_CONFIGURATIONS:]
    figure, (axis,) = panels(1, size=(9, 1.2 + 0.32 * len(ordered)))
    for row, trial in enumerate(ordered):
        seeds = seed_values(trial)
        axis.plot(seeds, [row] * len(seeds), "o", color="0.6", markersize=4)
        axis.plot([float(trial.value or 0.0)], [row], "D", color=COLOURS[0], markersize=6)
    labels: list[Any] = [f"{trial.number}: {format_params(trial.params)}" for trial in ordered]
    axis.set_yticks(range(len(ordered)), labels, fontsize=8)
    axis.set(xlabel=f"{metric}: mean (diamond), each seed (dot)", ylim=(-0.7, len(ordered) - 0.3))
    axis.grid()
    return figure
