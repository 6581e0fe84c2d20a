"""The quickest cells of `make compatibility`: modules in the styles that people use, without a change."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

pytestmark = [  # Lightning's advice to authors
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
    pytest.mark.filterwarnings("ignore:.*already saved during checkpointing"),
]


@pytest.fixture
def train(tmp_path, strangers, monkeypatch):
    """Return a function that trains the module of a configuration."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *args: fit(strangers / f"{name}.yaml", overrides=args)


@pytest.mark.parametrize(
    ("name", "monitor", "tested"),
    [
        ("gan", "val_distance", "test_distance"),
        ("dqn", None, None),
        ("segmentation", "valid_dataset_iou", "test_dataset_iou"),
        ("graphnet", "val_mae", "test_mae"),
        ("multihead", "val_loss/dataloader_idx_0", "test_loss/dataloader_idx_1"),
        ("words", "val.loss", "test.loss"),
        ("pl_module", "avg_val_loss", "avg_test_loss"),
        ("injected", "val/acc", "test/acc"),
        ("reinforce", "eval_reward", "test_reward"),
    ],
)
def test_a_module_of_anybody_is_trained_selected_and_tested(train, name, monitor, tested):
    result = train(name)
    assert result.monitor == monitor
    assert tested is None or tested in result.metrics
    assert result.checkpoint.is_file()


@pytest.mark.parametrize(
    ("name", "plan", "args"),
    [
        pytest.param(
            "protonet", "2 4", ["--checkpoint_every=1"], marks=pytest.mark.slow
        ),  # a batch sampler with a generator of NumPy
        ("stateful", "1 3", ["--checkpoint_every=1"]),  # a path, an enumeration and numbers of NumPy
        pytest.param("multihead", "1 1", [], marks=pytest.mark.slow),
    ],
)
def test_a_module_of_anybody_resumes_bit_for_bit(train, tmp_path, name, plan, args):
    args = [*args, "--trainer.callbacks+=failing.FailOnce"]
    whole = train(name, *args).checkpoint.with_name("last.ckpt")
    Path("plan").write_text(plan)
    with pytest.raises(RunFailedError, match="planned") as failed:
        train(name, *args)
    result = resume(failed.value.run_id)
    weights, expected = (
        torch.load(path, weights_only=False)["state_dict"] for path in (result.checkpoint.with_name("last.ckpt"), whole)
    )
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_validate_test_and_compare_know_the_metrics_of_anybody(train, litlab):
    result = train("outputs")
    for verb in ("validate", "test"):
        assert litlab(verb, result.run_id).code == 0
    outcome = litlab("compare", result.run_id, "--metric", "selected/auc", "--format", "json")
    (row,) = json.loads(outcome.out)
    assert row["mean"] == result.metrics["auc"]
