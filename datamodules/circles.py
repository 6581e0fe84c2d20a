"""Two noisy circles, one inside the other (scikit-learn's `make_circles`)."""

from typing import Any, final

import numpy as np
import torch

from datamodules.base import SyntheticDataModule
from datamodules.sets import TensorSet


@final
class Circles(SyntheticDataModule):
    """Points on two concentric circles in the plane, with Gaussian noise; half of each set lies on each circle.

    The three sets are sampled independently. With the defaults, the classes overlap as much as in the report, where a
    support vector machine with an RBF kernel reaches an accuracy of 0.94.

    Args:
        n_train: Number of training points.
        n_val: Number of validation points.
        n_test: Number of test points.
        radius: Outer radius.
        noise: Standard deviation of the noise, in units of the outer radius.
        factor: Inner radius, in units of the outer radius.
        seed: Seed of the points.
        **loading: Batch size and training-set evaluation, see `InMemoryDataModule`.
    """

    input_shape = (2,)
    classes = ("outer", "inner")

    def __init__(
        self,
        n_train: int = 200,
        n_val: int = 200,
        n_test: int = 200,
        radius: float = 2.0,
        noise: float = 0.16,
        factor: float = 0.5,
        seed: int = 0,
        **loading: Any,
    ) -> None:
        super().__init__(n_train=n_train, n_val=n_val, n_test=n_test, seed=seed, **loading)
        if radius <= 0:
            raise ValueError(f"data.radius is {radius}; it must be above 0")
        if noise < 0 or not 0 <= factor < 1:
            raise ValueError(
                f"data.noise is {noise}, which must be at least 0; data.factor is {factor}, which must be in [0, 1)"
            )
        self.radius, self.noise, self.factor = radius, noise, factor

    def sample(self, size: int, stream: int) -> TensorSet:
        from sklearn.datasets import make_circles

        state = int(np.random.SeedSequence((self.seed, stream)).generate_state(1)[0])
        points_N2, labels_N = make_circles(size, noise=self.noise, factor=self.factor, random_state=state)
        return TensorSet(torch.from_numpy(self.radius * points_N2).float(), torch.from_numpy(labels_N))
