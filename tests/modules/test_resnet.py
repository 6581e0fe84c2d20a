"""ResNet-9: parameter counts, image sizes, residual blocks and training."""

import pytest
import torch
from torch import nn

from modules.resnet import LOGIT_SCALE, ResNet9

CONVOLUTIONS = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]


def test_parameter_counts_equal_hand_computed_ones():
    """Eight 3x3 convolutions without bias, scale and shift of each channel, one linear layer without bias."""
    convolutions = sum(9 * n_in * n_out for n_in, n_out in CONVOLUTIONS)
    batch_norms = sum(2 * n_out for _, n_out in CONVOLUTIONS)
    model = ResNet9((3, 32, 32), 10)
    channels = [(layer.in_channels, layer.out_channels) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert channels == CONVOLUTIONS
    assert sum(p.numel() for p in model.parameters()) == convolutions + batch_norms + 512 * 10 == 6_573_120


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 9, 30)])
def test_images_of_8x8_and_larger_are_accepted(shape):
    model = ResNet9(shape, 7, width=4).eval()
    assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("shape", [(1, 7, 28), (3, 28, 7), (1, 4, 4)])
def test_smaller_images_are_an_error(shape):
    with pytest.raises(ValueError, match=r"below 8x8"):
        ResNet9(shape, 10)


def test_the_error_for_a_width_below_one_names_its_key():
    with pytest.raises(ValueError, match=r"model\.width"):
        ResNet9((3, 32, 32), 10, width=0)


def test_a_residual_block_whose_path_outputs_zero_is_the_identity():
    block = next(layer for layer in ResNet9((1, 8, 8), 2, width=2).modules() if hasattr(layer, "path"))
    with torch.no_grad():
        for layer in block.path:
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.zero_()
    features = torch.randn(3, 4, 5, 5)
    assert torch.equal(block(features), features)


def test_the_logits_are_scaled():
    model, images = ResNet9((1, 8, 8), 3, width=2).eval(), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model(images), model.net(images) / 8)
    assert LOGIT_SCALE == 1 / 8


def test_the_memory_layout_of_the_images_does_not_matter():
    torch.manual_seed(0)
    model, images = ResNet9((3, 32, 32), 10, width=4).eval(), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(model(images), model(images.to(memory_format=torch.channels_last)))


def test_it_learns_and_loads_from_a_checkpoint(digits, make_trainer, tmp_path):
    torch.manual_seed(0)
    model, trainer = ResNet9((1, 28, 28), 10, width=4, label_smoothing=0.1), make_trainer(max_epochs=3)
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ResNet9.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = digits.normalize(digits.val_set.inputs)
    assert torch.equal(loaded(images), model.eval()(images))
    assert trainer.callback_metrics["train/acc"] > 0.3
