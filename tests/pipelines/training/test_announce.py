"""What `litlab fit` prints before its first epoch."""

import re
import subprocess

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

SHORT = ["--trainer.max_epochs", "1", "--data.n_train", "100"]
CLASSES = "tests.fixtures.strangers.classes"


def facts_of(output):
    """Return the facts before the first epoch by name."""
    head, _, _ = output.partition("\nepoch ")
    return dict(line.split(maxsplit=1) for line in head.splitlines())


def test_a_training_says_what_it_is_before_the_first_epoch_and_so_does_a_resumed_one(litlab, uri):
    outcome = litlab("fit", "digits-mlp", *SHORT)
    run_id = outcome.run_id
    facts = facts_of(outcome.out)
    assert facts == {
        "experiment": "digits-mlp",
        "data": "Digits, 100 training, 200 validation, 360 test examples",
        "model": facts["model"],
        "run": f"{run_id}  n_train=100 seed=0 max_epochs=1",
        "view": f"litlab ui --tracking_uri {uri}" if "tracking_uri" in facts["view"] else "litlab ui",
    }
    assert re.fullmatch(r"MLP, 109,386 parameters, on (cpu|cuda:0|mps:0)", facts["model"])
    MlflowClient(uri).set_terminated(run_id, "KILLED")
    assert facts_of(f"{litlab('resume', run_id).out}\nepoch ")["run"].startswith(run_id)


def test_modules_and_data_of_others_are_named_and_without_a_progress_bar_nothing_is_printed(litlab, tmp_path):
    file = tmp_path / "it.yaml"
    text = f"data: {{class_path: {CLASSES}.Points}}\nmodel: {{class_path: {CLASSES}.Net}}\n"
    file.write_text(text + "trainer: {max_epochs: 1, accelerator: cpu}\n")
    facts = facts_of(litlab("fit", "-c", file).out)
    assert (facts["experiment"], facts["data"]) == ("it", "Points")
    assert facts["sets"] == "32 training examples in 2 batches, 32 validation examples in 2 batches"
    assert re.fullmatch(r"Net, \d+ parameters, on cpu", facts["model"])
    quiet = litlab("fit", "-c", file, "--trainer.enable_progress_bar", "false").out
    assert quiet.startswith("it, seed 0")
    assert "epoch " not in quiet.partition("selected")[0]


@pytest.mark.parametrize(("mode", "args", "is_told"), [("L", [], True), ("L", ["1"], False), ("RGB", [], False)])
def test_greyscale_images_that_are_read_as_rgb_are_told_once(litlab, tmp_path, uri, mode, args, is_told):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / "images" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(folder / f"{index}.png")
    file = tmp_path / "it.yaml"
    data = (
        f"{{class_path: datamodules.image_folder.ImageFolder, init_args: {{data_dir: {tmp_path / 'images'}, size: 8}}}}"
    )
    file.write_text(
        f"data: {data}\nmodel: {{class_path: modules.linear.LinearClassifier}}\ntrainer: {{max_epochs: 1}}\n"
    )
    outcome = litlab("fit", "-c", file, *(["--data.channels", *args] if args else []))
    assert outcome.code == 0, outcome.err
    assert ("read as RGB; --data.channels 1" in outcome.err) == is_told
    MlflowClient(uri).set_terminated(outcome.run_id, "KILLED")
    for later in (litlab("resume", outcome.run_id), litlab("fit", "-c", file)):
        assert later.code == 0, later.err
        assert "read as RGB" not in later.err


@pytest.mark.slow
def test_a_fit_whose_output_was_closed_before_the_first_line_ends_its_run_which_can_be_resumed(
    litlab, start_litlab, uri
):
    fit = start_litlab("fit", "digits-mlp", *SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    fit.stdout.close()
    _, errors = fit.communicate(timeout=120)
    assert fit.returncode == 141
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    assert run.info.status == "KILLED"
    assert f"litlab resume {run.info.run_id}" in errors
    assert litlab("resume", run.info.run_id).code == 0
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
