"""Random augmentations of a batch, drawn independently per image.

torchvision's v2 transforms draw once per call, so every image of a batch would get the same crop.

Shapes: B images, C channels, H rows, W columns, N pixels of a channel.
"""

import numpy as np
import torch
from torch import Tensor

HASH_BIT = 61


def random_crop(images_BCHW: Tensor, padding: int) -> Tensor:
    """Pad each image with zeros on all sides and crop it to its original size at a random offset.

    Each of the (2 * padding + 1)^2 offsets is equally likely (He et al., 2015, section 4.2).
    """
    B, C, H, W = images_BCHW.shape
    device = images_BCHW.device
    padded = torch.nn.functional.pad(images_BCHW, [padding] * 4)
    top_B, left_B = torch.randint(0, 2 * padding + 1, (2, B), device=device)
    rows_BH = top_B[:, None] + torch.arange(H, device=device)
    columns_BW = left_B[:, None] + torch.arange(W, device=device)
    row_width = W + 2 * padding
    index_BN = (rows_BH[:, :, None] * row_width + columns_BW[:, None, :]).flatten(1)
    pixels_BCN = padded.flatten(2).gather(2, index_BN[:, None].expand(B, C, H * W))
    return pixels_BCN.view(B, C, H, W)


def random_flip(images_BCHW: Tensor) -> Tensor:
    """Flip each image left to right with probability 1/2."""
    flipped_B = torch.rand(len(images_BCHW), device=images_BCHW.device) < 0.5
    return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def alternating_flip(images_BCHW: Tensor, epoch: int, seed: int) -> Tensor:
    """Flip each image left to right in every other epoch; a hash of its pixels and the seed tells in which.

    Two epochs show every image in both directions (Jordan, 2024), which independent flips do not.

    Args:
        images_BCHW: Pixels of type uint8.
        epoch: Number of the epoch.
        seed: Seed of the training.
    """
    factor = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1) | 1
    sums_B = images_BCHW.sum((1, 2, 3), dtype=torch.int64)
    hashed_B = sums_B * factor >> HASH_BIT  # int64 overflows by design; its high bits depend on all bits of a sum
    flipped_B = (hashed_B + epoch) % 2 == 1
    return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)
