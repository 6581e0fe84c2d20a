"""From a collection in memory to whole batches."""

import pytest
import torch

from datamodules.digits import Digits
from datamodules.sets import ImageSet


@pytest.fixture
def some(scans) -> ImageSet:
    images, labels = (torch.from_numpy(array) for array in scans)
    return ImageSet(images[:, None], labels, indices=torch.tensor([9, 3, 700, 41, 8]))


@pytest.mark.parametrize("batch", [[0], [4, 0, 2], [1, 1], [0, 1, 2, 3, 4]])
def test_a_whole_batch_equals_its_examples_stacked(some, batch):
    images, labels = some.__getitems__(batch)
    assert torch.equal(images, torch.stack([some[i][0] for i in batch]))
    assert torch.equal(labels, torch.stack([some[i][1] for i in batch]))


def test_a_set_holds_the_examples_of_its_indices_in_their_order(some, scans):
    assert len(some) == 5
    assert torch.equal(some.labels_N, torch.from_numpy(scans[1][[9, 3, 700, 41, 8]]))
    assert torch.equal(some.images_NCHW[:, 0], torch.from_numpy(scans[0][[9, 3, 700, 41, 8]]))
    assert torch.equal(some[2][0][0], torch.from_numpy(scans[0][700]))


def test_a_set_without_indices_holds_everything(scans):
    images, labels = (torch.from_numpy(array) for array in scans)
    everything = ImageSet(images[:, None], labels)
    assert len(everything) == 1437
    assert torch.equal(everything.labels_N, labels)


def test_the_digest_changes_with_any_pixel_any_label_and_the_order(scans):
    images, labels = torch.from_numpy(scans[0][:9, None]), torch.from_numpy(scans[1][:9])
    brighter, relabelled = images.clone(), labels.clone()
    brighter[8, 0, 27, 27] += 1
    relabelled[8] += 1
    sets = [
        ImageSet(images, labels),
        ImageSet(brighter, labels),
        ImageSet(images, relabelled),
        ImageSet(images, labels, torch.arange(8, -1, -1)),
        ImageSet(images.view(9, 1, 14, 56), labels),
    ]
    assert len({part.digest() for part in sets}) == 5
    assert ImageSet(images.clone(), labels.clone()).digest() == sets[0].digest()


def test_the_loader_yields_whole_batches_and_the_last_one_is_what_is_left():
    data = Digits(batch_size=100)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [100] * 12 + [37]
    assert all(images.shape == (len(labels), 1, 28, 28) for images, labels in batches)
    assert batches[0][0].dtype == torch.uint8


def test_training_batches_are_shuffled_pairs_of_image_and_label():
    data = Digits(batch_size=1237)
    data.setup("fit")
    ((images, labels),) = data.train_dataloader()
    assert not torch.equal(labels, data.train_set.labels_N)
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(*_all(data.train_set), strict=True)}
    assert [label_of[image.numpy().tobytes()] for image in images] == labels.tolist()


def _all(part: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    return part.images_NCHW, part.labels_N


@pytest.mark.parametrize("part", ["val", "test"])
def test_evaluation_batches_come_in_order_and_leave_nothing_out(part, monkeypatch):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 70)
    data = Digits(n_val=201)
    data.setup("fit")
    data.setup("test")
    loader, whole = getattr(data, f"{part}_dataloader")(), getattr(data, f"{part}_set")
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(images, whole.images_NCHW)
    assert torch.equal(labels, whole.labels_N)


def test_the_card_tells_sizes_digests_and_statistics():
    data = Digits(n_train=100)
    data.setup("fit")
    data.setup("test")
    card = data.card()
    assert card["source"] == "Digits"
    assert card["sizes"] == {"train": 100, "val": 200, "test": 360}
    assert card["sha256"]["val"] == data.val_set.digest()
    assert len(set(card["sha256"].values())) == 3
    assert card["mean"] == data.normalize.mean
    assert card["std"] == data.normalize.std
