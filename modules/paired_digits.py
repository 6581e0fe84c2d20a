"""The sum of two digits, one above the other, with one layer that reads both."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from modules.base import Classifier
from modules.layers import require_rate, require_widths

KERNEL = 5


@final
class PairedDigitsNet(Classifier):
    """Convolutions over the whole image, then one fully connected layer, applied to either half of it.

    The two halves share its weights and bias, since a digit is read in the same way wherever it stands; a last linear
    layer tells the sum from both.

    Args:
        input_shape: Channels, rows, columns of an image; its rows must be cut in two by the poolings and the halves.
        num_classes: Number of sums.
        channels: Output channels of each 5x5 convolution, which a ReLU and a 2x2 max-pooling follow.
        hidden: Units that read a digit.
        dropout: Rate on these units, 0 for none.
        **training: Loss, optimiser and scheduler of `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int] = (32, 64),
        hidden: int = 1024,
        dropout: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        require_rate("dropout", dropout)
        require_widths("channels", channels)
        require_widths("hidden", [hidden])
        n_in, rows, columns = input_shape
        shrink = 2 ** len(channels)
        if rows % (2 * shrink) or columns < shrink:
            raise ValueError(f"model.channels: {len(channels)} poolings do not leave two halves of {rows}x{columns}")
        layers: list[nn.Module] = []
        for wide_in, wide_out in zip([n_in, *channels], channels, strict=False):
            layers += [nn.Conv2d(wide_in, wide_out, KERNEL, padding=KERNEL // 2), nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # as in ConvNet
        self.half_rows = rows // shrink // 2
        features = [n_in, *channels][-1] * self.half_rows * (columns // shrink)
        self.read = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.add = nn.Linear(2 * hidden, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = self.trunk(images_BCHW)
        top = self.read(features_BCHW[:, :, : self.half_rows])
        bottom = self.read(features_BCHW[:, :, self.half_rows :])
        logits_BK: Tensor = self.add(torch.cat([top, bottom], 1))
        return logits_BK
