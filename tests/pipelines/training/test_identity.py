"""Params, config.yaml and hash of a run are of one configuration: from a command or a file, before and after resume."""

import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.config.cli import parse_config
from pipelines.config.identity import config_hash
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.tracking.tags import CONFIG_HASH_TAG, SEED_TAG

CRASH = "tests.fixtures.strangers.classes.CrashOnce"


@pytest.fixture
def images(tmp_path):
    """Folder with 20 images of each of two digits."""
    digits = load_digits()
    for digit in (0, 1):
        folder = tmp_path / "images" / f"class{digit}"
        folder.mkdir(parents=True)
        for index, pixels in enumerate(digits.images[digits.target == digit][:20]):
            Image.fromarray((pixels * 15).astype("uint8")).save(folder / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def arguments(images, tmp_path):
    """Arguments of a fit whose first call crashes after an epoch."""
    data = ("--data", "datamodules.image_folder.ImageFolder", "--data.data_dir", str(images), "--data.size", "8")
    options = ("--data.channels", "1", "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false")
    crash = ("--trainer.callbacks+", CRASH, "--trainer.callbacks.flag", str(tmp_path / "crashed"))
    return ("digits-mlp", *data, *options, *crash, "--name", "own")


def config_of(run):
    return yaml.safe_load(run.file("config.yaml").read_text())


def test_runs_on_class_folders_are_repeats_of_one_configuration(litlab, tables, arguments, images):
    crashed = litlab("fit", *arguments, "--seed_everything", "1")
    assert crashed.code == 1
    (stopped,) = Store().search([Store().experiment_id("own")], "")
    assert litlab("resume", stopped.run_id).code == 0
    whole = Store().find(litlab("fit", *arguments, "--seed_everything", "2").run_id)
    path = whole.file("config.yaml")
    again = Store().find(litlab("fit", "-c", path, "--seed_everything", "3").run_id)
    named = ("--data.class_names", "[class0, class1]", "--seed_everything", "4")
    given = Store().find(litlab("fit", *arguments, *named).run_id)
    runs = [Store().find(stopped.run_id), whole, again, given]
    assert len({run.tags[CONFIG_HASH_TAG] for run in runs}) == 1
    for run in runs:
        assert config_of(run)["data"]["init_args"]["class_names"] == ["class0", "class1"]
        assert {**run.params, "seed_everything": "2"} == whole.params
    assert "data.class_names" not in whole.params
    assert "test/acc of own: 1 row" in litlab("compare", "own").out


def test_class_names_in_another_order_are_another_configuration(arguments):
    hashes = []
    for names in ("null", "[class0, class1]", "[class1, class0]"):
        cli = parse_config("fit", [*arguments, "--data.class_names", names])
        cli.build()
        hashes.append(config_hash(cli.resolved()))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_seed_that_is_drawn_is_recorded_and_trains_the_same_again(litlab, tables):
    options = ("--trainer.max_epochs", "1", "--data.n_train", "100", "--trainer.enable_progress_bar", "false")
    first, second = (
        Store().find(litlab("fit", "digits-mlp", *options, "--seed_everything", "false").run_id) for _ in range(2)
    )
    assert first.params["seed_everything"] != second.params["seed_everything"]
    assert config_of(first)["seed_everything"] == int(first.params["seed_everything"]) == int(first.tags[SEED_TAG])
    assert first.tags[CONFIG_HASH_TAG] == second.tags[CONFIG_HASH_TAG]
    repeated = Store().find(litlab("fit", "-c", first.file("config.yaml")).run_id)
    assert repeated.metrics["test/loss"] == first.metrics["test/loss"] != second.metrics["test/loss"]


def test_processes_that_torchrun_starts_need_a_seed(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="need the same seed: give a number"):
        parse_config("fit", ["digits-mlp", "--seed_everything", "false"])


def test_a_run_that_recorded_no_seed_is_read_as_it_was(tmp_path):
    path = tmp_path / "config.yaml"
    config = parse_config("fit", ["digits-mlp"]).resolved()
    path.write_text(yaml.safe_dump({**config, "seed_everything": False}))
    for options in ({"draws_seed": False}, {"training": False}):
        assert parse_config("resume", [], base=path, **options).resolved()["seed_everything"] is False


def test_callbacks_with_members_of_enumerations_and_times_are_the_same_from_the_saved_configuration(tmp_path):
    interval = (
        "--trainer.callbacks+=Timer",
        "--trainer.callbacks.interval=epoch",
        "--trainer.callbacks.duration=0:0:1:0",
    )
    every = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.train_time_interval=0:10:00")
    resolved = parse_config("fit", ["digits-mlp", *interval, *every]).resolved()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(resolved))
    assert parse_config("fit", ["-c", str(tmp_path / "config.yaml")]).resolved() == {
        **resolved,
        "name": resolved["name"],
    }
