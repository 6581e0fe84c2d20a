"""Experiments on the real MNIST; they take minutes (`make slow`)."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

DATA = Path(os.environ.get("LITLAB_TEST_DATA", Path(__file__).parents[4] / "shared/data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "MNIST/raw").is_dir(), reason=f"no MNIST in {DATA}; LITLAB_TEST_DATA names its folder")
@pytest.mark.parametrize(
    ("name", "at_least"),
    # At least two standard errors (10,000 test examples) below the mean of three seeds; the seeds differ less.
    [("mnist-linear", 0.914), ("mnist-mlp", 0.980), ("mnist-convnet", 0.985)],
)
def test_experiments_reach_their_accuracy_on_the_real_test_set(litlab, uri, name, at_least):
    outcome = litlab("fit", name, "--data.data_dir", DATA)
    assert outcome.code == 0, outcome.err
    metrics = MlflowClient(uri).get_run(outcome.run_id).data.metrics
    assert metrics["test/acc"] >= at_least
