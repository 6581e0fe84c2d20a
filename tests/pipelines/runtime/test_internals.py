"""The undocumented parts of libraries that litlab uses still exist. If one is missing, its file says what it is for."""

import inspect
import pkgutil
import re
import sqlite3
from contextlib import closing
from importlib.metadata import version
from operator import attrgetter

import optuna
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from modules.lightning_internals import HOOK_NAME
from pipelines.runtime.lightning_internals import hide_search_bar, set_callback_metrics
from pipelines.tracking.mlflow_internals import LOCATIONS, database_engine, follow_moved_artifacts, system_monitors
from pipelines.tracking.store import Store
from sweeps.search.optuna_internals import has_notes, queued_params

TRAINER_PARTS = [
    "_logger_connector._first_loop_iter",
    "_checkpoint_connector.dump_checkpoint",
    "fit_loop.load_state_dict",
    "fit_loop.on_iteration_done",
    "fit_loop.restarting",
    "fit_loop.epoch_progress.total.completed",
    "fit_loop.epoch_progress.current.load_state_dict",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop.on_iteration_done",
    "fit_loop.epoch_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.scheduler_progress.current",
    "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total",
    "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad.current",
    "fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.val_loop.on_iteration_done",
]
MLFLOW = "pipelines/tracking/mlflow_internals.py"
MULTIPROCESSING = "sweeps/workers/multiprocessing_internals.py"
LIGHTNING = "pipelines/runtime/lightning_internals.py"
MODULE_PARTS = {
    "lightning.pytorch.loggers.utilities:_log_hyperparams.__code__": LIGHTNING,
    "lightning.pytorch.loops.optimization.automatic:Closure.closure": "modules/lightning_internals.py",
    "lightning.pytorch.loops.optimization.automatic:ClosureResult": "modules/lightning_internals.py",
    "torch.nn:BatchNorm2d._check_input_dim": "modules/torch_internals.py",
    "torch:ops.aten.mkldnn_rnn_layer": "modules/torch_internals.py",
    "torch:ops.aten._trilinear": "modules/torch_internals.py",
    "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore": MLFLOW,
    "mlflow.store.db.utils:_logger": MLFLOW,
    "mlflow.store.tracking.dbmodels.models:SqlRun.end_time": MLFLOW,
    "mlflow.store.tracking.dbmodels.models:SqlParam.run_uuid": MLFLOW,
    "mlflow.store.tracking.dbmodels.models:SqlLatestMetric.key": MLFLOW,
    "mlflow.store.tracking.dbmodels.models:SqlTag.value": MLFLOW,
    "mlflow.store.artifact.artifact_repository_registry:get_artifact_repository": MLFLOW,
    "mlflow.store.artifact.artifact_repo:ArtifactRepository.delete_artifacts": MLFLOW,
    "multiprocessing.forkserver:ensure_running": MULTIPROCESSING,
    "multiprocessing.util:get_temp_dir": MULTIPROCESSING,
}


@pytest.mark.parametrize("part", TRAINER_PARTS)
def test_lightnings_trainer_has(part, make_trainer):
    try:
        attrgetter(part)(make_trainer())
    except AttributeError as error:
        file = "pipelines/runtime/lightning_internals.py"
        pytest.fail(f"the trainer of Lightning {version('lightning')} has no {part} ({error}): change {file}")


def test_a_lightning_module_has_the_attribute_that_is_set_fast():
    assert HOOK_NAME in vars(LightningModule()), (
        "Lightning sets another attribute: change modules/lightning_internals.py"
    )


def test_callbacks_see_metrics_that_were_not_logged_in_lightnings_loop(make_trainer):
    trainer = make_trainer()
    set_callback_metrics(trainer, {"val/acc": torch.tensor(0.5)})
    assert trainer.callback_metrics["val/acc"] == 0.5


def test_the_search_for_a_learning_rate_has_the_attribute_that_hides_its_bar(make_trainer):
    class Search(Callback):
        progress_bar_refresh_rate = 1

    trainer = make_trainer(callbacks=[Search(), Callback()])
    hide_search_bar(trainer)
    assert [getattr(callback, "progress_bar_refresh_rate", None) for callback in trainer.callbacks] == [0, None]
    source = inspect.getsource(pkgutil.resolve_name("lightning.pytorch.tuner.lr_finder"))
    assert "if self.progress_bar_refresh_rate and" in source, f"change {LIGHTNING}"


def test_a_queued_trial_of_optuna_has_its_params():
    study = optuna.create_study()
    study.enqueue_trial({"x": 1})
    (trial,) = study.trials
    assert queued_params(trial) == {"x": 1}, (
        f"Optuna {optuna.__version__} keeps them elsewhere: change sweeps/search/optuna_internals.py"
    )


def test_the_system_attributes_of_a_study_can_be_read_where_the_dashboard_keeps_notes():
    study = optuna.create_study(study_name="s")
    assert not has_notes(study)
    storage = study._storage
    storage.set_study_system_attr(storage.get_study_id_from_name("s"), "dashboard:note_str:0", "mine")
    assert has_notes(study)


@pytest.mark.parametrize("part", MODULE_PARTS)
def test_a_library_has(part):
    try:
        pkgutil.resolve_name(part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"there is no {part} any more ({error}): change {MODULE_PARTS[part]}")


def test_the_client_of_a_database_has_its_engine(uri, tables):
    engine = database_engine(Store(uri).client)
    with engine.connect() as connection:
        assert connection.dialect.name == "sqlite", f"change {MLFLOW}"


def test_mlflow_has_monitors_of_the_machine():
    pytest.importorskip("psutil", reason="needs the extra `system`")
    monitors, _ = system_monitors()
    for monitor in monitors:
        monitor.collect_metrics()
        assert all(isinstance(value, int | float) for value in monitor.aggregate_metrics().values()), f"change {MLFLOW}"
        monitor.clear_metrics()
        assert not monitor.metrics, f"change {MLFLOW}"


def test_mlflow_keeps_paths_of_artifacts_in_these_columns(empty_store):
    with closing(sqlite3.connect(empty_store)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")}
    kept = {(table, column) for table, column in columns if re.search("artifact|location", column)}
    unused = {("workspaces", "default_artifact_root"), ("workspaces", "trace_archival_location")}
    assert kept - unused == set(LOCATIONS) - {("model_versions", "source")}
    assert set(LOCATIONS) <= columns


def test_mlflow_finds_local_artifacts_where_a_moved_project_has_them(tmp_path):
    follow_moved_artifacts()
    (tmp_path / "mlartifacts" / "e").mkdir(parents=True)
    for uri, expected in [
        ("file:///gone/mlartifacts/e", tmp_path / "mlartifacts/e"),
        ("/gone/mlartifacts/e", tmp_path / "mlartifacts/e"),
        ("file:///gone/e", "/gone/e"),
    ]:
        assert get_artifact_repository(uri, f"sqlite:///{tmp_path}/mlflow.db").artifact_dir == str(expected)
    assert get_artifact_repository("file:///gone/mlartifacts/e").artifact_dir == "/gone/mlartifacts/e"
