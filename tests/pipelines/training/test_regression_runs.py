"""`litlab fit` of autoencoders, functions, points in the plane and a residual network, with probes."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from modules.probes import shift
from pipelines.commands.fit import main as fit
from pipelines.config.cli import parse_config

EPOCHS = 3
RUNS = {
    "autoencoder": ["--data.n_train", "300", "--model.hidden", "[32, 16]"],
    "functions-convnet": ["--data.n_train", "500", "--model.filters", "8"],
    "circles": ["--model.optimizer.lr", "0.3", "--data.evaluate_train", "true"],
    "circles-manual": ["--model.lr", "0.3"],
    "pool-average": ["--data.n_train", "300", "--model.channels", "[4]", "--model.hidden", "[8]"],
    "cifar-resnet9": ["--data.n_train", "100", "--data.batch_size", "25", "--model.width", "4"],
}
FIGURES = {
    "autoencoder": {"learning_curves", "codes", "reconstructions"},
    "functions-convnet": {"learning_curves", "estimates"},
    "circles": {"learning_curves", "confusion_matrix", "decision_regions"},
    "circles-manual": {"learning_curves", "confusion_matrix", "decision_regions"},
    "pool-average": {"learning_curves", "confusion_matrix", "confidently_wrong"},
    "cifar-resnet9": {"learning_curves", "confusion_matrix", "confidently_wrong"},
}
SHIFTS = {"changed_by_shift_1", "changed_by_shift_2"}
UNITS = {"dead_units", "dead_units_1", "dead_units_2", "distinct_units_1", "distinct_units_2"}
BOTH_PROBES = """
trainer:
  callbacks:
    - class_path: modules.probes.Shifts
    - class_path: modules.probes.Units
"""


@dataclass
class Done:
    """A finished run and its store."""

    name: str
    store: str
    run: Run

    @property
    def run_id(self) -> str:
        return self.run.info.run_id

    @property
    def folder(self) -> Path:
        return Path(urlparse(self.run.info.artifact_uri).path)

    def history(self, key: str) -> list[float]:
        return [point.value for point in MlflowClient(self.store).get_metric_history(self.run_id, key)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small) -> dict[str, Done]:
    """One store with one run of each experiment."""
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    client, done = None, {}
    probes = tmp_path_factory.mktemp("probes") / "probes.yaml"
    probes.write_text(BOTH_PROBES)
    for name, args in {**RUNS, "pool-average": [*RUNS["pool-average"], "-c", str(probes)]}.items():
        more = ["--trainer.max_epochs", str(EPOCHS), "--tracking_uri", store]
        assert fit("fit", [*small(name), *args, *more]) == 0
        client = client or MlflowClient(store)
        (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        done[name] = Done(name, store, run)
    return done


@pytest.fixture(params=list(RUNS))
def done(request, finished, monkeypatch) -> Done:
    found = finished[request.param]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.store)
    return found


def test_the_run_is_finished_and_has_its_figures(done):
    assert done.run.info.status == "FINISHED"
    paths = list((done.folder / "figures").iterdir())
    assert {path.stem for path in paths} == FIGURES[done.name]
    for path in paths:
        with Image.open(path) as figure:
            assert min(figure.size) > 100
            assert np.asarray(figure.convert("L")).std() > 1, f"{path.name} is blank"


def test_the_epoch_is_selected_by_the_metric_of_the_module(done):
    key, best = ("val/loss", min) if done.name in ("autoencoder", "functions-convnet") else ("val/acc", max)
    history = done.history(key)
    assert len(history) == EPOCHS
    ties = [epoch for epoch, value in enumerate(history) if value == best(history)]
    loss = done.history("val/loss")
    assert done.run.data.metrics["selected_epoch"] == min(ties, key=lambda epoch: loss[epoch])
    assert done.run.data.metrics[f"selected/{key}"] == best(history)


def test_each_metric_has_one_value_per_epoch_and_test_metrics_have_one(done):
    kinds = {
        "autoencoder": {"loss"},
        "functions-convnet": {"loss", "loss_y0", "loss_y1", "loss_y2"},
    }.get(done.name, {"loss", "acc"})
    more = {
        "autoencoder": {"val": {"knn_acc"}, "test": {"knn_acc"}},
        "pool-average": {"val": {*SHIFTS, *UNITS}, "test": SHIFTS},
    }.get(done.name, {})
    for split in ("train", "val", "test"):
        found = {key for key in done.run.data.metrics if key.startswith(f"{split}/")}
        assert found == {f"{split}/{kind}" for kind in {*kinds, *more.get(split, ())}}
        for key in found:
            assert len(done.history(key)) == (1 if split == "test" else EPOCHS)


def columns(table: str) -> tuple[list[str], list[str]]:
    """Recorded and new values: two lines of a table, or two columns if there are many metrics."""
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:] if line.strip()}
    if "now" in lines:
        return lines["recorded"], lines["now"]
    figures = [figure for figure in lines.values() if len(figure) == 2]
    return [figure[0] for figure in figures], [figure[1] for figure in figures]


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_test_and_validate_reproduce_the_recorded_metrics(litlab, done, verb):
    outcome = litlab(verb, done.run_id)
    assert outcome.code == 0, outcome.err
    assert "litlab: note" not in outcome.err  # that the data differ
    recorded, now = columns(outcome.out)
    assert now == recorded
    assert len(now) >= 2


def test_mlflow_loads_the_model_for_any_number_of_examples(done, mlflow_store):
    cli = parse_config("fit", ["-c", str(done.folder / "config.yaml")])
    data, model = cli.build()
    data.setup("fit")
    data.setup("test")
    state = torch.load(done.folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict(state)
    mlflow_store(done.store)
    exported = mlflow.pytorch.load_model(f"runs:/{done.run_id}/{done.name}")
    for count in (1, 7):
        inputs = data.test_set.inputs[:count]
        normalized = inputs if data.normalize is None else data.normalize(inputs)
        with torch.no_grad():
            expected = model.eval()(normalized)
        torch.testing.assert_close(exported(inputs).detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_logged_model_has_the_class_names_of_its_data(done, mlflow_store):
    mlflow_store(done.store)
    metadata = mlflow.models.get_model_info(f"runs:/{done.run_id}/{done.name}").metadata or {}
    data, _ = parse_config("fit", ["-c", str(done.folder / "config.yaml")]).build()
    assert metadata.get("classes") == (None if done.name == "functions-convnet" else list(data.classes))


def test_only_image_classifiers_predict_and_others_are_refused(litlab, done, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    outcome = litlab("predict", done.run_id, tmp_path / "black.png")
    if done.name in ("pool-average", "cifar-resnet9"):
        assert outcome.code == 0, outcome.err
        assert len(outcome.out.splitlines()) == 2
    else:
        assert outcome.code == 2
        assert re.search(
            "no transform that makes an input of|not images of shape|to the logits of classes", outcome.err
        )
        assert "Traceback" not in outcome.err


def test_shift_sensitivity_is_that_of_the_selected_weights_on_the_test_set(finished):
    done = finished["pool-average"]
    data, model = parse_config("fit", ["-c", str(done.folder / "config.yaml")]).build()
    data.setup("fit")
    data.setup("test")
    model.load_state_dict(torch.load(done.folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"])
    images = data.normalize(data.test_set.inputs)
    for pixels in (1, 2):
        with torch.no_grad():
            changed = model.eval()(images).argmax(1) != model(shift(images, pixels)).argmax(1)
        recorded = done.run.data.metrics[f"test/changed_by_shift_{pixels}"]
        assert recorded == pytest.approx(float(changed.float().mean()), abs=1e-6)
    assert 0 < recorded < 1


def test_evaluate_train_logs_training_metrics_at_the_end_of_each_epoch(finished):
    circles, other = finished["circles"], finished["circles-manual"]
    assert len(circles.history("train_end/acc")) == len(circles.history("train_end/loss")) == EPOCHS
    assert circles.history("train_end/loss")[0] < circles.history("train/loss")[0]
    assert not [key for key in other.run.data.metrics if "train_end" in key]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.lr_scheduler.warmup", "2"], "model.lr_scheduler.warmup is 2"),
        (["--model.input_shape", "[1, 8, 8]"], "model.input_shape is known from the data"),
        (["--model.code", "0"], "model.code has an entry below 1"),
        (["--model.code_activation", "tanh"], "model.code_activation"),
    ],
)
def test_a_mistake_in_a_regression_is_reported_before_a_run_is_created(litlab, small, tmp_path, args, message):
    outcome = litlab("fit", *small("autoencoder"), *args)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "runs").exists()


def test_the_handwritten_network_learns_like_the_plain_one(finished):
    tags = [finished[name].run.data.tags for name in ("circles", "circles-manual")]
    assert tags[0]["data.sha256.train"] == tags[1]["data.sha256.train"]
    losses = [finished[name].history("train/loss") for name in ("circles", "circles-manual")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
