"""Training on an NVIDIA GPU: as on the CPU up to rounding, resumed, and used on the CPU afterwards."""

import csv
import io
import json

import mlflow
import pytest
import torch

from datamodules.digits import Digits
from pipelines.tracking.store import Store
from pipelines.training.fit import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.usefixtures("tables"),
]

SMALL = ["--model.dropout=0", "--trainer.max_epochs=2"]


def losses(result, uri):
    lines = Store(uri).find(result.run_id).file("metrics.jsonl").read_text().splitlines()
    return [line[key] for line in map(json.loads, lines) for key in ("train/loss", "val/loss") if key in line]


def trained(device, *more):
    return fit("digits-mlp", overrides=[*SMALL, f"--trainer.accelerator={device}", *more])


def test_the_losses_are_those_of_the_cpu_up_to_rounding(uri):
    """Initial weights, the order of the examples and the batches are the same on every device."""
    assert losses(trained("cuda"), uri) == pytest.approx(losses(trained("cpu"), uri), rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
def test_reduced_precision_learns_as_well(uri, precision):
    expected = trained("cuda").metrics["test/acc"]
    assert trained("cuda", f"--trainer.precision={precision}").metrics["test/acc"] == pytest.approx(expected, abs=0.05)


def test_a_run_of_the_gpu_is_tested_and_predicts_on_the_cpu(litlab, uri):
    result = trained("cuda")
    outcome = litlab("test", result.run_id, "--trainer.accelerator=cpu")
    numbers = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if line.strip()}
    assert outcome.code == 0, outcome.err
    assert [float(number) for number in numbers["now"]] == pytest.approx(
        [float(number) for number in numbers["recorded"]], abs=0.01
    )
    outcome = litlab("predict", result.run_id, "--trainer.accelerator=cpu")
    assert len(list(csv.DictReader(io.StringIO(outcome.out)))) == 360


def test_the_logged_model_runs_on_the_cpu(uri, mlflow_store):
    result = trained("cuda")
    mlflow_store(uri)
    images, labels = Digits().load(train=False)
    votes = mlflow.pytorch.load_model(f"runs:/{result.run_id}/digits-mlp")(images).argmax(1)
    assert float((votes == labels).float().mean()) == pytest.approx(result.metrics["test/acc"], abs=0.01)


def test_doctor_names_the_gpu(litlab):
    assert torch.cuda.get_device_name() in litlab("doctor").out


def test_a_comparison_draws_the_maps_and_codes_of_runs_of_the_gpu(litlab, small, tmp_path):
    keys = ["--data.n_train=300", "--model.hidden=[16]", "--trainer.max_epochs=1", "--trainer.accelerator=cuda"]
    assert litlab("fit", *small("autoencoder"), *keys).code == 0
    assert litlab("fit", "circles", "--trainer.max_epochs=2", "--trainer.accelerator=cuda").code == 0
    for name, figure in (("autoencoder", "codes"), ("circles", "decision_regions")):
        outcome = litlab("compare", name, "--plot", tmp_path / name)
        assert outcome.code == 0, outcome.err
        assert (tmp_path / name / f"{figure}.png").is_file(), outcome.err


def test_a_run_records_its_gpu_and_how_precisely_it_computes(uri):
    plain = Store(uri).find(trained("cuda").run_id).tags
    assert plain["machine.gpus"] == f"1 x {torch.cuda.get_device_name()}"
    assert plain["machine.cudnn"].endswith("TF32 on, benchmark off")
    assert "machine.float32_matmul" not in plain
    keys = ["--trainer.callbacks=modules.speed.TensorFloat32", "--trainer.benchmark=true"]
    fast = Store(uri).find(trained("cuda", *keys).run_id).tags
    assert fast["machine.cudnn"].endswith("TF32 on, benchmark on")
    assert fast["machine.float32_matmul"] == "high"
