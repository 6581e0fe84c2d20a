"""No step of training reads a value back from the device: on a GPU, the CPU would wait for it."""

from pathlib import Path

import pytest
import torch

from pipelines.training.fit import fit
from pipelines.training.nan_guard import CHECK_EVERY_N_STEPS

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def host_reads(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "fixtures")
    import host_reads

    return host_reads


@pytest.mark.parametrize(
    "keys",
    [
        ["digits-mlp", "--data.crop_padding=2", "--trainer.gradient_clip_val=1"],
        ["digits-convnet", "--model.dropout=0.5", "--trainer.precision=bf16-mixed"],
    ],
)
def test_only_the_check_for_nan_reads_a_value_during_an_epoch(keys, host_reads):
    fit(
        keys[0],
        overrides=[
            *keys[1:],
            "--trainer.accelerator=cpu",
            "--data.batch_size=10",
            "--data.n_train=400",
            "--trainer.max_epochs=2",
            "--trainer.callbacks=host_reads.CountReads",
        ],
    )
    counted = host_reads.CountReads.counted
    first = counted["first"]
    checks = [step for step in range(first + 1, first + counted["steps"] + 1) if step % CHECK_EVERY_N_STEPS == 0]
    assert counted["steps"] == 39
    assert counted["reads"] == len(checks) == 1


def test_a_read_is_counted(host_reads):
    with host_reads.Reads() as reads:
        loss = torch.ones(3).sum()
        float(loss)
        torch.ones(3)[torch.ones(3) > 0]
        torch.ones(3)[torch.arange(2)]
        torch.tensor([3])
    assert reads.found == ["_local_scalar_dense", "index", "lift_fresh"]
