"""Callbacks that search for a batch size or a learning rate: the run records the values that it was trained with."""

import json

import pytest
import yaml

from pipelines.config.identity import config_hash
from pipelines.tracking.run_log import read_entries
from pipelines.tracking.store import Store
from pipelines.tracking.tags import CONFIG_HASH_TAG, FOUND_TAG

pytestmark = pytest.mark.usefixtures("garbage_of_earlier_files_stays")
CLASSES = "tests.fixtures.strangers.classes"
SMALL = ("--data.batch_size", "1")
BATCH_SIZE = ("--trainer.callbacks+", "BatchSizeFinder", "--trainer.callbacks.max_trials", "3", *SMALL)
LR = ("--trainer.callbacks+", "LearningRateFinder", "--trainer.callbacks.num_training_steps", "40", *SMALL)
KEYS = {"data.batch_size": 1, "model.lr": 0.05}  # and the values in the configuration


@pytest.fixture
def train(litlab, tables, tmp_path):
    """Train a module of somebody else with more arguments; return the run."""
    path = tmp_path / "it.yaml"
    path.write_text(
        f"data: {{class_path: {CLASSES}.Points}}\nmodel: {{class_path: {CLASSES}.Net}}\n"
        "trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false}\n"
    )

    def run(*args, config=path):
        outcome = litlab("fit", "-c", config, *args)
        assert outcome.code == 0, outcome.err
        return Store().find(outcome.run_id)

    return run


@pytest.mark.parametrize(("callbacks", "searched"), [(BATCH_SIZE, ["data.batch_size"]), (LR, ["model.lr"])])
def test_params_config_and_hash_have_the_value_found_and_the_search_is_no_epoch(train, callbacks, searched):
    run = train(*callbacks)
    config = yaml.safe_load(run.file("config.yaml").read_text())
    found = json.loads(run.tags[FOUND_TAG])
    assert sorted(found) == searched
    for key, value in found.items():
        section, name = key.split(".")
        assert config[section]["init_args"][name] == value != KEYS[key]
        assert run.params[key] == json.dumps(value)
    assert run.tags[CONFIG_HASH_TAG] == config_hash(config)
    validated = [entry.values for entry in read_entries(run.file("metrics.jsonl"))[0] if "val/loss" in entry.values]
    assert len(validated) == 2
    assert run.metrics["selected/val/loss"] == min(values["val/loss"] for values in validated)


@pytest.mark.slow
def test_the_same_search_is_the_same_configuration_from_its_config_and_with_another_seed(train):
    first = train(*BATCH_SIZE)
    again = train("--seed_everything", "3", config=first.file("config.yaml"))
    assert again.tags[CONFIG_HASH_TAG] == first.tags[CONFIG_HASH_TAG]
    assert {**again.params, "seed_everything": "0"} == first.params


def test_a_run_with_the_values_found_and_no_search_has_the_same_metrics(train):
    searched = train(*LR, *BATCH_SIZE)
    found = json.loads(searched.tags[FOUND_TAG])
    given = train(*(token for key, value in found.items() for token in (f"--{key}", str(value))))
    for name in ("train/loss", "val/loss", "test/loss"):
        assert given.metrics[name] == searched.metrics[name], name


@pytest.mark.slow
def test_a_search_of_a_callback_that_the_module_brings_is_recorded_and_not_repeated(train, litlab, tmp_path):
    """The last epoch crashes once."""
    crash = ("--trainer.callbacks+", f"{CLASSES}.CrashOnce", "--trainer.callbacks.flag", str(tmp_path / "crashed"))
    model = ("--model", f"{CLASSES}.FindsBatchSize", *SMALL)
    outcome = litlab("fit", "-c", tmp_path / "it.yaml", *model, *crash)
    assert outcome.code == 1, outcome.err
    (stopped,) = Store().search([Store().experiment_id("it")], "")
    assert json.loads(stopped.tags[FOUND_TAG])["data.batch_size"] == int(stopped.params["data.batch_size"]) > 1
    resumed = litlab("resume", stopped.run_id)
    assert resumed.code == 0, resumed.err
    assert "batch size" not in resumed.err
    whole = train(*model, *crash)
    assert Store().find(stopped.run_id).metrics["test/loss"] == whole.metrics["test/loss"]
