"""Three functions of four variables: a linear function, a maximum, and a smooth maximum."""

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from datamodules.base import SyntheticDataModule
from datamodules.sets import TensorSet

W_SEED = 0  # a constant rather than a parameter, because another W would define other functions
W_STREAM = 3  # the three sets use streams 0 to 2; with one of these, x would start with the rows of W if seed is 0
NUM_FEATURES = 4


@final
class Functions(SyntheticDataModule):
    """x in R^4, uniform on [-2, 2] in each coordinate, with noise-free targets y0, y1, y2 (report C, section 2.4).

    y0 = sum(xW), which is linear, y1 = max(x), and y2 = log(sum(exp(xW))). W is a fixed 4x4 matrix with entries
    4 (u - 1/2), u uniform on [0, 1].

    Args:
        n_train: Number of training examples.
        n_val: Number of validation examples.
        n_test: Number of test examples.
        seed: Seed of the examples; W is always the same.
        **loading: Batch size and training-set evaluation, see `InMemoryDataModule`.
    """

    input_shape = (NUM_FEATURES,)

    def __init__(
        self, n_train: int = 5000, n_val: int = 1000, n_test: int = 1000, seed: int = 0, **loading: Any
    ) -> None:
        super().__init__(n_train=n_train, n_val=n_val, n_test=n_test, seed=seed, **loading)

    def sample(self, size: int, stream: int) -> TensorSet:
        x_N4 = _uniform((size, NUM_FEATURES), (self.seed, stream))
        return TensorSet(x_N4.float(), targets(x_N4).float())


def targets(x_N4: Tensor) -> Tensor:
    """Return y0, y1, y2 of each row, shape (N, 3)."""
    xW_N4 = x_N4 @ _uniform((NUM_FEATURES, NUM_FEATURES), (W_SEED, W_STREAM))
    return torch.stack([xW_N4.sum(1), x_N4.amax(1), xW_N4.logsumexp(1)], dim=1)


def _uniform(shape: tuple[int, int], seed: tuple[int, ...]) -> Tensor:
    """Return 4 (u - 1/2) with u uniform on [0, 1], float64."""
    return torch.from_numpy(4 * (np.random.default_rng(seed).random(shape) - 0.5))
