"""Preprocessing of images for a published network, as a layer: channels, size and normalisation.

Shapes: B batch size, C channels, H rows, W columns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.architecture import InputFormat


class Preprocess(nn.Module):
    """Map images with pixels in [0, 1] to the input of a network: three channels, one size, normalised.

    Greyscale images are repeated three times. Images of another size are resized, without keeping the aspect ratio. The
    statistics are saved with the weights.

    Args:
        input_format: What the network takes.
        image_size: Rows and columns of the result, if not those of the format.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, input_format: InputFormat, image_size: int | None = None) -> None:
        super().__init__()
        self.size, self.interpolation = image_size or input_format.size, input_format.interpolation
        self.register_buffer("mean_C11", torch.tensor(input_format.mean)[:, None, None])
        self.register_buffer("std_C11", torch.tensor(input_format.std)[:, None, None])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.shape[1] == 1:
            images_BCHW = images_BCHW.expand(-1, 3, -1, -1)
        size = (self.size, self.size)
        if images_BCHW.shape[2:] != size:
            smooth = self.interpolation != "nearest"
            options = {"antialias": True, "align_corners": False} if smooth else {}
            images_BCHW = F.interpolate(images_BCHW.float(), size, mode=self.interpolation, **options).clamp(0, 1)
        return ((images_BCHW - self.mean_C11) / self.std_C11).to(self.mean_C11.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, interpolation={self.interpolation}"
