"""Sets in memory: whole batches in the order of the epoch, from the device that holds them."""

import pytest
import torch
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader

from datamodules.digits import Digits
from datamodules.loading import place
from datamodules.paired_digits import PairedDigits
from datamodules.sets import TensorSet

GPU = torch.device("cuda", 0)


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("make", [Digits, lambda **keys: PairedDigits("digits", **keys)])
def test_batches_are_those_of_an_ordinary_loader_and_torchs_random_stream_advances_alike(make):
    seed_everything(3)
    data = make(batch_size=100)
    data.setup("fit")
    loader = data.train_dataloader()
    usual = DataLoader(data.train_set, batch_size=100, sampler=loader.sampler, collate_fn=lambda batch: batch)
    found = []
    for either in (loader, usual):
        torch.manual_seed(5)
        found.append(([*either], torch.get_rng_state()))
    (own, own_state), (expected, expected_state) = found
    assert len(own) == len(loader) == 13
    for one, other in zip(own, expected, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(one, other, strict=True))
    assert torch.equal(own_state, expected_state)


def test_each_epoch_has_its_own_order():
    data = Digits(batch_size=1237)
    data.setup("fit")
    ((_, first),), ((_, second),), ((_, again),) = batches(data), batches(data, 1), batches(data)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_padding_is_left_out_and_the_last_batch_may_be_empty():
    data = Digits(batch_size=1)
    data.setup("fit")
    loader = data._loader(TensorSet(data.train_set.inputs[:3], data.train_set.targets[:3]), 1)
    loader.sampler.num_replicas, loader.sampler.rank, loader.sampler.shuffle = 2, 1, True
    assert [len(labels) for _, labels in loader] == [1, 0]


class Doubled(TensorSet):
    """A user's set, which changes how examples are taken."""

    def __getitems__(self, batch):
        inputs, targets = super().__getitems__(batch)
        return inputs, targets * 2


def test_a_set_that_takes_its_examples_in_its_own_way_is_asked_as_usual():
    data = Digits(batch_size=50)
    data.setup("fit")
    ((_, labels),) = data._loader(Doubled(data.train_set.inputs[:50], data.train_set.targets[:50]), 50)
    assert torch.equal(labels, data.train_set.targets[:50] * 2)


def test_without_a_gpu_data_cannot_be_held_there():
    with pytest.raises(ValueError, match=r"data\.device is cuda, but the training runs on cpu; use auto"):
        place(TensorSet(torch.zeros(3, 2), torch.zeros(3)), "cuda", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"data\.device is 'gpu'; it must be one of auto, cpu, cuda"):
        Digits(device="gpu")


def test_a_set_that_does_not_fit_is_refused_with_the_sizes_or_stays_where_it_is(monkeypatch):
    dataset = TensorSet(torch.zeros(3_000_000, 10, dtype=torch.uint8), torch.zeros(3_000_000, dtype=torch.int64))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50_000_000, 80_000_000))
    with pytest.raises(ValueError, match=r"a set takes 0\.05 GB, and 0\.05 GB of the GPU are free; use auto or cpu"):
        place(dataset, "cuda", GPU)
    assert place(dataset, "auto", GPU) is dataset
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    assert place(dataset, "cpu", GPU) is dataset
