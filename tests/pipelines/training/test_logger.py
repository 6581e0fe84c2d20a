"""The logger of a training: MLflow's client, x axes, params, and the loggers that a user adds."""

import csv
import subprocess
import sys
import time
import warnings
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from mlflow import MlflowClient

from pipelines.commands.evaluate import main as evaluate_command
from pipelines.commands.fit import main as fit_command
from pipelines.config.cli import parse_config
from pipelines.runtime.errors import UserError
from pipelines.tracking.experiment import ExperimentClient
from pipelines.tracking.measured import metrics_after_training
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import TEST_METRICS_TAG
from pipelines.training.fit import fit
from pipelines.training.hyperparameters import new_params
from pipelines.training.logger import RunLogger
from tests.fixtures.strangers.loggers import STEPS, Data, Hello, Plain

EPOCHS = 2
ACROSS = {"val_check_interval": 3, "check_val_every_n_epoch": None}
MODULES = "tests.fixtures.strangers.loggers"

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def experiment(tmp_path):
    """A YAML file of a stranger's experiment."""
    path = tmp_path / "strange.yaml"
    trainer = {"max_epochs": EPOCHS, "accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False}
    path.write_text(yaml.safe_dump({"data": f"{MODULES}.Data", "model": f"{MODULES}.Plain", "trainer": trainer}))
    return path


@pytest.fixture
def train(experiment, uri):
    """Return a function that trains a module of `MODULES` and returns its run as MLflow has it."""

    def run(module="Plain", *overrides):
        result = fit(experiment, overrides=["--model", f"{MODULES}.{module}", *overrides])
        return MlflowClient(uri).get_run(result.run_id)

    return run


@pytest.fixture
def steps_of(uri):
    """Return a function that returns the x axis of a metric."""

    def steps(run, metric):
        return [point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]

    return steps


@pytest.fixture(autouse=True)
def own_store():
    """Have MLflow's own functions use the store of each test."""
    yield
    mlflow.set_tracking_uri(None)


def test_the_experiment_is_mlflows_client_in_training_and_test_and_a_call_that_fails_is_one_warning(train, capsys):
    run = train("Client")
    files = Path(urlparse(run.info.artifact_uri).path)
    assert run.info.status == "FINISHED"
    assert [(files / f"notes/{epoch}.txt").read_text() for epoch in range(EPOCHS)] == ["hello"] * EPOCHS
    assert (files / "tested.json").is_file()
    assert run.data.metrics["test_gap"] == 0.25
    assert capsys.readouterr().err.count("logger.experiment.log_artifact") == 1
    assert mlflow.get_tracking_uri().endswith("mlflow.db"), "mlflow.pytorch.log_model uses the same store"


def test_a_server_that_is_down_delays_few_calls(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    client = ExperimentClient("http://user:secret@127.0.0.1:9")
    assert isinstance(client, MlflowClient)
    began = time.monotonic()
    assert [client.get_run("0" * 32) for _ in range(50)] == [None] * 50
    assert time.monotonic() - began < 10
    message = capsys.readouterr().err
    assert message.count("logger.experiment.get_run") == 1
    assert "secret" not in message


def test_a_wrong_call_of_the_client_is_an_error(uri):
    client = ExperimentClient(Store(uri).uri)
    with pytest.raises(TypeError):
        client.log_text("only one argument")
    with pytest.raises(AttributeError, match="TensorBoardLogger"):
        client.add_histogram("weights", [])


def test_the_client_imports_mlflow_when_it_is_used():
    program = (
        "import sys; from pipelines.tracking.experiment import ExperimentClient\n"
        "client = ExperimentClient('http://127.0.0.1:9'); assert 'mlflow' not in sys.modules\n"
        "client.log_text; assert 'mlflow' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_on_further_devices_the_logger_does_nothing(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = RunLogger(None, None)
    logger.experiment.log_text(logger.run_id, "hello", "note.txt")
    logger.log_metrics({"loss": 1.0}, 3)
    logger.log_hyperparams({"lr": 1})
    assert (logger.run_id, logger.save_dir, logger.name) == (None, None, None)


def test_values_of_steps_have_the_step_as_x_axis_and_those_of_epochs_the_epoch(train, steps_of):
    run = train(
        "ByStepAndEpoch", "--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"
    )
    assert steps_of(run, "train/loss_step") == list(range(EPOCHS * STEPS))
    assert steps_of(run, "lr-Adam") == list(range(EPOCHS * STEPS))
    assert steps_of(run, "train/loss_epoch") == steps_of(run, "val/loss") == list(range(EPOCHS))
    assert not [name for name in run.data.metrics if name.startswith("selected/") and name.endswith("_step")]


def test_the_logging_interval_is_lightnings(train, steps_of):
    assert steps_of(train("Plain", "--trainer.log_every_n_steps=3"), "train_loss") == [2, 5]


def test_values_of_steps_that_are_never_logged_are_warned_of_and_not_for_litlabs_modules(train, uri, caplog):
    train("Plain", "--trainer.log_every_n_steps=50")
    assert f"every 50 steps (trainer.log_every_n_steps), but an epoch has {STEPS}: train_loss" in caplog.text
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit("digits-mlp", overrides=["--trainer.max_epochs=1"])
    assert "log_every_n_steps" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, [0, 1]), ({"val_check_interval": 0.5}, [1, 3, 5, 7]), (ACROSS, [2, 5])],
    ids=["at the end", "within epochs", "across epochs"],
)
def test_validations_within_epochs_have_the_step_as_x_axis(settings, steps, uri, make_trainer):
    run = Run(Store(), "strange", "within", {})
    trainer = make_trainer(max_epochs=EPOCHS, log_every_n_steps=1, **settings)
    trainer.loggers = [RunLogger(run, trainer)]
    trainer.fit(Plain(), datamodule=Data())
    run.finish("FINISHED")
    points = MlflowClient(uri).get_metric_history(run.run_id, "val_acc")
    assert [point.step for point in points] == steps
    within = steps != [0, 1]
    assert all("val_acc" not in values for _, values in run.history) == within


def test_the_selected_metrics_are_those_of_the_selected_validation_even_within_epochs(train, steps_of):
    run = train("Plain", "--trainer.val_check_interval=0.5", "--monitor=val_acc")
    assert steps_of(run, "val_acc") == [1, 3, 5, 7]
    points = MlflowClient().get_metric_history(run.info.run_id, "val_acc")
    assert run.data.metrics["selected/val_acc"] == max(point.value for point in points)
    assert "selected/train_loss" not in run.data.metrics
    run = train(
        "Plain", "--trainer.val_check_interval=0.5", "--monitor=val/loss"
    )  # the last one, at the end of an epoch
    points = MlflowClient().get_metric_history(run.info.run_id, "val/loss")
    assert run.data.metrics["selected/val/loss"] == min(point.value for point in points)


def test_only_hyperparameters_that_are_logged_explicitly_and_are_new_become_params(train, steps_of):
    run = train("Hyperparameters")
    added = {key: value for key, value in run.data.params.items() if key.partition(".")[0] not in ("trainer", "data")}
    assert added == {
        "seed_everything": "0",
        "model": f"{MODULES}.Hyperparameters",
        "model.lr": "0.05",
        "model.hidden": "8",
        "net/bias": "true",
        "my_hp": "3",
        "hidden": "9",  # another value than model.hidden
    }
    assert steps_of(run, "mine") == [77]
    assert not {"lr", "hidden"} & train("Plain").data.params.keys(), "save_hyperparameters alone adds none"


@pytest.mark.parametrize(
    ("given", "new"),
    [
        ({"lr": 0.1}, {}),
        ({"lr": torch.tensor(0.5)}, {"lr": 0.5}),
        ({"model": {"hidden": 8.0}}, {}),
        ({"net": {"hidden": 8}}, {}),
        ({"sizes": (1, 2)}, {}),
        ({"decoder": {"layers": 4}}, {"decoder/layers": 4}),
        ({"flag": True, "one": True}, {"flag": True, "one": True}),
        ({"path": Path("a"), "none": None, "odd%name": 1}, {"path": "a", "odd_name": 1}),
    ],
)
def test_a_hyperparameter_that_repeats_a_key_of_the_configuration_is_no_param(given, new):
    params = {
        "model.lr": "0.1",
        "model.hidden": "8",
        "model.sizes": "[1, 2]",
        "model.encoder.layers": "4",
        "model.one": "1",
    }
    assert new_params(given, params) == new


def test_an_mlflow_logger_gives_its_settings_to_the_only_run(train, tmp_path, capsys):
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    logger = ["MLFlowLogger", "experiment_name=theirs", "run_name=named", "tags={a: b}", f"tracking_uri={other}"]
    overrides = [f"--trainer.logger={logger[0]}", *(f"--trainer.logger.{item}" for item in logger[1:])]
    with pytest.raises(mlflow.MlflowException):
        train("Hello", *overrides)  # the run is in the other store
    client = MlflowClient(other)
    (run,) = client.search_runs([client.get_experiment_by_name("theirs").experiment_id])
    assert (run.info.run_name, run.data.tags["a"], run.info.status) == ("named", "b", "FINISHED")
    assert not [key for key in run.data.params if key.startswith("trainer.logger")]
    assert Hello.seen == ["RunLogger"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "trainer.logger" in line]
    assert "experiment_name, run_name, tags, tracking_uri" in line


def test_options_of_the_command_line_win_over_an_mlflow_logger(experiment, uri):
    logger = ["--trainer.logger=MLFlowLogger", "--trainer.logger.experiment_name=theirs"]
    uris = [f"--tracking_uri={uri}", "--trainer.logger.tracking_uri=http://user:secret@host"]
    cli = parse_config("fit", [str(experiment), "--name=mine", *logger, *uris])
    assert (cli.config.name, cli.config.tracking_uri) == ("mine", uri)
    assert "secret" not in str(cli.resolved())


def test_a_folder_of_mlflow_is_ignored_with_a_note(experiment):
    cli = parse_config(
        "fit", [str(experiment), "--trainer.logger=MLFlowLogger", "--trainer.logger.tracking_uri=file:./mlruns"]
    )
    assert cli.config.tracking_uri is None
    assert "tracking_uri file:./mlruns is ignored" in cli.mlflow.note


def test_other_loggers_are_kept_and_get_metrics_and_hyperparameters(train, steps_of, tmp_path):
    run = train("Hello", "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}")
    assert Hello.seen == ["RunLogger", "CSVLogger"], "self.logger.experiment is MLflow's client"
    (metrics,) = (tmp_path / "csv").rglob("metrics.csv")
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train_loss"] for row in rows if row["train_loss"]]
    assert [row["test_acc"] for row in rows if row["test_acc"]], "the test too"
    assert yaml.safe_load(metrics.with_name("hparams.yaml").read_text()) == {"lr": 0.05, "hidden": 8}
    assert steps_of(run, "val_acc") == list(range(EPOCHS))
    assert not [key for key in run.data.params if "logger" in key], "the same configuration as without it"


def test_an_mlflow_logger_in_a_list_keeps_its_place(train, experiment, tmp_path):
    others = [{"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path)}}, {"class_path": f"{MODULES}.Board"}]
    config = yaml.safe_load(experiment.read_text())
    config["trainer"]["logger"] = [others[0], {"class_path": "MLFlowLogger"}, others[1]]
    experiment.write_text(yaml.safe_dump(config))
    train("Hello")
    assert Hello.seen == ["CSVLogger", "RunLogger", "Board"]


def test_a_users_own_logger_is_the_first(train):
    train("Hello", f"--trainer.logger={MODULES}.Board")
    assert Hello.seen == ["Board", "RunLogger"], "self.logger is the user's, as in Lightning"


@pytest.mark.filterwarnings("ignore:Starting from v1.9.0, .tensorboardX")  # if it is missing, CSV is the default
def test_lightnings_default_logger_is_kept(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("Hello", "--trainer.logger=true")
    assert Hello.seen == ["RunLogger", "CSVLogger"]
    assert list(tmp_path.glob("lightning_logs/*/metrics.csv"))
    train("Hello", "--trainer.logger=false")
    assert Hello.seen == ["RunLogger"]


def test_a_logger_that_cannot_be_built_is_an_error_that_names_it(train):
    with pytest.raises((UserError, RuntimeError), match=r"trainer\.logger"):
        train("Plain", "--trainer.logger=CometLogger")


def test_a_logger_changes_neither_the_hash_nor_the_rows_of_a_configuration(train):
    plain, logged = train("Plain"), train("Plain", "--trainer.logger=false")
    assert plain.data.tags["litlab.config_hash"] == logged.data.tags["litlab.config_hash"]
    assert plain.data.params == logged.data.params


def test_what_the_test_measures_is_found_whatever_its_name(train, capsys):
    run = train("SameNames")
    metrics = run.data.metrics
    assert {"acc", "selected/acc", "test/acc", "iou"} <= metrics.keys()
    assert run.data.tags[TEST_METRICS_TAG] == '["iou"]'
    assert evaluate_command("test", [run.info.run_id]) == 0
    header, recorded, now = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert set(header) == {"accuracy", "iou"}
    assert recorded[1:] == now[1:]


def test_what_the_test_logged_is_told_from_what_the_training_logged():
    bookkeeping = {"selected_epoch": 1, "fit_seconds": 1, "parameters": 1, "train/loss": 1}
    assert metrics_after_training({"selected/acc": 1, "acc": 1, "iou": 1, "test_f1": 1, **bookkeeping}) == [
        "iou",
        "test_f1",
    ]
    assert metrics_after_training({"acc": 1, "test_f1": 1, **bookkeeping}) == ["test_f1"], "no epoch was selected"


def test_epoch_lines_and_results_show_metrics_with_any_names(experiment, capsys, uri):
    options = ["--trainer.enable_progress_bar=true", "--model", f"{MODULES}.SameNames"]
    assert fit_command("fit", ["-c", str(experiment), *options, "--tracking_uri", uri]) == 0
    out = capsys.readouterr().out.splitlines()
    first = next(line for line in out if line.startswith("epoch "))
    assert [word for word in first.split() if word.isidentifier() or "/" in word] == [
        "epoch",
        "acc",
        "train_loss",
        "val/loss",
    ]
    table = {line.split()[0]: line.split()[1:] for line in out if line.split()[0] in ("loss", "val", "test", "other")}
    assert set(table["loss"]) == {"accuracy", "iou"}, "the header"
    assert (len(table["test"]), len(table["other"])) == (2, 1)


def test_a_test_or_validation_alone_has_a_logger_that_does_nothing(train, capsys):
    run = train("Client")
    before = {str(path) for path in Path(urlparse(run.info.artifact_uri).path).rglob("*")}
    assert evaluate_command("test", [run.info.run_id]) == evaluate_command("validate", [run.info.run_id]) == 0
    assert {str(path) for path in Path(urlparse(run.info.artifact_uri).path).rglob("*")} == before


def test_a_dry_run_has_a_logger_that_does_nothing(experiment):
    assert fit(experiment, overrides=["--model", f"{MODULES}.Client", "--trainer.fast_dev_run=true"]) is None


def test_metrics_that_are_no_numbers_are_left_out_with_a_warning(uri, capsys):
    run = Run(Store(), "strange", "values", {})
    RunLogger(run, Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")).log_metrics(
        {"text": "x", "tensor": torch.tensor(0.5), "flag": True}
    )
    run.finish("FINISHED")
    assert MlflowClient(uri).get_run(run.run_id).data.metrics == {"tensor": 0.5, "flag": 1.0}
    assert "text is str" in capsys.readouterr().err
    assert isinstance(RunLogger(run, None), MLFlowLogger)
