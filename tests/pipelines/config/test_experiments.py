"""The experiments that come with litlab."""

import pytest
import yaml

from pipelines.config.cli import parse_config
from pipelines.config.experiments import describe_experiment, experiment_names, find_experiment
from tests.experiments import each_experiment


@pytest.mark.parametrize("name", each_experiment())
def test_every_experiment_builds_and_runs_a_batch(litlab, small, tmp_path, name):
    outcome = litlab("fit", *small(name), "--data.batch_size", "20", "--trainer.fast_dev_run", "true")
    assert outcome.code == 0, outcome.err
    assert "steps work" in outcome.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_has_a_one_line_description(name):
    description = describe_experiment(name)["description"]
    assert 20 < len(description) < 130
    assert "\n" not in description


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deep-mnist", 3_274_634),
        ("deep-mnist-linear", 3_274_634),
        ("one-conv", 63_250),
        ("small-deep-mnist", 1_327_076),
        ("deep-mnist-250-reduced", 832 + 18_496 + 3136 * 300 + 300 + 3_010),
        ("paired-digits", 832 + 51_264 + 3_212_288 + 2048 * 19 + 19),
        ("mnist-linear", 7_850),
        ("mnist-mlp-narrow", 7_850 + 110),
        ("mnist-mlp", 784 * 512 + 512 + 512 * 256 + 256 + 2_570),
        ("cifar-base", 1_191_170),
    ],
)
def test_parameter_counts_match_the_reports(name, parameters):
    _, model = parse_config("fit", [name]).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_deep_mnist_trains_for_20_000_steps_as_in_the_report():
    trainer = parse_config("fit", ["deep-mnist"])
    trainer.build()
    settings = trainer.make_trainer(logger=False)
    assert settings.max_epochs * settings.limit_train_batches == 20_000


@pytest.mark.parametrize("name", experiment_names())
def test_experiments_are_short_and_have_four_sections(name):
    """Keys that repeat a default would hide what matters."""
    text = find_experiment(name).read_text()
    assert len(text.splitlines()) <= 30
    assert set(yaml.safe_load(text)) == {"description", "data", "model", "trainer"}
