"""MLPRegressor: learns a function whatever the unit of its target is."""

import pytest
import torch

from datamodules.diabetes import Diabetes
from datamodules.tabular import Rows, TabularDataModule
from modules.mlp_regressor import MLPRegressor


class Scaled(TabularDataModule):
    """The diabetes data with the target in another unit."""

    input_shape, feature_names, target_names = (10,), Diabetes.feature_names, Diabetes.target_names

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def load(self) -> Rows:
        rows = Diabetes().load()
        return Rows(rows.features_ND, rows.targets_NK * self.unit)


def test_the_unit_of_the_target_does_not_change_the_training(make_trainer):
    measured = []
    for unit in (1, 1000):
        torch.manual_seed(0)
        trainer = make_trainer(max_epochs=5)
        trainer.fit(MLPRegressor(input_shape=(10,)), datamodule=Scaled(unit))
        measured.append({name: value.item() for name, value in trainer.callback_metrics.items()})
    assert measured[0]["val/r2"] > 0.3
    assert measured[1]["val/r2"] == pytest.approx(measured[0]["val/r2"], abs=1e-3)
    assert measured[1]["val/mae"] == pytest.approx(1000 * measured[0]["val/mae"], rel=1e-3)


def test_estimates_have_the_unit_of_the_target_and_their_scale_is_in_the_checkpoint(make_trainer):
    torch.manual_seed(0)
    model, data = MLPRegressor(input_shape=(10,)), Diabetes()
    make_trainer(max_epochs=1).fit(model, datamodule=data)
    estimates = model(data.on_after_batch_transfer((data.val_set.inputs, data.val_set.targets), 0)[0])
    assert 100 < estimates.mean() < 200  # the mean of the target is 152
    other = MLPRegressor(input_shape=(10,))
    other.load_state_dict(model.state_dict())
    assert other.is_scaled
    assert torch.equal(other.mean_K, model.mean_K)


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"takes rows of numbers; an example has the shape \(1, 8, 8\)"):
        MLPRegressor(input_shape=(1, 8, 8))
