"""What a review found, and must not come back."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder
from modules import probes
from modules.autoencoder import ConvAutoencoder
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from pipelines.tracking.store import Store

pytestmark = pytest.mark.usefixtures("tables")

QUICK = ("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false")
UNIT_DIGITS = ("--data", "datamodules.digits.Digits")


@pytest.fixture
def folder(tmp_path):
    """Real scans of noughts and ones, as anybody's images."""
    images, labels = Digits().load(train=True)
    for number, name in enumerate(("nought", "one")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for index, pixels in enumerate(images[labels == number][:30]):
            Image.fromarray(pixels[0].numpy()).save(tmp_path / "mine" / name / f"{index}.png")
    return tmp_path / "mine"


def test_a_model_says_the_names_it_was_trained_with_whatever_becomes_of_the_folder(litlab, folder, tmp_path):
    own = ("--data", "datamodules.image_folder.ImageFolder", "--data.data_dir", str(folder), "--data.size", "28")
    run_id = litlab("fit", "digits-convnet", *own, "--trainer.max_epochs", "3").run_id
    image = shutil.copy(folder / "nought" / "0.png", tmp_path)
    before = litlab("predict", run_id, image).out
    assert ",nought," in before
    (folder / "another").mkdir()
    (folder / "nought").rename(folder / "zero")
    assert litlab("predict", run_id, image).out == before
    renamed = litlab("test", run_id)
    assert renamed.code == 2
    assert "nought: no such folder" in renamed.err
    shutil.rmtree(folder)
    assert litlab("predict", run_id, image).out == before


def test_class_names_choose_folders_and_their_order(folder):
    data = ImageFolder(str(folder), size=28, class_names=["one", "nought"], n_val=4)
    images, labels = data.load(train=True)
    assert data.classes == ("one", "nought")
    assert int(images[labels == 0].float().mean()) < int(images[labels == 1].float().mean())  # a one has less ink


def test_units_belong_to_the_layer_that_the_activation_follows():
    pairs = probes.hidden_layers(FunctionRegressor(input_shape=(4,), kind="convnet"))
    assert [(type(layer).__name__, type(last).__name__) for layer, last in pairs] == [("Conv1d", "ReLU")] * 3
    kinds = [type(layer).__name__ for layer, _ in probes.hidden_layers(ConvAutoencoder((1, 28, 28)))]
    assert kinds == ["Conv2d", "Conv2d", "Linear", "Linear", "Linear", "Linear", "ConvTranspose2d"]


def test_a_shift_of_nothing_changes_nothing_in_any_precision(make_trainer, monkeypatch):
    monkeypatch.setattr(probes, "SHIFTS", (0,))
    model = ConvNet(input_shape=(1, 28, 28), num_classes=10, channels=(4,), hidden=(16,))
    trainer = make_trainer(max_epochs=1, precision="bf16-mixed", callbacks=[probes.Shifts()])
    trainer.fit(model, Digits())
    assert trainer.callback_metrics["val/changed_by_shift_0"] == 0


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["circles", "circles-manual", "functions-convnet", "digits-convnet"])
def test_half_precision_trains_tests_and_leaves_a_model(litlab, name, precision):
    outcome = litlab("fit", name, *QUICK, "--trainer.precision", precision)
    assert outcome.code == 0, outcome.err
    assert Store().find(outcome.run_id).status == "FINISHED"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("autoencoder", *UNIT_DIGITS, "--data.normalization", "standard"), "set data.normalization to unit"),
        (("circles", "--trainer.callbacks+=modules.probes.Shifts"), "classifiers of images"),
        (("functions-linear", "--model", "modules.mlp.MLP"), "needs data with classes"),
        (("digits-mlp", "--trainer.limit_test_batches", "0"), "limit_test_batches"),
        (("digits-mlp", "--trainer.strategy", "ddp_spawn", "--trainer.devices", "2"), "use ddp"),
    ],
)
def test_what_cannot_work_is_refused_without_a_traceback(litlab, args, says):
    outcome = litlab("fit", *args, *QUICK)
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_processes_draw_different_dropout_and_augmentation(make_trainer):
    """The first process draws as a single one would; the others by their number."""
    model = ConvNet(input_shape=(1, 28, 28), num_classes=10, channels=(4,), hidden=(16,))
    drawn = []
    for rank in (0, 1):
        torch.manual_seed(3)
        model._trainer = type("Trainer", (), {"global_rank": rank})()
        model.on_fit_start()
        drawn.append(torch.rand(4))
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(4))
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_stopped_baseline_ends_at_once_and_its_run_is_killed(tmp_path, uri, number, code):
    command = [sys.executable, "-c", "from pipelines.cli import main; raise SystemExit(main())", "baseline", "svm-rbf"]
    command += ["circles", "--data.n_train", "60000", "--data.noise", "2"]  # minutes of work for libsvm
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "MLFLOW_TRACKING_URI": uri})
    deadline = time.monotonic() + 120
    folder = tmp_path / "runs" / "mlartifacts" / "circles-svm-rbf"
    while not list(folder.glob("*/artifacts/data.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    store = Store(uri)
    (run,) = store.client.search_runs([store.experiment_id("circles-svm-rbf")])
    assert run.info.status == "KILLED"
