"""Notes of summary runs in the MLflow UI: the result in the first lines, and readable tables."""

from pathlib import Path

import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from pipelines.comparison.formatting import NO_BREAK_SPACE, markdown_table
from pipelines.reporting.parent_runs import CONFIGURATIONS
from pipelines.runtime.errors import UserError
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store, StoredRun
from sweeps.search.figures import study_figures
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.search.study_run import log_summary, open_parent, study_note
from sweeps.seeds.summary import format_test_metrics

SPACE = {"model.dropout": {"low": 0.0, "high": 0.7}, "data.batch_size": [16, 32]}


@pytest.fixture
def runs(uri: str) -> list[StoredRun]:
    """Two finished runs of one configuration."""
    store = Store(uri)
    experiment = store.experiment_id("noted")
    for seed, acc in enumerate((0.9, 0.8)):
        tags = {"seed": str(seed), "litlab.config_hash": "same", "litlab.experiment": "noted"}
        run_id = store.client.create_run(experiment, tags=tags).info.run_id
        store.client.log_metric(run_id, "test/acc", acc)
        store.client.log_metric(run_id, "selected/val/loss", 0.25)
        store.client.set_terminated(run_id)
    return sorted(find_runs(store, ["noted"]).runs, key=lambda run: run.seed)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of three trials, none of which has started."""
    space = Space("s", "e", SPACE, "What for.", metric="val/loss", direction="minimize", sampler="random", trials=3)
    facts = {"values": {}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 9}
    return open_study(open_storage(str(tmp_path / "journal")), "s", space, facts, "host:1:1")


def finish(study: Study) -> None:
    while trial := study.ask():
        study.optuna.tell(trial, 0.1 + trial.number)


def test_the_summary_line_of_runs_has_mean_and_standard_deviation_of_the_test_metrics(runs):
    assert format_test_metrics(runs) == "test/acc 0.8500 ± 0.0707"
    assert format_test_metrics(runs[:1]) == "test/acc 0.9000"
    assert format_test_metrics([]) == ""


def test_a_study_whose_run_was_deleted_says_so_instead_of_beginning_another(study, uri):
    store = Store(uri)
    run = open_parent(store, study, "litlab sweep s")
    run.finish("KILLED")
    store.client.delete_run(run.run_id)
    with pytest.raises(UserError, match=f"study s: run {run.run_id} was deleted: restore it with .* --study OTHER"):
        open_parent(store, study, "litlab sweep s")
    store.client.restore_run(run.run_id)
    again = open_parent(store, study, "litlab sweep s")
    again.finish("KILLED")
    assert again.run_id == run.run_id


def test_figures_and_importances_are_of_the_trials_of_litlab_whatever_keys_others_have(study, uri):
    finish(study)
    ranges = {"other": IntDistribution(1, 9), "another": IntDistribution(1, 9), "third": IntDistribution(1, 9)}
    study.optuna.add_trial(create_trial(params=dict.fromkeys(ranges, 3), distributions=ranges, value=-9.0))
    store = Store(uri)
    run = open_parent(store, study, "litlab sweep s")
    log_summary(run, study, {"best": [], "default": []})
    run.finish("FINISHED")
    figures = {file.path for file in store.client.list_artifacts(run.run_id, "figures")}
    assert {f"figures/{name}.png" for name in ("history", "slice", "parallel_coordinate")} <= figures
    assert not any("other" in key for key in store.find(run.run_id).metrics)


def test_figures_of_a_study_of_one_trial_are_drawn(study):
    study.optuna.tell(study.ask(), 0.5)
    assert {"history", "slice", "parallel_coordinate", "configurations"} == set(study_figures(study.optuna, "val/loss"))


def test_figures_of_a_study_show_pruned_trials_as_crosses_at_their_last_value(study):
    values = {0: 0.3, 1: 0.5, 2: 0.2}
    for number, value in values.items():
        trial = study.ask()
        trial.report(2 * value, 1)
        trial.report(value, 2)
        study.optuna.tell(trial, *((None, TrialState.PRUNED) if number == 1 else (value, None)))
    figures = study_figures(study.optuna, "val/loss", {"model.dropout": 0.9, "data.batch_size": 0.1})
    drawn = {dots.get_label(): dots.get_offsets().tolist() for dots in figures["history"].axes[0].collections}
    assert drawn["complete trial"] == [[0, 0.3], [2, 0.2]]
    assert drawn["pruned trial, at its last epoch"] == [[1, 0.5]]
    assert drawn["best, trial 2"] == [[2, 0.2]]
    (so_far,) = figures["history"].axes[0].lines
    assert so_far.get_ydata().tolist() == [0.3, 0.2]
    assert [axis.get_xlabel() for axis in figures["slice"].axes] == ["model.dropout", "data.batch_size"]
    styles = [line.get_linestyle() for line in figures["parallel_coordinate"].axes[0].lines][:3]
    assert styles == ["-", ":", "-"]
    labels = [text.get_text() for text in figures["importance"].axes[0].texts]
    assert labels == ["0.10", "0.90"]


def test_column_names_are_padded_beyond_their_cells():
    """A no-break space is half as wide as a digit; the UI leaves no other gap between columns."""
    lines = [["n", "mean"], ["selected_epoch", "14.6667"], ["x", "3"]]
    header, rule, *body = markdown_table(lines).splitlines()
    for name, width in zip(header.strip("|").split("|"), (14, 7), strict=True):
        spaces = name.count(NO_BREAK_SPACE)
        assert len(name.strip(" \u00a0")) + spaces / 2 >= width + 1
    assert (rule, body) == ("|---|---|", ["| selected_epoch | 14.6667 |", "| x | 3 |"])


def test_the_note_of_a_study_starts_with_the_confirmation(study, runs):
    finish(study)
    store = Store()
    confirmed = {"best": [store.find(run.run_id) for run in runs], "default": []}
    first, table, *others = study_note(study, confirmed, {}).split("\n\n")
    assert first.startswith(
        "3 of 3 trials (3 complete). Best single trial: val/loss 0.1000, trial 0, the best of 3, so partly chance"
    )
    assert table.splitlines()[2] == f"| {CONFIGURATIONS['']} | 0.8500 ± 0.0707 | 2 |"
    assert others[-1] == "What for.\n"


def test_the_note_of_a_study_has_rounded_values_and_importances(study):
    finish(study)
    note = study_note(study, {}, {"model.dropout": 0.75, "data.batch_size": 0.25})
    best = study.best()
    assert best is not None
    assert f"| model.dropout | {best.params['model.dropout']:.4g} | 0.75 |" in note
    assert f"| data.batch_size | {best.params['data.batch_size']} | 0.25 |" in note


def test_the_note_of_a_study_without_a_result_says_so(study):
    assert study_note(study, {}, {}) == "0 of 3 trials (none has ended).\n\nWhat for.\n"
