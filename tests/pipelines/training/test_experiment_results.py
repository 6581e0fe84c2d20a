"""Short versions of results of docs/RESULTS.md, on data that need no download.

Thresholds leave room for the spread over seeds: the values of three seeds are given with each.
"""

import pytest

from pipelines.config.experiments import experiment_names
from pipelines.tracking.store import Store


def metrics_of(outcome) -> dict[str, float]:
    assert outcome.code == 0, outcome.err
    return Store().find(outcome.run_id).metrics


@pytest.mark.slow
def test_a_small_network_separates_the_circles(litlab):
    """Seeds 0 to 2: see RESULTS.md; 0.935 is published."""
    assert metrics_of(litlab("fit", "circles"))["test/acc"] >= 0.935


@pytest.mark.slow
def test_the_linear_model_fits_the_linear_function_and_the_convnet_fits_the_others_better(litlab):
    """Seeds 0 to 2: y0 to 6e-9 at most and 8e-4 at least; y1 to 0.21 and 0.007, y2 to 1.6 and 0.009 at most."""
    linear = metrics_of(litlab("fit", "functions-linear", "--trainer.max_epochs", "15", "--model.optimizer.lr", "0.05"))
    convnet = metrics_of(litlab("fit", "functions-convnet", "--trainer.max_epochs", "15"))
    assert linear["test/loss_y0"] < 1e-5 < convnet["test/loss_y0"]
    for name in ("y1", "y2"):
        assert convnet[f"test/loss_{name}"] < linear[f"test/loss_{name}"] / 10


@pytest.mark.slow
def test_the_code_of_an_autoencoder_separates_the_digits_better_than_two_principal_components(litlab):
    """On scikit-learn's digits; seeds 0 to 2: accuracy 0.70 to 0.81 and 0.50, loss 0.021 to 0.023 and 0.032."""
    digits = ["autoencoder", "--data", "datamodules.digits.Digits"]
    smaller = ["--model.hidden", "[128, 32]", "--data.batch_size", "25", "--model.optimizer.lr", "0.004"]
    coded = metrics_of(litlab("fit", *digits, *smaller, "--trainer.max_epochs", "25"))
    assert litlab("baseline", "pca", *digits).code == 0
    store = Store()
    experiment = store.client.get_experiment_by_name("autoencoder-pca")
    (pca,) = store.client.search_runs([experiment.experiment_id])
    assert coded["test/knn_acc"] > pca.data.metrics["test/knn_acc"]
    assert coded["test/loss"] < pca.data.metrics["test/loss"]


@pytest.mark.slow
def test_a_convnet_adds_two_small_digits(litlab):
    """On scikit-learn's digits; seeds 0 to 2: 0.33; the commonest sum has one pair in ten."""
    options = ["--data.source", "digits", "--model.channels", "[8, 16]", "--model.hidden", "64"]
    pairs = ["--trainer.max_epochs", "6", "--data.batch_size", "20"]
    assert metrics_of(litlab("fit", "paired-digits", *options, *pairs))["test/acc"] > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_trains_and_is_tested_on_small_data(litlab, small, name):
    short = ("--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1")
    metrics = metrics_of(litlab("fit", *small(name), *short))
    assert {"test/loss", "selected_epoch"} <= set(metrics)
