"""The verb: its words, its help, and torchvision's networks in every word of it."""

import importlib
import json
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torchvision import models

from pipelines.explanation.explain import HELP, WORDS


@pytest.fixture(scope="session")
def squeezenet(tmp_path_factory):
    """A file of weights that were never trained, and options that name them."""
    file = tmp_path_factory.mktemp("torchvision") / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1().state_dict(), file)
    return ["--torchvision", "squeezenet1_1", "--weights", file]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Files of twelve images of few colours, of another size than the network's."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    files = []
    for number in range(12):
        pixels = torch.randint(256, (4, 6, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((90, 60)).save(folder / f"{number}.png")
        files.append(folder / f"{number}.png")
    return files


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_a_module_and_a_line_in_the_overview(word):
    assert callable(importlib.import_module(f"pipelines.explanation.{WORDS[word]}").main)
    assert f"\n  {word} " in HELP


def test_an_unknown_word_is_the_users_mistake_and_the_nearest_one_is_named(explain):
    outcome = explain("maximize")
    assert outcome.code == 2
    assert "did you mean maximise" in outcome.err


@pytest.mark.parametrize("word", WORDS)
def test_help_of_a_word_fits_a_screen_and_names_every_option(explain, word):
    outcome = explain(word, "--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert 10 < len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_the_overview_imports_nothing_heavy():
    program = (
        "import sys; from pipelines.explanation.explain import main; main('explain', ['--help']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"torch", "lightning", "torchvision", "mlflow", "matplotlib", "sklearn", "captum"}
    assert not heavy & set(done.stdout.splitlines()[-1].split())
    lines = done.stdout.splitlines()[:-1]
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def numbers_of(outcome):
    assert outcome.code == 0, outcome.err
    (file,) = outcome.folder.glob("*.json")
    assert file.with_suffix(".png").stat().st_size > 1000
    return json.loads(file.read_text())


def test_a_class_of_a_torchvision_network_is_maximised(explain, squeezenet):
    numbers = numbers_of(explain("maximise", *squeezenet, "--class", "jellyfish", "--steps", "2", run=False))
    assert numbers["units"] == ["jellyfish"]
    assert numbers["after"][0] > numbers["before"][0]
    assert numbers["run"] is None
    assert "natural_high_frequency_share" not in numbers


def test_the_fourier_prior_takes_the_spectrum_of_files_where_there_are_no_training_images(
    explain, squeezenet, photographs
):
    argv = ["maximise", *squeezenet, "--layer", "features.3", "--unit", "1,0,0", "--prior", "fourier", "--steps", "2"]
    outcome = explain(*argv, run=False)
    assert outcome.code == 2
    assert "give some by --spectrum FILE" in outcome.err
    numbers = numbers_of(explain(*argv, "--spectrum", *photographs[:3], run=False))
    assert 0 < numbers["natural_high_frequency_share"] < 0.2  # blurred by the enlargement
    assert numbers["after"][0] > numbers["before"][0]


def test_filters_of_a_torchvision_network_are_drawn(explain, squeezenet):
    assert numbers_of(explain("filters", *squeezenet, run=False))["shape"] == [64, 3, 3, 3]


def test_what_a_torchvision_network_makes_of_a_file_is_drawn(explain, squeezenet, photographs):
    outcome = explain("activations", *squeezenet, "--image", photographs[0], "--layer", "conv1", "conv2", run=False)
    assert numbers_of(outcome)["layers"]["conv1"]["size"] == [111, 111]
    assert next(outcome.folder.glob("*.png")).name == "activations-squeezenet1_1-image-0.png-conv1-conv2.png"


def test_files_are_embedded_by_a_torchvision_network_with_the_classes_that_it_sees(explain, squeezenet, photographs):
    argv = ["embedding", *squeezenet, "--layer", "features.12", "--image", *photographs]
    numbers = numbers_of(explain(*argv, run=False))
    assert numbers["count"] == len(numbers["labels"]) == len(numbers["PCA"]) == 12
    few = explain(*argv[:-1], run=False)
    assert few.code == 2
    assert "12 images or more, not 11" in few.err


@pytest.mark.parametrize("word", ["activations", "embedding"])
def test_without_data_image_files_are_asked_for(explain, squeezenet, word):
    outcome = explain(word, *squeezenet, "--layer", "conv1", run=False)
    assert outcome.code == 2
    assert "--image FILE" in outcome.err


def test_weights_that_would_run_code_when_they_are_read_are_refused(explain, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    with (tmp_path / "weights.pth").open("wb") as file:
        pickle.dump({"conv.weight": Trap()}, file, protocol=2)
    torch.save({"conv.weight": Trap()}, tmp_path / "zipped.pth")
    for name in ("weights.pth", "zipped.pth"):
        outcome = explain("filters", "--torchvision", "squeezenet1_1", "--weights", tmp_path / name, run=False)
        assert outcome.code == 2
        assert f"{name}: cannot be read" in outcome.err
    assert not (tmp_path / "ran").exists()
