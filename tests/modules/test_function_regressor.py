"""FunctionRegressor: three independent small models, their metrics and what they learn."""

from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from datamodules.functions import Functions
from modules.functions import FunctionRegressor

KINDS = ["linear", "convnet"]


@pytest.fixture
def data() -> Functions:
    functions = Functions(n_train=500, n_val=201, n_test=99, batch_size=60)
    functions.setup("fit")
    functions.setup("test")
    return functions


def _model(kind: str, seed: int = 0, **options) -> FunctionRegressor:
    torch.manual_seed(seed)
    options = {"optimizer": partial(torch.optim.Adam, lr=0.02), **options}
    return FunctionRegressor((4,), kind, **options)


def test_parameter_counts_equal_hand_computed_ones():
    """Linear: three times 4 weights and a bias. Convnet: 64 filters of size 4, 7 positions, 3 after pooling."""
    counts = {kind: sum(p.numel() for p in _model(kind).parameters()) for kind in KINDS}
    assert counts == {"linear": 3 * 5, "convnet": 3 * (64 * 4 + 64 + 64 * 3 + 1)}


@pytest.mark.parametrize(("filters", "kernel_size", "size"), [(1, 1, 4), (5, 2, 4), (3, 6, 4), (2, 3, 9)])
def test_a_convnet_of_any_size_estimates_three_values(filters, kernel_size, size):
    model = FunctionRegressor((size,), "convnet", filters, kernel_size)
    assert model(torch.randn(7, size)).shape == (7, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_three_models_share_no_parameters(kind):
    model = _model(kind)
    model(torch.randn(5, 4))[:, 1].sum().backward()
    touched = [any(p.grad is not None and bool(p.grad.any()) for p in net.parameters()) for net in model.nets]
    assert touched == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_logged_metrics_are_the_errors_of_each_function_on_the_whole_set(kind, data, make_trainer, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)
    model, trainer = _model(kind), make_trainer(max_epochs=2)
    trainer.fit(model, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    names = {"loss", "loss_y0", "loss_y1", "loss_y2"}
    assert set(logged) == {f"{split}/{name}" for split in ("train", "val") for name in names}
    (tested,) = trainer.test(model, data, verbose=False)
    for split, metrics in (("val", logged), ("test", tested)):
        dataset = getattr(data, f"{split}_set")
        errors = (model(dataset.inputs).detach() - dataset.targets).double().square().mean(0)
        expected = {f"{split}/loss_y{number}": float(error) for number, error in enumerate(errors)}
        expected[f"{split}/loss"] = float(errors.mean())
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_training_loss_is_the_mean_of_the_three_errors(data):
    model, batch = _model("linear"), (data.train_set.inputs, data.train_set.targets)
    loss = model.training_step(batch, 0).detach()
    torch.testing.assert_close(loss, (model(batch[0]) - batch[1]).detach().square().mean())


def test_linear_regression_fits_y0_and_has_the_least_squares_residuals_for_y1_and_y2(data, make_trainer):
    trainer = make_trainer(max_epochs=60)
    trainer.fit(_model("linear", optimizer=partial(torch.optim.Adam, lr=0.05)), data)
    x, y = data.train_set.inputs.double(), data.train_set.targets.double()
    design = torch.cat([x, torch.ones(len(x), 1)], 1)
    residuals = (y - design @ torch.linalg.lstsq(design, y).solution).square().mean(0)
    logged = [float(trainer.callback_metrics[f"train/loss_y{number}"]) for number in range(3)]
    assert logged[0] < 1e-3
    assert logged[1:] == pytest.approx(residuals[1:].tolist(), rel=0.05)
    assert residuals[1] > 0.1


def test_the_convnet_fits_the_maximum_better_than_any_linear_model(data, make_trainer):
    trainer = make_trainer(max_epochs=40)
    trainer.fit(_model("convnet"), data)
    x, y = data.val_set.inputs.double(), data.val_set.targets.double()
    design = torch.cat([x, torch.ones(len(x), 1)], 1)
    residuals = (y - design @ torch.linalg.lstsq(design, y).solution).square().mean(0)
    assert float(trainer.callback_metrics["val/loss_y1"]) < float(residuals[1]) / 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_from_a_checkpoint_and_resumes_bit_identically(kind, data, make_trainer, tmp_path):
    uninterrupted, half, resumed = (_model(kind, seed) for seed in (0, 0, 1))
    make_trainer(max_epochs=2).fit(uninterrupted, data)
    first = make_trainer(max_epochs=1)
    first.fit(half, data)
    first.save_checkpoint(tmp_path / "half.ckpt")
    loaded = FunctionRegressor.load_from_checkpoint(tmp_path / "half.ckpt", weights_only=True)
    assert torch.equal(loaded(data.val_set.inputs), half(data.val_set.inputs))
    make_trainer(max_epochs=2).fit(resumed, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))


def test_the_training_set_can_be_evaluated_again(make_trainer):
    data = Functions(n_train=500, n_val=100, evaluate_train=True)
    trainer, model = make_trainer(max_epochs=1), _model("linear")
    trainer.fit(model, data)
    errors = (model(data.train_set.inputs).detach() - data.train_set.targets).square().mean(0)
    logged = [float(trainer.callback_metrics[f"train_end/loss_y{number}"]) for number in range(3)]
    assert logged == pytest.approx(errors.tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cubic"}, r"model\.kind is 'cubic'; it must be linear or convnet"),
        ({"filters": 0}, r"model\.filters"),
        ({"kernel_size": 0}, r"model\.kernel_size"),
    ],
)
def test_the_error_for_an_invalid_value_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        FunctionRegressor((4,), **options)


def test_a_plateau_scheduler_monitors_the_validation_loss_by_default(data, make_trainer):
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=100.0)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(_model("linear", lr_scheduler=plateau), data)  # the loss never improves by that much
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02 * 0.5**3)
    with pytest.raises(MisconfigurationException, match="val/loss"):
        make_trainer(max_epochs=1, limit_val_batches=0).fit(_model("linear", lr_scheduler=plateau), data)


def test_each_convnet_has_its_own_parameters():
    assert len({p.data_ptr() for p in _model("convnet").parameters()}) == 12
    assert sum(isinstance(layer, nn.Conv1d) for layer in _model("convnet").modules()) == 3
