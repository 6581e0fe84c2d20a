"""MNIST from small files in its format that the tests write, and from the official files where available."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.mnist import MNIST, OFFICIAL_SHA256

OFFICIAL = Path(os.environ.get("LITLAB_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_official_files = pytest.mark.skipif(
    not all((OFFICIAL / "MNIST" / "raw" / name).is_file() for name in OFFICIAL_SHA256),
    reason=f"no MNIST in {OFFICIAL}; set LITLAB_TEST_DATA to another folder",
)


def test_images_and_labels_are_read_as_written(mnist_folder, scans):
    data = MNIST(data_dir=str(mnist_folder()), verify=False)
    for train, rows in [(True, slice(200)), (False, slice(200, 260))]:
        images, labels = data.load(train=train)
        np.testing.assert_array_equal(images[:, 0].numpy(), scans[0][rows])
        np.testing.assert_array_equal(labels.numpy(), scans[1][rows])
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


def test_validation_examples_are_from_the_training_file_and_the_test_file_is_the_test_set(mnist_folder):
    data = MNIST(data_dir=str(mnist_folder()), verify=False, n_val=40)
    data.setup("fit")
    data.setup("test")
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [160, 40, 60]
    assert data.test_set.inputs.shape == (60, *data.input_shape)
    assert data.num_classes == 10


def _raw_path(folder: Path, name: str) -> str:
    return str(folder / "MNIST" / "raw" / name)


def test_the_error_for_images_of_another_size_names_the_file(mnist_folder, scans):
    folder = mnist_folder(train_images=scans[0][:200, :27])
    with pytest.raises(ValueError, match="27, 28") as error:
        MNIST(data_dir=str(folder), verify=False).load(train=True)
    assert _raw_path(folder, "train-images-idx3-ubyte") in str(error.value)


def test_the_error_for_a_label_above_nine_names_the_file(mnist_folder, scans):
    labels = scans[1][200:260].copy()
    labels[17] = 10
    folder = mnist_folder(t10k_labels=labels)
    with pytest.raises(ValueError, match="label 10, not one of 0 to 9") as error:
        MNIST(data_dir=str(folder), verify=False).load(train=False)
    assert _raw_path(folder, "t10k-labels-idx1-ubyte") in str(error.value)


@pytest.mark.parametrize("n_labels", [59, 61])
def test_different_numbers_of_images_and_labels_are_an_error(mnist_folder, scans, n_labels):
    folder = mnist_folder(t10k_labels=scans[1][:n_labels])
    with pytest.raises(ValueError, match=f"60 t10k images but {n_labels} labels") as error:
        MNIST(data_dir=str(folder), verify=False).load(train=False)
    assert _raw_path(folder, "") in str(error.value) + "/"


@pytest.mark.parametrize("train", [True, False])
def test_unofficial_files_are_an_error_by_default(mnist_folder, train):
    folder = mnist_folder()
    with pytest.raises(ValueError, match="damaged") as error:
        MNIST(data_dir=str(folder)).load(train=train)
    assert _raw_path(folder, f"{'train' if train else 't10k'}-images-idx3-ubyte") in str(error.value)


def test_files_without_images_are_an_error(mnist_folder, scans):
    folder = mnist_folder(train_images=scans[0][:0], train_labels=scans[1][:0])
    with pytest.raises(ValueError, match="train"):
        MNIST(data_dir=str(folder), verify=False).load(train=True)


@needs_official_files
def test_official_mnist_has_its_published_sizes_hashes_and_statistics():
    data = MNIST(data_dir=str(OFFICIAL))
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [55_000, 5_000, 10_000]
    assert data.normalize is not None
    assert data.normalize.mean == pytest.approx([0.1307], abs=0.001)
    assert data.normalize.std == pytest.approx([0.3081], abs=0.001)
    # The first ten test labels of MNIST.
    assert data.test_set.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@needs_official_files
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_single_flipped_bit_in_an_official_file_is_detected(tmp_path, name):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = bytearray((OFFICIAL / "MNIST" / "raw" / kind).read_bytes())
        content[5000] ^= kind == name
        (raw / kind).write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as error:
        MNIST(data_dir=str(tmp_path)).load(train=False)
    assert str(raw / name) in str(error.value)
