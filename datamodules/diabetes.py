"""The diabetes data that come with scikit-learn: 442 patients (Efron, Hastie, Johnstone and Tibshirani, 2004)."""

from typing import Any, final

import torch

from datamodules.tabular import Rows, TabularDataModule


@final
class Diabetes(TabularDataModule):
    """Ten measurements of a patient, and how far the disease has progressed a year later, 25 to 346.

    Args:
        **options: Splits and batch size, see `TabularDataModule`.
    """

    input_shape = (10,)
    feature_names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    target_names = ("progression",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def load(self) -> Rows:
        from sklearn.datasets import load_diabetes

        features, targets = load_diabetes(return_X_y=True, scaled=False)
        return Rows(torch.from_numpy(features).float(), torch.from_numpy(targets).float()[:, None])
