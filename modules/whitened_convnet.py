"""A convolutional network for fast training: whitened first layer, filters of constant norm, views at test time.

Shapes: B batch size, C channels, H rows, W columns, K classes, P patches, V values of a patch.
"""

from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.base import Batch, Classifier
from modules.layers import require_widths

Views = Literal["one", "flip", "flip_shift"]
SIDE = 2
"""Rows and columns of the whitened patches."""
STATISTICS_MOMENTUM = 0.4
"""Of a batch norm's running statistics, which must follow a training of some hundred steps."""


@final
class WhitenedConvNet(Classifier):
    """A whitening convolution, three blocks of two 3x3 convolutions with batch norm and GELU, one linear layer.

    After K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024). The first layer decorrelates patches of
    2x2 pixels of the first training batch; it is not trained, but its bias is. The first convolution of each block
    begins as the identity, as far as it has input channels. Batch norms have a bias and no weight.

    Args:
        input_shape: Channels, rows and columns of an image; at least 9x9 pixels.
        num_classes: Number of classes.
        widths: Output channels of the blocks.
        epsilon: Added to the variances of the patches, so that noise is not amplified.
        test_views: Views of an image over which test and prediction average the logits: "one" is the image itself;
            "flip" adds its mirror image; "flip_shift" adds both, shifted by a pixel to either side along the diagonal,
            with half of the weight. Validation takes one.
        **training: Loss, optimiser and scheduler, see `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (64, 256, 256),
        epsilon: float = 5e-4,
        test_views: Views = "one",
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        require_widths("widths", widths)
        if min(input_shape[1:]) < 2 ** len(widths) + 1:
            raise ValueError(f"WhitenedConvNet halves the image {len(widths)} times: {input_shape[1:]} is too small")
        if test_views not in get_args(Views):
            raise ValueError(f"model.test_views is {test_views!r}; it must be one of {', '.join(get_args(Views))}")
        self._test_views = test_views
        self.whitening = Whitening(input_shape[0], epsilon)
        head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.normal_(head.weight, std=1 / widths[-1])  # small logits, whatever the width is
        self.net = nn.Sequential(
            nn.GELU(),
            *(_Block(n_in, n_out) for n_in, n_out in zip([self.whitening.channels, *widths], widths, strict=False)),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            head,
        ).to(memory_format=torch.channels_last)
        self._must_whiten = False

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map normalised images to logits of shape (B, K)."""
        logits_BK: Tensor = self.net(self.whitening(images_BCHW.contiguous(memory_format=torch.channels_last)))
        return logits_BK

    def on_train_start(self) -> None:
        self._must_whiten = not bool(self.whitening.is_fitted)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        if self._must_whiten:
            self.whitening.fit(batch[0])
            self.whitening.load_state_dict(self.trainer.strategy.broadcast(self.whitening.state_dict()))
            self._must_whiten = False
        return super().training_step(batch, batch_idx)

    def on_test_start(self) -> None:
        if self._test_views != "one":
            count = len(views(torch.zeros(1, 1, 3, 3), self._test_views))
            self.print(f"model.test_views: test metrics are of the mean logits of {count} views of each image")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images_BCHW, labels_B = batch
        logits_BK = self._logits_of_views(images_BCHW)
        self.test_metrics.update(logits_BK, labels_B)
        return {"logits": logits_BK, "labels": labels_B}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._logits_of_views(batch[0]).float().softmax(1)

    def _logits_of_views(self, images_BCHW: Tensor) -> Tensor:
        logits_BK = torch.zeros((), device=images_BCHW.device)
        for weight, view_BCHW in views(images_BCHW.to(self.dtype), self._test_views):
            logits_BK = logits_BK + weight * self(view_BCHW)
        return logits_BK


class Whitening(nn.Module):
    """A convolution that decorrelates patches: its filters are the scaled principal components, and their negatives.

    Args:
        channels: Channels of an image.
        epsilon: Added to the variances of the components.
    """

    weight: Tensor
    is_fitted: Tensor

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.channels, self._epsilon = 2 * channels * SIDE**2, epsilon
        self.register_buffer("weight", torch.randn(self.channels, channels, SIDE, SIDE))  # until it is fitted
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))
        self.bias = nn.Parameter(torch.zeros(self.channels))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the components of all patches, shape (B, 8 * C, H - 1, W - 1)."""
        return F.conv2d(images_BCHW, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, images_BCHW: Tensor) -> None:
        """Set the filters to the principal components of the patches of images, divided by their standard deviation."""
        patches_PV = F.unfold(images_BCHW.float(), SIDE).transpose(1, 2).flatten(0, 1)
        variances_V, components_VV = torch.linalg.eigh(patches_PV.T @ patches_PV / len(patches_PV))
        filters_VV = components_VV.T / (variances_V.clamp(min=0) + self._epsilon).sqrt()[:, None]
        self.weight.copy_(torch.cat([filters_VV, -filters_VV]).view_as(self.weight))
        self.is_fitted.fill_(True)


class _Block(nn.Module):
    """Two convolutions with batch norm and GELU; the image is halved after the first."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(count, n_out, 3, padding=1, bias=False) for count in (n_in, n_out))
        for convolution in (first, second):
            with torch.no_grad():
                nn.init.dirac_(convolution.weight[: convolution.in_channels])
        self.layers = nn.Sequential(first, nn.MaxPool2d(2), _norm(n_out), nn.GELU(), second, _norm(n_out), nn.GELU())

    def forward(self, features_BCHW: Tensor) -> Tensor:
        output_BCHW: Tensor = self.layers(features_BCHW)
        return output_BCHW


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=STATISTICS_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


def views(images_BCHW: Tensor, kind: Views) -> list[tuple[float, Tensor]]:
    """Return views of images with their weights, which add up to 1; see `WhitenedConvNet`."""
    if kind == "one":
        return [(1.0, images_BCHW)]
    if kind == "flip":
        return [(0.5, images_BCHW), (0.5, images_BCHW.flip(3))]
    rows, columns = images_BCHW.shape[2:]
    padded = F.pad(images_BCHW, [1] * 4, "reflect")
    shifted = [padded[:, :, start : start + rows, start : start + columns] for start in (0, 2)]
    weighted = [(0.25, images_BCHW), *((0.125, image) for image in shifted)]
    return [(weight, view) for weight, image in weighted for view in (image, image.flip(3))]
