"""PairedDigits: labels, splits, and the sampling of pairs."""

from collections import Counter
from itertools import chain

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from datamodules.digits import Digits
from datamodules.paired_digits import PairedDigits, PairSampler, PairSet
from datamodules.sampling import PAD_INDEX
from modules.linear import LinearClassifier

SPLITS = ("train", "val", "test")


def _pairs(**options) -> PairedDigits:
    data = PairedDigits(**{"source": "digits", "n_train": 250, "n_val": 201, "batch_size": 60, **options})
    data.setup("fit")
    data.setup("test")
    return data


def _epoch(data: PairedDigits, split: str = "train", epoch: int = 0) -> tuple[Tensor, Tensor]:
    """All pairs of an epoch, as yielded by the loader."""
    loader = getattr(data, f"{split}_dataloader")()
    loader.sampler.set_epoch(epoch)
    images, sums = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(sums)


def _halves(images: Tensor) -> list[bytes]:
    """Pixels of the single digits of all pairs, upper ones first."""
    return [image.numpy().tobytes() for image in [*images[:, :, :28], *images[:, :, 28:]]]


@pytest.fixture(scope="module")
def label_of() -> dict[bytes, int]:
    """Label of each digit, by its pixels."""
    both = [Digits().load(train=train) for train in (True, False)]
    return {image.numpy().tobytes(): int(label) for images, labels in both for image, label in zip(images, labels)}  # noqa: B905


@pytest.mark.parametrize("split", SPLITS)
def test_the_label_is_the_sum_of_the_two_digits(split, label_of):
    images, sums = _epoch(_pairs(), split)
    assert images.shape == ({"train": 250, "val": 201, "test": 360}[split], 1, 56, 28)
    assert images.dtype == torch.uint8
    digits = [label_of[half] for half in _halves(images)]
    top, bottom = digits[: len(sums)], digits[len(sums) :]
    assert sums.tolist() == [a + b for a, b in zip(top, bottom, strict=True)]
    assert set(top) == set(bottom) == set(range(10))


def test_there_are_nineteen_classes():
    data = PairedDigits(source="digits")
    assert data.classes == tuple(str(total) for total in range(19))
    assert data.num_classes == 19


def test_both_digits_of_a_pair_are_from_its_split():
    data = _pairs()
    plain = Digits(n_train=250, n_val=201)
    plain.setup("fit")
    plain.setup("test")
    of_split = {split: {image.numpy().tobytes() for image in getattr(plain, f"{split}_set").inputs} for split in SPLITS}
    assert not of_split["train"] & of_split["val"]
    assert not of_split["test"] & (of_split["train"] | of_split["val"])
    for split in SPLITS:
        for epoch in (0, 1):
            assert set(_halves(_epoch(data, split, epoch)[0])) <= of_split[split]


def test_training_pairs_are_sampled_anew_in_each_epoch():
    """Two epochs of 250 out of 62,500 pairs share about one pair."""
    data = _pairs()
    epochs = [{image.numpy().tobytes() for image in _epoch(data, epoch=epoch)[0]} for epoch in range(4)]
    for number, epoch in enumerate(epochs):
        assert len(epoch) > 240
        assert len(epoch & set(chain(*epochs[:number]))) < 20


def test_the_seed_of_the_run_determines_the_training_pairs(monkeypatch):
    epochs = {}
    for seed in ("5", "5 repeated", "6"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed[0])
        torch.manual_seed(len(epochs))
        epochs[seed] = _epoch(_pairs(), epoch=1)
    assert torch.equal(epochs["5"][0], epochs["5 repeated"][0])
    assert torch.equal(epochs["5"][1], epochs["5 repeated"][1])
    assert not torch.equal(epochs["5"][0], epochs["6"][0])


def test_each_combination_of_seed_and_epoch_has_its_own_sample():
    pairs = _pairs().train_set
    samples = {tuple(pairs.sample_pairs(seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(samples) == 16


def test_all_pairs_are_equally_likely():
    """Nine pairs of three digits, 3,000 samples, within five standard errors of a binomial."""
    pairs = PairSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3))
    counts = Counter(chain(*(pairs.sample_pairs(0, epoch).tolist() for epoch in range(1000))))
    assert set(counts) == set(range(9))
    assert all(abs(count - 3000 / 9) < 5 * (3000 * 8 / 81) ** 0.5 for count in counts.values())


def test_the_index_of_a_pair_determines_its_two_digits():
    images = torch.tensor([2, 0], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    pairs = PairSet(images, torch.tensor([40, 10]))
    examples = [pairs[index] for index in range(4)]
    columns = [image[0, :, 0].tolist() for image, _ in examples]
    assert columns == [[2, 2, 2, 2], [2, 2, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]]
    assert [int(total) for _, total in examples] == [80, 50, 50, 20]


def test_validation_and_test_pairs_are_the_same_in_all_runs_and_epochs(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # restored after the test
    digests = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        data = _pairs(batch_size=10 * seed, n_train=100 * seed)
        digests.append((data.val_set.digest(), data.test_set.digest()))
        for split in ("val", "test"):
            assert torch.equal(_epoch(data, split, 0)[0], _epoch(data, split, 3)[0])
    assert digests[0] == digests[1]


def test_the_split_seed_changes_the_validation_pairs_and_not_the_test_pairs():
    first, second = _pairs(split_seed=0), _pairs(split_seed=1)
    assert first.val_set.digest() != second.val_set.digest()
    assert first.test_set.digest() == second.test_set.digest()


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_processes_share_the_pairs_of_an_epoch(epoch):
    pairs = _pairs(n_train=251).train_set
    shards = []
    for rank in (0, 1):
        sampler = PairSampler(pairs, shuffle=True, rank=rank, world_size=2, seed=7)
        sampler.set_epoch(epoch)
        shards.append(list(sampler))
    sample = pairs.sample_pairs(7, epoch).tolist()
    assert shards == [sample[0::2], [*sample[1::2], PAD_INDEX]]
    images, sums = pairs.__getitems__(shards[1][-2:])
    assert len(images) == len(sums) == 1


def test_the_training_pairs_of_an_epoch_can_be_evaluated_again_at_its_end(make_trainer, monkeypatch):
    """On the pairs of the same epoch, so that only the weights differ from the running average."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    data = _pairs(evaluate_train=True)
    torch.manual_seed(0)
    model, trainer = LinearClassifier((1, 56, 28), 19), make_trainer(max_epochs=2)
    trainer.fit(model, data)
    images, sums = data.train_set.__getitems__(data.train_set.sample_pairs(3, 1))
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


def test_the_source_may_be_mnist(mnist_format, label_of):
    data = _pairs(source="mnist", data_dir=str(mnist_format), verify=False, n_val=200)
    images, sums = _epoch(data)
    digits = [label_of[half] for half in _halves(images)]
    assert sums.tolist() == [a + b for a, b in zip(digits[:250], digits[250:], strict=True)]
    assert data.describe()["sizes"] == {"train": 250, "val": 200, "test": 360}
    assert _pairs(n_val=200).test_set.digest() == data.test_set.digest()  # the same digits in another format


def test_the_default_n_val_is_that_of_the_source():
    assert PairedDigits(source="digits").n_val == Digits().n_val
    assert PairedDigits().n_val == 5000


def test_unofficial_files_are_an_error_by_default(mnist_format):
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
def test_the_error_for_an_invalid_value_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        PairedDigits(**options)
