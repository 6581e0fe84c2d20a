"""torchvision's networks, with every method."""

import json
import pickle

import pytest
import torch
from PIL import Image
from torchvision import models


@pytest.fixture(scope="session")
def squeezenet(tmp_path_factory):
    """Options that name a torchvision network and a file of untrained weights."""
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


def test_the_fourier_prior_takes_the_spectrum_of_files_if_there_are_no_training_images(
    explain, squeezenet, photographs
):
    argv = ["maximise", *squeezenet, "--layer", "features.3", "--unit", "1,0,0", "--prior", "fourier", "--steps", "2"]
    outcome = explain(*argv, run=False)
    assert outcome.code == 2
    assert "give --spectrum FILE" in outcome.err
    numbers = numbers_of(explain(*argv, "--spectrum", *photographs[:3], run=False))
    assert 0 < numbers["natural_high_frequency_share"] < 0.2  # blurred by the enlargement
    assert numbers["after"][0] > numbers["before"][0]


def test_filters_of_a_torchvision_network_are_drawn(explain, squeezenet):
    assert numbers_of(explain("filters", *squeezenet, run=False))["shape"] == [64, 3, 3, 3]


def test_activations_of_a_torchvision_network_are_drawn_for_a_file(explain, squeezenet, photographs):
    outcome = explain("activations", *squeezenet, "--image", photographs[0], "--layer", "conv1", "conv2", run=False)
    assert numbers_of(outcome)["layers"]["conv1"]["size"] == [111, 111]
    assert next(outcome.folder.glob("*.png")).name == "activations-squeezenet1_1-image-0.png-conv1-conv2.png"


def test_files_are_embedded_by_a_torchvision_network_with_the_predicted_classes(explain, squeezenet, photographs):
    argv = ["embedding", *squeezenet, "--layer", "features.12", "--image", *photographs]
    numbers = numbers_of(explain(*argv, run=False))
    assert numbers["count"] == len(numbers["labels"]) == len(numbers["PCA"]) == 12
    few = explain(*argv[:-1], run=False)
    assert few.code == 2
    assert "12 images or more, not 11" in few.err


@pytest.mark.parametrize("method", ["activations", "embedding"])
def test_without_data_the_error_asks_for_image_files(explain, squeezenet, method):
    outcome = explain(method, *squeezenet, "--layer", "conv1", run=False)
    assert outcome.code == 2
    assert "--image FILE" in outcome.err


def test_weights_that_would_run_code_when_read_are_rejected(explain, tmp_path):
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
