"""A run records how precisely torch multiplies, if something has changed it."""

import pytest
import torch
from mlflow import MlflowClient

from pipelines.tracking.tags import CUDNN_TAG, GPUS_TAG, MATMUL_TAG
from pipelines.training.device_tags import cudnn_settings, device_tags

FASTER = """
import torch
from lightning.pytorch import Callback

class Faster(Callback):
    def setup(self, trainer, pl_module, stage):
        torch.set_float32_matmul_precision("high")

    def teardown(self, trainer, pl_module, stage):
        torch.set_float32_matmul_precision("highest")
"""


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("keys", "recorded"),
    [([], None), (["--trainer.callbacks=faster_matmul.Faster"], "high")],
)
def test_a_run_records_a_reduced_precision_of_matrix_products(litlab, uri, tmp_path, monkeypatch, keys, recorded):
    (tmp_path / "faster_matmul.py").write_text(FASTER)
    monkeypatch.syspath_prepend(tmp_path)
    run_id = litlab("fit", "digits-mlp", "--trainer.accelerator=cpu", "--trainer.max_epochs=1", *keys).run_id
    tags = MlflowClient(uri).get_run(run_id).data.tags
    assert tags.get(MATMUL_TAG) == recorded
    assert not {GPUS_TAG, CUDNN_TAG} & set(tags)


def test_precision_that_was_set_by_backend_is_recorded(make_trainer, set_precision):
    set_precision(torch.backends.cuda.matmul, "tf32")
    assert device_tags(make_trainer()) == {}  # a CPU is not affected
    set_precision(torch.backends.mkldnn.matmul, "bf16")
    set_precision(torch.backends.cudnn.conv, "ieee")
    assert device_tags(make_trainer()) == {MATMUL_TAG: "bf16"}
    assert "TF32 in RNNs only, benchmark off" in cudnn_settings()
