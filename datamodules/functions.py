"""Three functions of four numbers: one linear, a maximum, and a smooth maximum."""

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from datamodules.base import DrawnDataModule
from datamodules.sets import TensorSet

W_SEED = 0  # fixes W for good: another W would be other functions
W_STREAM = 3  # after those of the three sets, or x would begin with the rows of W where the seeds are the same
SIZE = 4


@final
class Functions(DrawnDataModule):
    """x in R^4, uniform on [-2, 2] in each coordinate; targets y0, y1, y2, without noise (report C, section 2.4).

    W is a fixed 4x4 matrix with entries 4 (u - 1/2), u uniform on [0, 1]; then y0 = sum(xW), which is linear,
    y1 = max(x), and y2 = log(sum(exp(xW))).

    Args:
        n_train: Number of training examples.
        n_val: Number of validation examples.
        n_test: Number of test examples.
        seed: Draws the examples; W is always the same.
        **loading: Batch size, and whether the training set is measured again, of `InMemoryDataModule`.
    """

    input_shape = (SIZE,)

    def __init__(
        self, n_train: int = 5000, n_val: int = 1000, n_test: int = 1000, seed: int = 0, **loading: Any
    ) -> None:
        super().__init__(n_train=n_train, n_val=n_val, n_test=n_test, seed=seed, **loading)

    def draw(self, size: int, stream: int) -> TensorSet:
        x_N4 = _uniform((size, SIZE), (self.seed, stream))
        return TensorSet(x_N4.float(), targets(x_N4).float())


def targets(x_N4: Tensor) -> Tensor:
    """y0, y1, y2 of each row, shape (N, 3)."""
    xW_N4 = x_N4 @ _uniform((SIZE, SIZE), (W_SEED, W_STREAM))
    return torch.stack([xW_N4.sum(1), x_N4.amax(1), xW_N4.logsumexp(1)], dim=1)


def _uniform(shape: tuple[int, int], seed: tuple[int, ...]) -> Tensor:
    """4 (u - 1/2), float64."""
    return torch.from_numpy(4 * (np.random.default_rng(seed).random(shape) - 0.5))
