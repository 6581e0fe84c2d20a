"""Autoencoders: through a narrow code and back to the image.

Shapes: B images of a batch, C channels, H rows, W columns, D numbers of a code.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, final

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from modules.base import Batch, Regressor
from modules.layers import activation, fully_connected, require_widths
from modules.metrics import MeanLoss, NeighbourAccuracy, SplitMetrics

CodeActivation = Literal["none", "relu"]


class CodingRegressor(Regressor):
    """An encoder and a decoder, trained to give the image back: pixels in [0, 1], mean squared error.

    Logs `loss` and, for validation and test, `knn_acc`: how often the ten nearest codes of other images of the same set
    vote for the class of an image, which tells how well the classes are separated.
    """

    encoder: nn.Module
    decoder: nn.Module

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        self.val_neighbours, self.test_neighbours = NeighbourAccuracy(), NeighbourAccuracy()
        return {"loss": MeanLoss(nn.functional.mse_loss)}

    @abstractmethod
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images, pixels in [0, 1], to images of the same shape."""

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        images_BCHW, labels_B = batch
        codes_BD = self.encoder(images_BCHW.to(self.dtype))
        images_again_BCHW = self.decoder(codes_BD)
        metrics.update(images_again_BCHW, images_BCHW)
        loss = nn.functional.mse_loss(images_again_BCHW, images_BCHW)
        return loss, {"codes": codes_BD, "labels": labels_B, "reconstructions": images_again_BCHW}

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        if batch_idx == 0 and len(batch[0]) and (batch[0].amin() < 0 or batch[0].amax() > 1):
            raise ValueError("an autoencoder's pixels must be in [0, 1]: set data.normalization to unit")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        outputs = super().validation_step(batch, batch_idx, dataloader_idx)
        if not dataloader_idx:
            self.val_neighbours.update(outputs["codes"].float(), outputs["labels"])
        return outputs

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        outputs = super().test_step(batch, batch_idx)
        self.test_neighbours.update(outputs["codes"].float(), outputs["labels"])
        return outputs

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.val_neighbours.reset()  # an interrupted epoch may have left something

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.test_neighbours.reset()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self._log_neighbours("val", self.val_neighbours)

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._log_neighbours("test", self.test_neighbours)

    def _log_neighbours(self, split: str, neighbours: NeighbourAccuracy) -> None:
        self.log(f"{split}/knn_acc", neighbours.compute(), sync_dist=True)
        neighbours.reset()


@final
class Autoencoder(CodingRegressor):
    """Fully connected layers down to the code and, mirrored, up again; ReLU between them, sigmoid at the end.

    Args:
        input_shape: Channels, rows, columns of an image.
        hidden: Units of each layer between the pixels and the code.
        code: Numbers of the code.
        code_activation: "relu" keeps the code positive.
        **training: Optimiser and scheduler of `Regressor`.
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
        down = fully_connected(sizes, code, activation_name="relu", dropout=0)
        up = fully_connected([code, *reversed(hidden)], sizes[0], activation_name="relu", dropout=0)
        self.encoder = nn.Sequential(nn.Flatten(), *down, activation(code_activation))
        self.decoder = nn.Sequential(*up, nn.Sigmoid(), nn.Unflatten(1, input_shape))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        images_again_BCHW: Tensor = self.decoder(self.encoder(images_BCHW))
        return images_again_BCHW


@final
class ConvAutoencoder(CodingRegressor):
    """Strided convolutions and one hidden layer down to the code; mirrored, with transposed convolutions, up again.

    Args:
        input_shape: Channels, rows, columns of an image.
        channels: Output channels of each 3x3 convolution, which halves the image.
        hidden: Units of each layer between the convolutions and the code.
        code: Numbers of the code.
        code_activation: "relu" keeps the code positive.
        **training: Optimiser and scheduler of `Regressor`.
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
            raise ValueError("model.channels is empty: without convolutions, modules.autoencoder.Autoencoder will do")
        shrink = 2 ** len(channels)
        if input_shape[1] % shrink or input_shape[2] % shrink:
            raise ValueError(f"model.channels: {input_shape[1:]} cannot be halved {len(channels)} times")
        widths = [input_shape[0], *channels]
        small = (widths[-1], input_shape[1] // shrink, input_shape[2] // shrink)
        sizes = [math.prod(small), *hidden]
        down = fully_connected(sizes, code, activation_name="relu", dropout=0)
        up = fully_connected([code, *reversed(hidden)], sizes[0], activation_name="relu", dropout=0)
        self.encoder = nn.Sequential(*_halve(widths), nn.Flatten(), *down, activation(code_activation))
        self.decoder = nn.Sequential(*up, nn.ReLU(), nn.Unflatten(1, small), *_double(widths[::-1]), nn.Sigmoid())

    def forward(self, images_BCHW: Tensor) -> Tensor:
        images_again_BCHW: Tensor = self.decoder(self.encoder(images_BCHW))
        return images_again_BCHW


def _halve(widths: Sequence[int]) -> list[nn.Module]:
    return [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())]


def _double(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for wide_in, wide_out in pairwise(widths):
        layers += [nn.ReLU(), nn.ConvTranspose2d(wide_in, wide_out, 4, stride=2, padding=1)]
    return layers[1:]
