"""The network that adds two digits: one reader for both halves of the image."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from datamodules.paired_digits import PairedDigits
from modules.paired_digits import PairedDigitsNet

SHAPE = (1, 56, 28)


def _net(**options) -> PairedDigitsNet:
    torch.manual_seed(0)
    return PairedDigitsNet(SHAPE, 19, **{"channels": (4, 6), "hidden": 32, **options}).eval()


@pytest.fixture
def two_digits(digits) -> tuple[Tensor, Tensor]:
    """Two batches of 8 scans on a black ground, with 8 black rows above and below, out of the filters' reach."""
    images = digits.train_set.images_NCHW[:16].float() / 255
    images[:, :, :8] = images[:, :, -8:] = 0
    return images[:8], images[8:]


def test_the_parameters_are_those_computed_by_hand():
    """Two convolutions, 3136 -> 1024 once, 2048 -> 19."""
    counts = [parameter.numel() for parameter in PairedDigitsNet(SHAPE, 19).parameters()]
    assert counts == [32 * 25, 32, 64 * 32 * 25, 64, 3136 * 1024, 1024, 2048 * 19, 19]
    assert sum(counts) == 3_303_315


def _halves_read(net: PairedDigitsNet, images: Tensor) -> list[Tensor]:
    """What the reader says of the upper and of the lower half, in the forward pass itself."""
    said: list[Tensor] = []
    hook = net.read.register_forward_hook(lambda layer, inputs, outputs: said.append(outputs.detach()))
    net(images)
    hook.remove()
    assert len(said) == 2
    return said


def test_a_digit_is_read_the_same_on_top_and_at_the_bottom(two_digits):
    """Without biases in the convolutions, black stays black, so that a half is as if it stood alone."""
    net, (digit, _) = _net(), two_digits
    with torch.no_grad():
        for layer in net.trunk:
            if isinstance(layer, nn.Conv2d):
                layer.bias.zero_()
    black = torch.zeros_like(digit)
    top, _ = _halves_read(net, torch.cat([digit, black], 2))
    _, bottom = _halves_read(net, torch.cat([black, digit], 2))
    torch.testing.assert_close(top, bottom, rtol=0, atol=1e-6)
    assert top.std(0).max() > 0.01  # and not the same for all digits


def test_away_from_the_seam_the_convolutions_see_only_their_own_half(two_digits):
    net, (first, second) = _net(), two_digits
    above = net.trunk(torch.cat([first, second], 2))[:, :, 1:6]
    below = net.trunk(torch.cat([second, first], 2))[:, :, 8:13]
    torch.testing.assert_close(above, below, rtol=0, atol=1e-6)


def test_with_equal_weights_for_both_halves_the_order_of_the_digits_does_not_matter(two_digits):
    net, (first, second) = _net(), two_digits
    with torch.no_grad():
        for layer in net.trunk:
            if isinstance(layer, nn.Conv2d):
                layer.bias.zero_()
        net.add.weight[:, 32:] = net.add.weight[:, :32]
    one, other = net(torch.cat([first, second], 2)), net(torch.cat([second, first], 2))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    with torch.no_grad():
        net.add.weight[:, 32:] = -net.add.weight[:, :32]
    one, other = net(torch.cat([first, second], 2)), net(torch.cat([second, first], 2))
    assert float((one - other).detach().abs().max()) > 0.01


def test_both_halves_train_the_one_reader(two_digits):
    net, (first, second) = _net(), two_digits
    weight = net.read[1].weight
    net(torch.cat([first, second], 2)).square().sum().backward()
    both = weight.grad.clone()
    with torch.no_grad():
        net.add.weight[:, 32:] = 0
    net.zero_grad()
    net(torch.cat([first, second], 2)).square().sum().backward()
    assert not torch.allclose(both, weight.grad)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((1, 28, 28), (2, 3, 4)), ((1, 54, 28), (2, 3)), ((1, 56, 3), (2, 3)), ((3, 20, 20), (2, 3))],
)
def test_an_image_that_cannot_be_cut_in_two_is_refused(shape, channels):
    with pytest.raises(ValueError, match=rf"model\.channels: {len(channels)} poolings .* {shape[1]}x{shape[2]}"):
        PairedDigitsNet(shape, 19, channels=channels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"model\.dropout is 1\.0"),
        ({"hidden": 0}, r"model\.hidden"),
        ({"channels": (4, 0)}, r"model\.channels"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        PairedDigitsNet(SHAPE, 19, **options)


def test_other_sizes_that_can_be_cut_are_taken():
    assert PairedDigitsNet((3, 16, 9), 5, channels=(2, 3))(torch.zeros(4, 3, 16, 9)).shape == (4, 5)
    assert PairedDigitsNet((1, 2, 1), 5, channels=())(torch.zeros(4, 1, 2, 1)).shape == (4, 5)


def test_it_comes_back_from_a_checkpoint_and_learns(make_trainer, tmp_path):
    data = PairedDigits("digits", n_train=250, n_val=100, batch_size=50)
    model = _net(dropout=0.1, optimizer=partial(torch.optim.Adam, lr=0.003)).train()
    trainer = make_trainer(max_epochs=15)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = PairedDigitsNet.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = data.normalize(data.val_set.images_NCHW)
    assert torch.equal(loaded(images), model.eval()(images))
    assert trainer.callback_metrics["train/loss"] < 2.7  # the entropy of the sum of two digits is 2.79
