"""PairedDigitsNet: both halves of the image share one fully connected layer."""

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
    """Two batches of 8 digits with 8 black rows at the top and bottom, beyond the reach of the filters."""
    images = digits.train_set.inputs[:16].float() / 255
    images[:, :, :8] = images[:, :, -8:] = 0
    return images[:8], images[8:]


def test_parameter_counts_equal_hand_computed_ones():
    """Two convolutions, one layer 3136 -> 1024, one layer 2048 -> 19."""
    counts = [parameter.numel() for parameter in PairedDigitsNet(SHAPE, 19).parameters()]
    assert counts == [32 * 25, 32, 64 * 32 * 25, 64, 3136 * 1024, 1024, 2048 * 19, 19]
    assert sum(counts) == 3_303_315


def _outputs_of_both_halves(net: PairedDigitsNet, images: Tensor) -> list[Tensor]:
    """Outputs of the shared layer for the upper and for the lower half, recorded in a forward pass."""
    recorded: list[Tensor] = []
    hook = net.read.register_forward_hook(lambda layer, inputs, outputs: recorded.append(outputs.detach()))
    net(images)
    hook.remove()
    assert len(recorded) == 2
    return recorded


def test_a_digit_has_the_same_features_at_the_top_and_at_the_bottom(two_digits):
    """Without biases in the convolutions, black pixels stay 0, so that each half is independent of the other."""
    net, (digit, _) = _net(), two_digits
    with torch.no_grad():
        for layer in net.trunk:
            if isinstance(layer, nn.Conv2d):
                layer.bias.zero_()
    black = torch.zeros_like(digit)
    top, _ = _outputs_of_both_halves(net, torch.cat([digit, black], 2))
    _, bottom = _outputs_of_both_halves(net, torch.cat([black, digit], 2))
    torch.testing.assert_close(top, bottom, rtol=0, atol=1e-6)
    assert top.std(0).max() > 0.01  # not the same for all digits


def test_away_from_the_border_of_the_halves_the_convolutions_see_only_one_half(two_digits):
    net, (first, second) = _net(), two_digits
    above = net.trunk(torch.cat([first, second], 2))[:, :, 1:6]
    below = net.trunk(torch.cat([second, first], 2))[:, :, 8:13]
    torch.testing.assert_close(above, below, rtol=0, atol=1e-6)


def test_with_equal_output_weights_for_both_halves_the_order_of_the_digits_does_not_matter(two_digits):
    net, (first, second) = _net(), two_digits
    with torch.no_grad():
        for layer in net.trunk:
            if isinstance(layer, nn.Conv2d):
                layer.bias.zero_()
        net.add.weight[:, 32:] = net.add.weight[:, :32]
    logits, swapped = net(torch.cat([first, second], 2)), net(torch.cat([second, first], 2))
    torch.testing.assert_close(logits, swapped, rtol=0, atol=1e-6)
    with torch.no_grad():
        net.add.weight[:, 32:] = -net.add.weight[:, :32]
    logits, swapped = net(torch.cat([first, second], 2)), net(torch.cat([second, first], 2))
    assert float((logits - swapped).detach().abs().max()) > 0.01


def test_both_halves_contribute_to_the_gradient_of_the_shared_layer(two_digits):
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
def test_the_error_for_an_image_that_cannot_be_halved_names_the_key_and_the_size(shape, channels):
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
def test_the_error_for_an_invalid_value_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        PairedDigitsNet(SHAPE, 19, **options)


def test_any_image_size_that_can_be_halved_is_accepted():
    assert PairedDigitsNet((3, 16, 9), 5, channels=(2, 3))(torch.zeros(4, 3, 16, 9)).shape == (4, 5)
    assert PairedDigitsNet((1, 2, 1), 5, channels=())(torch.zeros(4, 1, 2, 1)).shape == (4, 5)


def test_it_learns_and_loads_from_a_checkpoint(make_trainer, tmp_path):
    data = PairedDigits("digits", n_train=250, n_val=100, batch_size=50)
    model = _net(dropout=0.1, optimizer=partial(torch.optim.Adam, lr=0.003)).train()
    trainer = make_trainer(max_epochs=15)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = PairedDigitsNet.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = data.normalize(data.val_set.inputs)
    assert torch.equal(loaded(images), model.eval()(images))
    assert trainer.callback_metrics["train/loss"] < 2.7  # the entropy of the sum of two digits is 2.79
