"""The learning rates of each epoch: names of LearningRateMonitor, and not among the metrics of the model."""

import pytest
import yaml
from mlflow import MlflowClient

from pipelines.comparison.learning_curves import curve_names
from pipelines.tracking.measured import is_measured
from pipelines.tracking.store import Store
from pipelines.tracking.ui_view import _curves
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

EPOCHS = 4
MODULES = "tests.fixtures.strangers"
GROUPS = {"lr-Adam/pg1": [0.1, 0.05, 0.025, 0.0125], "lr-Adam/pg2": [0.02, 0.01, 0.005, 0.0025]}

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def experiment(tmp_path):
    """A YAML file of a stranger's experiment."""
    path = tmp_path / "strange.yaml"
    trainer = {"max_epochs": EPOCHS, "accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False}
    path.write_text(
        yaml.safe_dump({"data": f"{MODULES}.loggers.Data", "model": f"{MODULES}.schedules.Groups", "trainer": trainer})
    )
    return path


def rates(run_id: str, uri: str) -> dict[str, list[float]]:
    """Return the values of each learning rate; each has the epoch as x axis."""
    client = MlflowClient(uri)
    others = ("train", "val", "test", "selected", "fit_seconds", "parameters")
    found = {}
    for name in client.get_run(run_id).data.metrics:
        if not name.startswith(others):
            points = client.get_metric_history(run_id, name)
            assert [point.step for point in points] == list(range(EPOCHS))
            found[name] = [pytest.approx(point.value) for point in points]
    return found


def test_each_group_of_parameters_has_the_rate_of_each_epoch(experiment, uri):
    assert rates(fit(experiment).run_id, uri) == GROUPS


def test_rates_are_not_metrics_of_the_model(experiment, uri):
    result = fit(experiment)
    run = Store(uri).find(result.run_id)
    assert not [name for name in run.metrics if "selected/lr" in name]
    assert not [name for name in result.metrics if "lr-" in name]
    assert not is_measured("lr-Adam/pg1")
    assert not [name for curve in _curves([run]) for name in curve if "lr-" in name]
    assert not [name for name in curve_names(run.metrics).values() if "lr-" in name]


def test_several_optimizers_in_manual_optimization(experiment, uri):
    run_id = fit(experiment, overrides=["--model", f"{MODULES}.schedules.Manual"]).run_id
    assert rates(run_id, uri) == {
        "rate of the last layer": [0.1, 0.05, pytest.approx(0.1 / 3), 0.025],
        "lr-Adam": [0.01] * EPOCHS,
    }


def test_without_a_schedule_nothing_is_logged(experiment, uri):
    assert rates(fit(experiment, overrides=["--model", f"{MODULES}.loggers.Plain"]).run_id, uri) == {}


def test_groups_with_equal_names_are_trained_without_rates(experiment, uri):
    assert rates(fit(experiment, overrides=["--model", f"{MODULES}.schedules.EqualNames"]).run_id, uri) == {}


def test_a_monitor_of_the_user_logs_instead(experiment, uri):
    overrides = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"]
    run_id = fit(experiment, overrides=overrides).run_id
    steps = [point.step for point in MlflowClient(uri).get_metric_history(run_id, "lr-Adam/pg1")]
    assert steps == list(range(4 * EPOCHS))


def test_a_resumed_run_has_each_rate_once(experiment, uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailedError) as failed:
        fit(experiment, overrides=["--model", f"{MODULES}.schedules.Fails"])
    (tmp_path / "repaired").touch()
    assert resume(failed.value.run_id) is not None
    assert rates(failed.value.run_id, uri) == GROUPS
