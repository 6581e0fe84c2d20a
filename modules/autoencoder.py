"""Autoencoders of images.

Shapes: B batch size, C channels, H rows, W columns, D dimension of the code.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, final

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from modules.base import Batch, Regressor
from modules.layers import ACTIVATIONS, fully_connected, require_widths
from modules.metrics import KNNAccuracy, MeanLoss, SplitMetrics

CodeActivation = Literal["none", "relu"]


class BaseAutoencoder(Regressor):
    """Base class of autoencoders: an encoder and a decoder, trained on the mean squared error of pixels in [0, 1].

    Logs `loss` and, for validation and test, `knn_acc`: the leave-one-out accuracy of a 10-nearest-neighbour classifier
    on the codes of the split. It measures how well the codes separate the classes.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, **training: Any) -> None:
        super().__init__(**training)
        self.val_metrics.others = MetricCollection({"knn_acc": KNNAccuracy()}, prefix="val/")
        self.test_metrics.others = MetricCollection({"knn_acc": KNNAccuracy()}, prefix="test/")

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        return {"loss": MeanLoss(nn.functional.mse_loss)}

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map images with pixels in [0, 1] to reconstructions of the same shape."""

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        images_BCHW, labels_B = batch
        codes_BD = self.encoder(images_BCHW.to(self.dtype))
        reconstructions_BCHW = self.decoder(codes_BD)
        metrics.update(reconstructions_BCHW, images_BCHW)
        metrics.others.update(codes_BD.detach().float(), labels_B)
        loss = nn.functional.mse_loss(reconstructions_BCHW, images_BCHW)
        return loss, {"codes": codes_BD, "labels": labels_B, "reconstructions": reconstructions_BCHW}

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        if batch_idx == 0 and len(batch[0]) and (batch[0].amin() < 0 or batch[0].amax() > 1):
            raise ValueError("autoencoders need pixels in [0, 1]: set data.normalization to unit")
        return super().training_step(batch, batch_idx)


@final
class Autoencoder(BaseAutoencoder):
    """Fully connected autoencoder: the decoder mirrors the encoder; ReLU between layers, sigmoid at the output.

    Args:
        input_shape: Channels, rows and columns of an image.
        hidden: Units of each layer between the pixels and the code.
        code: Dimension of the code.
        code_activation: "relu" keeps the code non-negative.
        **training: Optimiser and scheduler, see `Learner`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        hidden: Sequence[int] = (512, 256, 64),
        code: int = 2,
        code_activation: CodeActivation = "none",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        require_widths("code", [code])
        sizes = [math.prod(input_shape), *hidden]
        encoder = fully_connected(sizes, code, activation="relu", dropout=0)
        decoder = fully_connected([code, *reversed(hidden)], sizes[0], activation="relu", dropout=0)
        self.encoder = nn.Sequential(nn.Flatten(), *encoder, ACTIVATIONS[code_activation]())
        self.decoder = nn.Sequential(*decoder, nn.Sigmoid(), nn.Unflatten(1, input_shape))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        reconstructions_BCHW: Tensor = self.decoder(self.encoder(images_BCHW))
        return reconstructions_BCHW


@final
class ConvAutoencoder(BaseAutoencoder):
    """Convolutional autoencoder: strided convolutions, then hidden layers; the decoder mirrors them, transposed.

    Args:
        input_shape: Channels, rows and columns of an image.
        channels: Output channels of each 3x3 convolution; each one halves the image.
        hidden: Units of each layer between the convolutions and the code.
        code: Dimension of the code.
        code_activation: "relu" keeps the code non-negative.
        **training: Optimiser and scheduler, see `Learner`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        channels: Sequence[int] = (16, 32),
        hidden: Sequence[int] = (128,),
        code: int = 2,
        code_activation: CodeActivation = "none",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        require_widths("channels", channels)
        require_widths("code", [code])
        if not channels:
            raise ValueError("model.channels is empty: use modules.autoencoder.Autoencoder without convolutions")
        stride = 2 ** len(channels)
        if input_shape[1] % stride or input_shape[2] % stride:
            raise ValueError(f"model.channels: {input_shape[1:]} cannot be halved {len(channels)} times")
        widths = [input_shape[0], *channels]
        feature_shape = (widths[-1], input_shape[1] // stride, input_shape[2] // stride)
        sizes = [math.prod(feature_shape), *hidden]
        encoder = fully_connected(sizes, code, activation="relu", dropout=0)
        decoder = fully_connected([code, *reversed(hidden)], sizes[0], activation="relu", dropout=0)
        self.encoder = nn.Sequential(*_downsample(widths), nn.Flatten(), *encoder, ACTIVATIONS[code_activation]())
        upsampling = [nn.ReLU(), nn.Unflatten(1, feature_shape), *_upsample(widths[::-1])]
        self.decoder = nn.Sequential(*decoder, *upsampling, nn.Sigmoid())

    def forward(self, images_BCHW: Tensor) -> Tensor:
        reconstructions_BCHW: Tensor = self.decoder(self.encoder(images_BCHW))
        return reconstructions_BCHW


def _downsample(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
    return layers


def _upsample(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.ReLU(), nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)]
    return layers[1:]
