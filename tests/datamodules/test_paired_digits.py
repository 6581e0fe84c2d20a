"""Pairs of digits: sums, splits, and which pairs an epoch has."""

from collections import Counter
from itertools import chain

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from datamodules.digits import Digits
from datamodules.paired_digits import PairedDigits, PairSampler, PairSet
from datamodules.sampling import NOBODY
from modules.linear import LinearClassifier

PARTS = ("train", "val", "test")


def _pairs(**options) -> PairedDigits:
    data = PairedDigits(**{"source": "digits", "n_train": 250, "n_val": 201, "batch_size": 60, **options})
    data.setup("fit")
    data.setup("test")
    return data


def _epoch(data: PairedDigits, part: str = "train", epoch: int = 0) -> tuple[Tensor, Tensor]:
    """All pairs of an epoch, as the loader hands them over."""
    loader = getattr(data, f"{part}_dataloader")()
    loader.sampler.set_epoch(epoch)
    images, sums = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(sums)


def _halves(images: Tensor) -> list[bytes]:
    """The digits that pairs are made of, upper ones first."""
    return [image.numpy().tobytes() for image in [*images[:, :, :28], *images[:, :, 28:]]]


@pytest.fixture(scope="module")
def values() -> dict[bytes, int]:
    """What each scan of a digit says, by its pixels."""
    both = [Digits().load(train=train) for train in (True, False)]
    return {image.numpy().tobytes(): int(label) for images, labels in both for image, label in zip(images, labels)}  # noqa: B905


@pytest.mark.parametrize("part", PARTS)
def test_the_label_is_the_sum_of_the_two_digits(part, values):
    images, sums = _epoch(_pairs(), part)
    assert images.shape == ({"train": 250, "val": 201, "test": 360}[part], 1, 56, 28)
    assert images.dtype == torch.uint8
    digits = [values[half] for half in _halves(images)]
    top, bottom = digits[: len(sums)], digits[len(sums) :]
    assert sums.tolist() == [a + b for a, b in zip(top, bottom, strict=True)]
    assert set(top) == set(bottom) == set(range(10))


def test_there_are_nineteen_sums():
    data = PairedDigits(source="digits")
    assert data.classes == tuple(str(total) for total in range(19))
    assert data.num_classes == 19


def test_both_digits_of_a_pair_are_of_its_split():
    data = _pairs()
    plain = Digits(n_train=250, n_val=201)
    plain.setup("fit")
    plain.setup("test")
    of_split = {part: {image.numpy().tobytes() for image in getattr(plain, f"{part}_set").inputs} for part in PARTS}
    assert not of_split["train"] & of_split["val"]
    assert not of_split["test"] & (of_split["train"] | of_split["val"])
    for part in PARTS:
        for epoch in (0, 1):
            assert set(_halves(_epoch(data, part, epoch)[0])) <= of_split[part]


def test_training_pairs_are_drawn_anew_in_each_epoch():
    """Of 62,500 pairs, two epochs of 250 share about one."""
    data = _pairs()
    epochs = [{image.numpy().tobytes() for image in _epoch(data, epoch=epoch)[0]} for epoch in range(4)]
    for number, epoch in enumerate(epochs):
        assert len(epoch) > 240
        assert len(epoch & set(chain(*epochs[:number]))) < 20


def test_the_seed_of_the_run_draws_the_training_pairs(monkeypatch):
    found = {}
    for seed in ("5", "5 again", "6"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed[0])
        torch.manual_seed(len(found))
        found[seed] = _epoch(_pairs(), epoch=1)
    assert torch.equal(found["5"][0], found["5 again"][0])
    assert torch.equal(found["5"][1], found["5 again"][1])
    assert not torch.equal(found["5"][0], found["6"][0])


def test_no_two_pairs_of_seed_and_epoch_share_their_draw():
    pairs = _pairs().train_set
    draws = {tuple(pairs.draw(seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(draws) == 16


def test_each_pair_is_as_likely_as_any_other():
    """Nine pairs of three digits, 3,000 draws: five standard errors of a binomial."""
    pairs = PairSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3))
    counts = Counter(chain(*(pairs.draw(0, epoch).tolist() for epoch in range(1000))))
    assert set(counts) == set(range(9))
    assert all(abs(count - 3000 / 9) < 5 * (3000 * 8 / 81) ** 0.5 for count in counts.values())


def test_a_pair_is_named_by_its_two_digits():
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    pairs = PairSet(images, torch.tensor([10, 20, 40]), torch.tensor([2, 0]))  # digits 2 and 0 only
    found = [pairs[index] for index in range(4)]
    assert [image[0, :, 0].tolist() for image, _ in found] == [[2, 2, 2, 2], [2, 2, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]]
    assert [int(total) for _, total in found] == [80, 50, 50, 20]


def test_validation_and_test_pairs_are_the_same_in_all_runs_and_epochs(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # so that it is put back
    found = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        data = _pairs(batch_size=10 * seed, n_train=100 * seed)
        found.append((data.val_set.digest(), data.test_set.digest()))
        for part in ("val", "test"):
            assert torch.equal(_epoch(data, part, 0)[0], _epoch(data, part, 3)[0])
    assert found[0] == found[1]


def test_the_split_seed_chooses_other_validation_pairs_and_the_same_test_pairs():
    first, second = _pairs(split_seed=0), _pairs(split_seed=1)
    assert first.val_set.digest() != second.val_set.digest()
    assert first.test_set.digest() == second.test_set.digest()


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_processes_share_the_draw_of_an_epoch(epoch):
    pairs = _pairs(n_train=251).train_set
    shards = []
    for rank in (0, 1):
        sampler = PairSampler(pairs, shuffle=True, rank=rank, world_size=2, seed=7)
        sampler.set_epoch(epoch)
        shards.append(list(sampler))
    draw = pairs.draw(7, epoch).tolist()
    assert shards == [draw[0::2], [*draw[1::2], NOBODY]]
    images, sums = pairs.__getitems__(shards[1][-2:])
    assert len(images) == len(sums) == 1


def test_the_training_pairs_of_an_epoch_can_be_measured_again_at_its_end(make_trainer, monkeypatch):
    """On the pairs of that very epoch, so that nothing but the weights differs from the running average."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    data = _pairs(evaluate_train=True)
    torch.manual_seed(0)
    model, trainer = LinearClassifier((1, 56, 28), 19), make_trainer(max_epochs=2)
    trainer.fit(model, data)
    images, sums = data.train_set.__getitems__(data.train_set.draw(3, 1))
    with torch.no_grad():
        logits = model(data.normalize(images)).double()
    logged = trainer.callback_metrics
    assert float(logged["train_end/loss"]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, sums)), rel=1e-5
    )
    assert float(logged["train_end/acc"]) == pytest.approx(float((logits.argmax(1) == sums).double().mean()), abs=1e-6)


def test_pixels_are_normalised_with_the_statistics_of_the_training_digits():
    data, plain = _pairs(), Digits(n_train=250, n_val=201)
    plain.setup("fit")
    assert data.normalize.statistics() == plain.normalize.statistics()


def test_the_source_may_be_mnist(mnist_format, values):
    data = _pairs(source="mnist", data_dir=str(mnist_format), verify=False, n_val=200)
    images, sums = _epoch(data)
    digits = [values[half] for half in _halves(images)]
    assert sums.tolist() == [a + b for a, b in zip(digits[:250], digits[250:], strict=True)]
    assert data.card()["sizes"] == {"train": 250, "val": 200, "test": 360}
    assert _pairs(n_val=200).test_set.digest() == data.test_set.digest()  # the same digits in another format


def test_as_many_digits_are_for_validation_as_the_source_has_by_default():
    assert PairedDigits(source="digits").n_val == Digits().n_val
    assert PairedDigits().n_val == 5000


def test_files_that_are_not_mnist_are_refused_by_default(mnist_format):
    data = PairedDigits(data_dir=str(mnist_format), n_val=200)
    with pytest.raises(ValueError, match="ubyte"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "letters"}, r"data\.source is 'letters'; it must be one of mnist, digits"),
        ({"source": "digits", "n_val": 0}, r"data\.n_val is 0"),
        ({"source": "digits", "normalization": "zca"}, r"data\.normalization"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        PairedDigits(**options)
