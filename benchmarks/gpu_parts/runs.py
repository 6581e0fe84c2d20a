"""Part a, in one warm process: every experiment, compilation, and what is done with a trained network."""

from collections.abc import Iterable, Sequence

import mlflow
import numpy as np
import torch

from datamodules.digits import Digits
from gpu_parts.data import small_data
from gpu_parts.place import Place, run_folder
from pipelines.cli import main
from pipelines.config.experiments import experiment_names
from pipelines.training.fit import FitResult, fit

DRY_EXPERIMENTS = ("circles-manual", "digits-mlp", "mnist-convnet", "cifar-batchnorm", "functions-linear")
COMPILED = ("digits-mlp", "mnist-convnet", "cifar-resnet9", "autoencoder")
TRAINED = "digits-convnet"
EXPLAINED = ("maximise", "adversarial", "occlusion", "saliency", "gradcam", "filters", "activations", "embedding")
EXPLAIN_OPTIONS = {"adversarial": ("--target", "1", "2")}  # one of them is not the class of the image
TOLERANCE = 1e-2  # of a probability: convolutions on a GPU are in TF32


def experiments(place: Place, job: str, precision: str) -> None:
    """Run a batch of each experiment."""
    names = DRY_EXPERIMENTS if place.dry else experiment_names()
    _run_a_batch(place, job, names, [f"--trainer.precision={precision}"])


def compiled(place: Place, job: str) -> None:
    """Run a batch of some experiments with `torch.compile`; in a dry run, without a compiler."""
    backend = ["--trainer.callbacks.backend=eager"] if place.dry else []
    names = COMPILED[:2] if place.dry else COMPILED
    _run_a_batch(place, job, names, ["--trainer.callbacks=modules.speed.Compile", *backend])


def _run_a_batch(place: Place, job: str, names: Iterable[str], options: Sequence[str]) -> None:
    for name in names:
        with place.attempt(job, name) as values:
            if place.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            fit(name, overrides=[*small_data(place, name), *place.trainer, *options, "--trainer.fast_dev_run=true"])
            if place.device == "cuda":
                values["device_MB"] = torch.cuda.max_memory_allocated() / 1e6
                assert values["device_MB"] > 0, "nothing was on the GPU"


def one_run(place: Place, job: str) -> None:
    """Train on the device; then predict there and on the CPU, explain, and use the exported model on the CPU."""
    with place.attempt(job, "fit"):
        result = fit(TRAINED, overrides=[*place.trainer, "--trainer.max_epochs=3"])
        assert isinstance(result, FitResult)
    for device in (place.device, "cpu"):
        with place.attempt(job, f"predict, {device}") as values:
            out = place.folder / f"{device}.csv"
            _litlab("predict", result.run_id, f"--out={out}", f"--trainer.accelerator={device}")
            values["rows"] = len(out.read_text().splitlines()) - 1
    with place.attempt(job, "exported model, cpu") as values:
        values["difference"] = _exported_difference(place, result.run_id)
        assert values["difference"] < TOLERANCE, "other probabilities than in the test of the run"
    for method in EXPLAINED[1:3] if place.dry else EXPLAINED:
        with place.attempt(job, f"explain {method}"):
            options = EXPLAIN_OPTIONS.get(method, ())
            _litlab("explain", method, result.run_id, f"--out={place.folder / 'explain'}", *options)


def _litlab(*arguments: str) -> None:
    code = main(arguments)
    assert code == 0, f"exit code {code}"


def _exported_difference(place: Place, run_id: str) -> float:
    """Return the largest difference of a probability to those of the run's test."""
    mlflow.set_tracking_uri(place.uri)
    model = mlflow.pytorch.load_model(f"runs:/{run_id}/{TRAINED}")
    saved = np.load(run_folder(place, f"run {run_id}") / "predictions.npz")
    images_NCHW, _ = Digits().load(train=False)
    with torch.no_grad():
        probabilities_NK = model(images_NCHW[saved["index"]]).softmax(1)
    found_N = probabilities_NK[torch.arange(len(images_NCHW)), torch.from_numpy(saved["prediction"]).long()]
    return float((found_N - torch.from_numpy(saved["probability"])).abs().max())
