"""In-memory datasets: subsets, digests, whole batches and loaders."""

import pytest
import torch

from datamodules.digits import Digits
from datamodules.sets import TensorSet


@pytest.fixture
def subset(scans) -> TensorSet:
    images, labels = (torch.from_numpy(array[[9, 3, 700, 41, 8]]) for array in scans)
    return TensorSet(images[:, None], labels)


@pytest.mark.parametrize("batch", [[0], [4, 0, 2], [1, 1], [0, 1, 2, 3, 4]])
def test_a_batch_equals_its_stacked_examples(subset, batch):
    images, labels = subset.__getitems__(batch)
    assert torch.equal(images, torch.stack([subset[i][0] for i in batch]))
    assert torch.equal(labels, torch.stack([subset[i][1] for i in batch]))


def test_a_set_holds_its_examples_in_their_order(subset, scans):
    assert len(subset) == 5
    assert torch.equal(subset[2][0][0], torch.from_numpy(scans[0][700]))
    assert subset[2][1] == scans[1][700]


def test_the_digest_depends_on_pixels_labels_order_and_shape(scans):
    images, labels = torch.from_numpy(scans[0][:9, None]), torch.from_numpy(scans[1][:9])
    brighter, relabelled = images.clone(), labels.clone()
    brighter[8, 0, 27, 27] += 1
    relabelled[8] += 1
    sets = [
        TensorSet(images, labels),
        TensorSet(brighter, labels),
        TensorSet(images, relabelled),
        TensorSet(images.flip(0), labels.flip(0)),
        TensorSet(images.view(9, 1, 14, 56), labels),
    ]
    assert len({dataset.digest() for dataset in sets}) == 5
    assert TensorSet(images.clone(), labels.clone()).digest() == sets[0].digest()


def test_the_loader_yields_whole_batches_and_a_smaller_last_one():
    data = Digits(batch_size=100)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [100] * 12 + [37]
    assert all(images.shape == (len(labels), 1, 28, 28) for images, labels in batches)
    assert batches[0][0].dtype == torch.uint8


def test_shuffled_training_images_keep_their_labels():
    data = Digits(batch_size=1237)
    data.setup("fit")
    ((images, labels),) = data.train_dataloader()
    assert not torch.equal(labels, data.train_set.targets)
    pairs = zip(data.train_set.inputs, data.train_set.targets, strict=True)
    label_of = {image.numpy().tobytes(): int(label) for image, label in pairs}
    assert [label_of[image.numpy().tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_batches_are_complete_and_in_order(split, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 70)
    data = Digits(n_val=201)
    data.setup("fit")
    data.setup("test")
    loader, dataset = getattr(data, f"{split}_dataloader")(), getattr(data, f"{split}_set")
    images, labels = (torch.cat(batches) for batches in zip(*loader, strict=True))
    assert torch.equal(images, dataset.inputs)
    assert torch.equal(labels, dataset.targets)


def test_describe_returns_sizes_digests_and_statistics():
    data = Digits(n_train=100)
    data.setup("fit")
    data.setup("test")
    description = data.describe()
    assert description["source"] == "Digits"
    assert description["sizes"] == {"train": 100, "val": 200, "test": 360}
    assert description["sha256"]["val"] == data.val_set.digest()
    assert len(set(description["sha256"].values())) == 3
    assert description["mean"] == data.normalize.mean
    assert description["std"] == data.normalize.std
