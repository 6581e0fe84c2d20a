"""The parent run of a study: what was searched, how far it is, what came out; as figures, a table and a note."""

import contextlib
import json
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from pipelines.comparison.formatting import fixed_spec, format_mean_sd, markdown_table
from pipelines.runtime.errors import UserError
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    BEST_RUN_TAG,
    BEST_TRIAL_TAG,
    COMMAND_TAG,
    NOTE_TAG,
    PARENT_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
    STUDY_TAG,
    TRIAL_TAG,
)
from sweeps.search import figures
from sweeps.search.space import Space, keys_of
from sweeps.search.study import PARENT, Study, best_of, tally
from sweeps.workers.display import format_params

WHICH = {"best": "the best, on fresh seeds", "default": "the experiment as it is, same seeds"}
Confirmed = dict[str, list[StoredRun]]  # "best" and "default": the runs on fresh seeds


def open_parent(store: Store, study: Study, space: Space, experiment: str, command: str) -> Run:
    """The study's run: the one that it has, RUNNING again, or a new one."""
    for former in study.formers():
        _abandon(store, former)
    with study.turn():  # two controllers would make two
        known = study.optuna.user_attrs.get(PARENT)
        if known:
            try:
                return Run.reopen(store.find(known), shared=store.folder is None)
            except UserError:
                pass  # it is in another store
        tags = {
            STUDY_TAG: study.name,
            PARENT_TAG: "sweep",
            COMMAND_TAG: command,
            SOURCE_NAME_TAG: f"litlab sweep {study.name}",
            SOURCE_TYPE_TAG: "LOCAL",
            NOTE_TAG: space.description,
        }
        run = Run(store, experiment, f"sweep {study.name}", tags)
        study.optuna.set_user_attr(PARENT, run.run_id)
    run.log_params({f"space.{key}": wanted for name, wanted in space.space.items() for key in keys_of(name)})
    chosen = {key: getattr(space, key) for key in ("experiment", "metric", "direction", "seeds")}
    run.log_params({**chosen, **{f"set.{key}": value for key, value in space.set.items()}})
    return run


def _abandon(store: Store, parent: str) -> None:
    """End what is left of a study that has begun anew."""
    with contextlib.suppress(UserError):  # it is in another store
        for run in [*store.children(parent), store.find(parent)]:
            store.end(run.run_id, "KILLED", "the study began anew, with another space")


def log_progress(run: Run, study: Study) -> None:
    """Log how far the study is, against the number of trials that have ended."""
    trials = study.trials()  # once: other controllers end some meanwhile
    counted, best = tally(trials), best_of(trials, study.space.direction)
    values = {f"trials/{state}": float(number) for state, number in counted.items()}
    if best is not None and best.value is not None:
        values[f"best/{study.space.metric}"] = best.value
    run.log_metrics(values, sum(counted.values()))


def log_summary(run: Run, study: Study, confirmed: Confirmed) -> None:
    """Everything that a finished or interrupted study has to show."""
    (run.folder / "space.json").write_text(json.dumps(vars(study.space), indent=2))
    (run.folder / "trials.csv").write_text(study.optuna.trials_dataframe().to_csv(index=False))
    importances = _importances(study)
    run.log_metrics({f"importance/{key}": value for key, value in importances.items()}, study.counted())
    run.log_metrics(headline(confirmed), study.counted())
    for name, figure in figures.of_study(study.optuna, study.space.metric).items():
        try:
            run.save_figure(name, figure)
        except (ValueError, ArithmeticError, RuntimeError) as error:  # of matplotlib; the study has ended well
            print(f"litlab: figure {name} cannot be drawn: {error}", file=sys.stderr)
    note = _note(study, confirmed, importances)
    (run.folder / "note.md").write_text(note)
    run.set_tags({NOTE_TAG: note})


def keep_best(run: Run, best: StoredRun) -> None:
    """Copy the best trial's configuration and checkpoint: `litlab validate PARENT_RUN_ID` works."""
    for name in ("config.yaml", "checkpoints/best.ckpt"):
        target = run.folder / name
        target.parent.mkdir(exist_ok=True)
        try:
            target.write_bytes(best.file(name).read_bytes())
        except UserError as error:  # somebody has deleted it
            print(f"litlab: {error}", file=sys.stderr)
    selected = {key: value for key, value in best.metrics.items() if key.startswith("selected/")}
    run.log_metrics(selected, int(best.tags[TRIAL_TAG]))
    run.set_tags({BEST_RUN_TAG: best.run_id, BEST_TRIAL_TAG: best.tags[TRIAL_TAG]})


def headline(confirmed: Confirmed) -> dict[str, float]:
    """Mean and standard deviation of each test metric, of the best configuration and of the experiment's own."""
    values: dict[str, float] = {}
    for which, runs in confirmed.items():
        prefix = "" if which == "best" else f"{which}/"
        for key in sorted({key for run in runs for key in run.metrics if key.startswith("test/")}):
            measured = [run.metrics[key] for run in runs if key in run.metrics]
            values[prefix + key] = statistics.mean(measured)
            if len(measured) > 1:
                values[f"{prefix}{key}_std"] = statistics.stdev(measured)
        values[f"{prefix}confirmed"] = len(runs)
    return values


def _importances(study: Study) -> dict[str, float]:
    """How much of the differences each key explains (Optuna's PED-ANOVA); empty if too few trials can say."""
    import optuna

    complete = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
    if len(study.distributions) < 2 or len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    try:
        return {key: float(value) for key, value in optuna.importance.get_param_importances(study.optuna).items()}
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def summary(study: Study, confirmed: Confirmed) -> list[str]:
    """The result in a few lines for a terminal."""
    lines, best = [], study.best()
    if (done := study.counted()) < study.space.total:
        lines.append(f"{study.name}: {done} of {study.space.total} trials; the same command goes on")
    if best is not None and best.value is not None:
        value = f"{study.space.metric} {best.value:.4f}"
        lines.append(f"{study.name}: best {value}, trial {best.number}: {format_params(best.params)}")
    values = headline(confirmed)
    for which, runs in confirmed.items():
        prefix = "" if which == "best" else f"{which}/"
        cells = [f"{key} {_cell(values, prefix + key)}" for key in _test_metrics(values)]
        lines.append(f"{WHICH[which]}: {'  '.join(cells) or 'none finished'}  (n = {len(runs)})")
    return lines


def _test_metrics(values: Mapping[str, float]) -> list[str]:
    return sorted({key for key in values if key.startswith("test/") and not key.endswith("_std")})


def _note(study: Study, confirmed: Confirmed, importances: Mapping[str, float]) -> str:
    """The result in Markdown, as the MLflow UI shows it above the run; it folds what comes after the first lines."""
    counted, best = tally(study.trials()), study.best()
    ended = ", ".join(f"{number} {state}" for state, number in counted.items() if number)
    first = f"{sum(counted.values())} of {study.space.total} trials ({ended or 'none has ended'})"
    if best is None or best.value is None:
        return f"{first}.\n\n{study.space.description}".rstrip() + "\n"
    parts = [
        f"{first}. Best {study.space.metric} {best.value:.4f}, trial {best.number}: "
        f"the best of {counted['complete']}, so partly luck; fresh seeds say more."
    ]
    if any(confirmed.values()):
        parts.append(markdown_table(_table(confirmed)))
    parts += [f"Trial {best.number}:", markdown_table(_values(best.params, importances)), study.space.description]
    return "\n\n".join(filter(None, parts)) + "\n"


def _values(params: Mapping[str, Any], importances: Mapping[str, float]) -> list[list[str]]:
    """A line for each key, below the header."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in params.items()}
    if not importances:
        return [["key", "value"], *([key, value] for key, value in shown.items())]
    lines = [[key, value, f"{importances.get(key, 0.0):.2f}"] for key, value in shown.items()]
    return [["key", "value", "importance"], *lines]


def _table(confirmed: Confirmed) -> list[list[str]]:
    """A line for each configuration, below the header."""
    values = headline(confirmed)
    metrics = _test_metrics(values)
    lines = [["configuration", *metrics, "n"]]
    for which, runs in confirmed.items():
        prefix = "" if which == "best" else f"{which}/"
        lines.append([WHICH[which], *(_cell(values, prefix + key) for key in metrics), str(len(runs))])
    return lines


def _cell(values: Mapping[str, float], key: str) -> str:
    if key not in values:
        return "none"
    return format_mean_sd(values[key], values.get(f"{key}_std"), fixed_spec(values[key]))
