"""WhitenedConvNet: whitening of patches, first convolutions that copy, views at test time."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.digits import Digits
from modules.muon import Muon
from modules.schedules import Linear
from modules.whitened_convnet import WhitenedConvNet, Whitening, views

SMALL = {"widths": [8, 16]}
MUON = partial(Muon, vector_lr=5.0)


def images(count: int = 4, shape: tuple[int, int, int] = (1, 28, 28)) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def make(views: str = "one", **options) -> WhitenedConvNet:
    torch.manual_seed(0)
    return WhitenedConvNet((1, 28, 28), 10, **{**SMALL, **options}, test_views=views)


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits(batch_size=64, n_train=600, flip="alternate")
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


def test_parameter_counts_equal_hand_computed_ones():
    """Whitening: 24 biases. Blocks: 3x3 convolutions without bias, a bias per channel of each norm. A linear layer."""
    widths = [(24, 64), (64, 256), (256, 256)]
    blocks = sum(9 * (n_in * n_out + n_out * n_out) + 2 * n_out for n_in, n_out in widths)
    model = WhitenedConvNet((3, 32, 32), 10)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 24 + blocks + 256 * 10
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_whitened_patches_are_uncorrelated_with_variance_one():
    pixels = images(20, (3, 12, 12)).cumsum(3)  # neighbours are correlated
    whitening = Whitening(3, epsilon=0.0)
    whitening.fit(pixels)
    values = whitening(pixels).detach()
    assert values.shape == (20, 24, 11, 11)
    half = values[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(half @ half.T / half.shape[1], torch.eye(12), rtol=0, atol=1e-3)
    torch.testing.assert_close(values[:, 12:], -values[:, :12])
    flat = Whitening(3, epsilon=1.0)
    flat.fit(torch.zeros(2, 3, 5, 5))
    assert flat.weight.isfinite().all()


def test_the_first_convolution_of_a_block_begins_as_the_identity_of_its_inputs():
    first = next(layer for layer in make().net.modules() if isinstance(layer, nn.Conv2d))
    features = torch.randn(2, first.in_channels, 7, 7)
    copied = min(first.in_channels, first.out_channels)
    torch.testing.assert_close(first(features)[:, :copied], features[:, :copied])


def test_the_first_training_batch_whitens_once_and_a_resumed_training_keeps_it(digits, make_trainer, tmp_path):
    model, trainer = make(optimizer=MUON), make_trainer(max_epochs=1)
    assert not model.whitening.is_fitted
    trainer.fit(model, digits)
    weight = model.whitening.weight.clone()
    assert model.whitening.is_fitted
    assert weight.abs().sum() > 0
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed, other = make(optimizer=MUON), Digits(batch_size=32, n_train=300)
    make_trainer(max_epochs=2).fit(resumed, other, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert torch.equal(resumed.whitening.weight, weight)
    whole, halves = make(optimizer=MUON), make(optimizer=MUON)
    make_trainer(max_epochs=2).fit(whole, digits)
    make_trainer(max_epochs=2).fit(halves, digits, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_it_learns_digits_within_few_epochs(make_trainer):
    data = Digits(batch_size=64)
    trainer, model = make_trainer(max_epochs=4), make(optimizer=MUON, lr_scheduler=Linear, label_smoothing=0.2)
    trainer.fit(model, data)
    assert float(trainer.callback_metrics["val/acc"]) > 0.95
    assert trainer.lr_scheduler_configs[0].interval == "step"
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [0.0] * 3


@pytest.mark.parametrize(("kind", "count"), [("one", 1), ("flip", 2), ("flip_shift", 6)])
def test_the_weights_of_views_add_up_to_one_and_a_flipped_image_has_the_same_views(kind, count):
    found, mirrored = views(images(), kind), views(images().flip(3), kind)
    assert len(found) == count
    assert sum(weight for weight, _ in found) == pytest.approx(1)
    means = [sum(weight * view.flatten(1).square().cumsum(1) for weight, view in part) for part in (found, mirrored)]
    assert torch.allclose(*means) == (kind == "flip")  # a shift along the diagonal has another mirror image
    assert torch.equal(found[0][1], images())


def test_a_shifted_view_reflects_the_border():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    shifted = [view for _, view in views(image, "flip_shift")][2]
    assert shifted[0, 0].tolist() == [[4, 3, 4], [1, 0, 1], [4, 3, 4]]


def test_test_and_prediction_average_the_views_while_validation_takes_one(digits, make_trainer, capsys):
    model = make("flip").eval()
    model.whitening.fit(images(50))
    pixels = digits.normalized(digits.test_set.inputs)
    with torch.no_grad():
        logits = (model(pixels) + model(pixels.flip(3))) / 2
    (tested,) = make_trainer().test(model, digits, verbose=False)
    assert tested["test/loss"] == pytest.approx(float(F.cross_entropy(logits, digits.test_set.targets)), rel=1e-5)
    assert "mean logits of 2 views" in capsys.readouterr().out
    predicted = model.predict_step((pixels[:5],), 0)
    torch.testing.assert_close(predicted, logits[:5].softmax(1))
    (validated,) = make_trainer().validate(model, digits, verbose=False)
    inputs = digits.normalized(digits.val_set.inputs)
    with torch.no_grad():
        expected = float(F.cross_entropy(model(inputs), digits.val_set.targets))
    assert validated["val/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_views": "five"}, r"model\.test_views is 'five'; it must be one of one, flip, flip_shift"),
        ({"widths": [8, 0]}, r"model\.widths has an entry below 1"),
        ({"widths": [4] * 5}, r"halves the image 5 times: \(28, 28\) is too small"),
    ],
)
def test_the_error_for_an_invalid_value_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        WhitenedConvNet((1, 28, 28), 10, **options)
