"""The study's own MLflow run: search space, progress, results, figures and note."""

import contextlib
import json
import statistics
from collections.abc import Mapping
from typing import Any

from pipelines.comparison.formatting import markdown_table
from pipelines.reporting.parent_runs import confirmation_table
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.tracking.deleted import RunDeletedError
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.summary_runs import save_note, summary_tags
from pipelines.tracking.tags import (
    BEST,
    BEST_RUN_TAG,
    BEST_TRIAL_TAG,
    CONFIRMED,
    CONTROLLER_TAG,
    DEFAULT,
    DIRECTION_PARAM,
    IMPORTANCE,
    METRIC_PARAM,
    MODE_TAG,
    MONITOR_TAG,
    NOTE_TAG,
    SEEDS_PARAM,
    SELECTED,
    SET_PARAM,
    SPACE_PARAM,
    STUDY_TAG,
    SWEEP_SUFFIX,
    TRIAL_TAG,
    TRIALS,
    VERDICT_TAG,
)
from sweeps.search.figures import study_figures
from sweeps.search.space import Space, split_keys
from sweeps.search.study import PARENT, Study, previous_runs
from sweeps.search.trial_state import count_states
from sweeps.search.verdict import Confirmed, judge_confirmation

PREFIXES = {"best": "", "default": f"{DEFAULT}/"}  # of their metrics


def open_parent(store: Store, study: Study, command: str) -> Run:
    """Set the study's run to RUNNING again, or create one with this command."""
    for run_id in previous_runs(study.optuna):
        _end_previous(store, run_id)
    if existing := study.optuna.user_attrs.get(PARENT):
        try:
            return Run.reopen(store.find(existing))
        except RunDeletedError as error:
            raise UserError(f"the run of study {study.name}: {error}, or sweep with --study OTHER") from error
        except UserError:  # it is in another store
            pass
    tags = summary_tags("sweep", command, f"litlab sweep {study.name}")
    tags |= {STUDY_TAG: study.name, NOTE_TAG: study.space.description}
    run = Run(store, _experiment_name(store, study.name), f"sweep {study.name}", tags)
    study.optuna.set_user_attr(PARENT, run.run_id)
    run.log_params(_params(study.space))
    return run


def _experiment_name(store: Store, study: str) -> str:
    """Return the name of a new study's MLflow experiment: STUDY-sweep, or STUDY if it ends so and has no other runs.

    Raises:
        UserError: The experiment is that of a study whose name ends so.
    """
    name = study if study.endswith(SWEEP_SUFFIX) else f"{study}{SWEEP_SUFFIX}"
    ids = [number for number, known in store.experiment_names().items() if known == name]
    others = [run for run in store.search(ids, "") if run.tags.get(STUDY_TAG) != study]
    if others and name == study:
        return f"{study}{SWEEP_SUFFIX}"
    if any(run.tags.get(STUDY_TAG) == name for run in others):
        raise UserError(f"study {study}: its MLflow experiment would be {name}, which study {name} has: --study OTHER")
    return name


def _params(space: Space) -> dict[str, Any]:
    keys = {f"{SPACE_PARAM}.{key}": values for name, values in space.space.items() for key in split_keys(name)}
    settings = {
        "experiment": space.experiment,
        METRIC_PARAM: space.metric,
        DIRECTION_PARAM: space.direction,
        SEEDS_PARAM: space.seeds,
    }
    return {**keys, **settings, **{f"{SET_PARAM}.{key}": value for key, value in space.set.items()}}


def _end_previous(store: Store, run_id: str) -> None:
    """End the runs of a study that was restarted with another space."""
    with contextlib.suppress(UserError):  # they are in another store
        own = [run for run in store.children(run_id) if CONTROLLER_TAG in run.tags]
        for run in [*own, store.find(run_id)]:
            store.end(run.run_id, "KILLED", "the study was restarted with another space")


def log_progress(run: Run, study: Study) -> None:
    """Log how many trials have ended in which state, and the best value, with the number of ended trials as step."""
    counts, best = count_states(study.counted()), study.best()
    metrics = {f"{TRIALS}/{state}": float(number) for state, number in counts.items()}
    if best is not None:
        metrics[f"{BEST}/{study.space.metric}"] = best.value
    run.log_metrics(metrics, sum(counts.values()))


def log_summary(run: Run, study: Study, confirmed: Confirmed) -> None:
    """Log the results of a finished or interrupted study: metrics, trials, figures, note."""
    (run.folder / "space.json").write_text(json.dumps(study.space.settings_given(), indent=2))
    trials = study.optuna.trials_dataframe().rename(columns={f"value_{study.space.metric}": "value"})
    (run.folder / "trials.csv").write_text(trials.to_csv(index=False))
    importances = _importances(study)
    run.log_metrics({f"{IMPORTANCE}/{key}": value for key, value in importances.items()}, study.n_finished())
    run.log_metrics(confirmed_metrics(confirmed), study.n_finished())
    if verdict := judge_confirmation(confirmed, study.space):
        run.set_tags({VERDICT_TAG: verdict})
    for name, figure in study_figures(study.without_others(), study.space.metric, importances).items():
        try:
            run.save_figure(name, figure)
        except (ValueError, ArithmeticError, RuntimeError) as error:  # matplotlib's; the study itself is complete
            logger.warning("figure %s cannot be drawn: %s", name, error)
    save_note(run, study_note(study, confirmed, importances))


def copy_best(run: Run, best: StoredRun, *, with_checkpoint: bool) -> None:
    """Copy the best trial's configuration and checkpoint, so that `litlab validate PARENT_RUN_ID` works."""
    for name in ("config.yaml", *(["checkpoints/best.ckpt"] if with_checkpoint else [])):
        target = run.folder / name
        target.parent.mkdir(exist_ok=True)
        try:
            target.write_bytes(best.file(name).read_bytes())
        except UserError as error:  # a user has deleted it
            logger.warning("%s", error)
    selected = {key: value for key, value in best.metrics.items() if key.startswith(f"{SELECTED}/")}
    run.log_metrics(selected, int(best.tags[TRIAL_TAG]))
    monitor = {key: best.tags[key] for key in (MONITOR_TAG, MODE_TAG) if key in best.tags}
    run.set_tags({BEST_RUN_TAG: best.run_id, BEST_TRIAL_TAG: best.tags[TRIAL_TAG], **monitor})


def _importances(study: Study) -> dict[str, float]:
    """Return how much each key explains of the differences (Optuna's PED-ANOVA); empty if there are too few trials."""
    import optuna

    own = study.without_others()
    complete = [trial for trial in own.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(study.distributions) < 2 or len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    try:
        return {key: float(value) for key, value in optuna.importance.get_param_importances(own).items()}
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def confirmed_metrics(confirmed: Confirmed) -> dict[str, float]:
    """Return mean and standard deviation of each test metric, of the best configuration and of the experiment's own.

    Those of the experiment's own have the prefix `default/`.
    """
    metrics: dict[str, float] = {}
    for label, runs in confirmed.items():
        prefix = PREFIXES[label]
        for key in sorted({key for run in runs for key in test_metrics(run.metrics, run.tags)}):
            values = [run.metrics[key] for run in runs if key in run.metrics]
            metrics[prefix + key] = statistics.mean(values)
            if len(values) > 1:
                metrics[f"{prefix}{key}_std"] = statistics.stdev(values)
        metrics[f"{prefix}{CONFIRMED}"] = len(runs)
    return metrics


def confirmed_lines(confirmed: Confirmed) -> list[str]:
    """Return the result of the confirmation, one line per configuration."""
    if not confirmed:
        return []
    (_, *keys, _), *rows = confirmation_table(confirmed_metrics(confirmed), missing="none")
    lines = []
    for label, *cells, n in rows:
        shown = "  ".join(f"{key} {cell}" for key, cell in zip(keys, cells, strict=True)) or "none finished"
        lines.append(f"{label}: {shown}  (n = {n})")
    return lines


def study_note(study: Study, confirmed: Confirmed, importances: Mapping[str, float]) -> str:
    """Return the study's note: progress, best value, confirmation, and the best trial's params with importances."""
    counts, best = count_states(study.counted()), study.best()
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    progress = f"{sum(counts.values())} of {study.space.total} trials ({states or 'none has ended'})"
    if best is None:
        return f"{progress}.\n\n{study.space.description}".rstrip() + "\n"
    verdict = judge_confirmation(confirmed, study.space)
    parts = [
        f"{progress}. " + (f"On fresh seeds, the best configuration is **{verdict}**. " if verdict else "") + "Best "
        f"single trial: {study.space.metric} {best.value:.4f}, trial {best.trial}, the best of {counts['complete']}, "
        "so partly chance; the runs on fresh seeds are a better estimate."
    ]
    if any(confirmed.values()):
        parts.append(markdown_table(confirmation_table(confirmed_metrics(confirmed), missing="none")))
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in best.params.items()}
    table = [["key", "value", "importance"]]
    table += [[key, text, f"{importances.get(key, 0.0):.2f}"] for key, text in shown.items()]
    columns = slice(None if importances else 2)
    parts += [f"Trial {best.trial}:", markdown_table([row[columns] for row in table]), study.space.description]
    return "\n\n".join(filter(None, parts)) + "\n"
