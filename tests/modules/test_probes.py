"""Probes, on networks whose units and predictions can be counted by hand."""

import json
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from datamodules.digits import Digits
from modules import probes
from modules.autoencoder import Autoencoder, ConvAutoencoder
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.probes import DeadUnits, ShiftSensitivity, hidden_layers, shift

SHAPE = (1, 28, 28)
NO_LEARNING = partial(torch.optim.SGD, lr=0.0)


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def _hand_made(activation: str = "relu") -> MLP:
    """Layer 1: 2 of 6 units are constant and 4 are distinct; layer 2: 2 of 5 are constant and 4 are distinct."""
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(6, 5), activation=activation, optimizer=NO_LEARNING)
    first, second, _ = _linears(model)
    first.bias.fill_(100)  # always on
    first.bias[0] = -100  # always off
    first.weight[1] = 0  # always on, and constant
    first.weight[3], first.weight[4] = first.weight[2], first.weight[2]  # three identical units
    second.weight.abs_()
    second.bias.fill_(0)
    second.weight[0], second.weight[4] = -second.weight[0], -second.weight[0]  # always off, and identical
    return model


def _validation_metrics(trainer, model, digits) -> dict[str, float]:
    trainer.validate(model, digits, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_dead_and_distinct_units_of_a_hand_made_network_are_counted(digits, make_trainer):
    metrics = _validation_metrics(make_trainer(callbacks=[DeadUnits()]), _hand_made(), digits)
    counts = {name: value for name, value in metrics.items() if "units" in name}
    assert counts == pytest.approx(
        {
            "val/dead_units_1": 2 / 6,
            "val/dead_units_2": 2 / 5,
            "val/dead_units": 4 / 11,
            "val/distinct_units_1": 4,
            "val/distinct_units_2": 4,
        }
    )


def test_leaky_relu_cannot_die(digits, make_trainer):
    metrics = _validation_metrics(make_trainer(callbacks=[DeadUnits()]), _hand_made("leaky_relu"), digits)
    assert metrics["val/dead_units_1"] == pytest.approx(1 / 6)  # the unit whose weights are zero
    assert metrics["val/dead_units_2"] == 0
    assert metrics["val/distinct_units_2"] == 4  # the weights are the same as with ReLU


def test_a_single_different_weight_or_bias_makes_a_unit_distinct(digits, make_trainer):
    model = MLP(SHAPE, 10, hidden=(4,), init="constant", init_scale=0.1)
    with torch.no_grad():
        _linears(model)[0].weight[2, 700] += 0.01
        _linears(model)[0].bias[3] += 0.01
    assert _validation_metrics(make_trainer(callbacks=[DeadUnits()]), model, digits)["val/distinct_units_1"] == 3


def test_a_filter_is_not_dead_if_a_single_pixel_of_a_single_image_activates_it(digits, make_trainer):
    """The filters see single pixels: one is active for the brightest pixel of all images only, one never."""
    model = ConvNet(SHAPE, 10, channels=(3,), kernel_size=1, hidden=())
    with torch.no_grad():
        (convolution,) = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        brightest = digits.normalize(digits.val_set.inputs).max()
        convolution.weight.fill_(1)
        convolution.bias.copy_(torch.stack([0.01 - brightest, -0.01 - brightest, torch.tensor(0.0)]))
    metrics = _validation_metrics(make_trainer(callbacks=[DeadUnits()]), model, digits)
    assert metrics["val/dead_units"] == metrics["val/dead_units_1"] == pytest.approx(1 / 3)


def test_hidden_layers_come_with_their_activation_and_without_the_output_layer():
    model = ConvNet(SHAPE, 10, channels=(2, 3), hidden=(4,), batch_norm=True, dropout=0.5, activation="tanh")
    types = [(type(layer), type(activation)) for layer, activation in hidden_layers(model)]
    assert types == [(nn.Conv2d, nn.Tanh), (nn.Conv2d, nn.Tanh), (nn.Linear, nn.Tanh)]
    assert hidden_layers(LinearClassifier(SHAPE, 10)) == []
    types = [(type(layer), type(activation)) for layer, activation in hidden_layers(FunctionRegressor((4,), "convnet"))]
    assert types == [(nn.Conv1d, nn.ReLU)] * 3
    layers = [type(layer) for layer, _ in hidden_layers(ConvAutoencoder(SHAPE))]
    assert layers == [nn.Conv2d] * 2 + [nn.Linear] * 4 + [nn.ConvTranspose2d]


def test_a_network_without_hidden_layers_or_without_classes_can_be_probed(digits, make_trainer):
    metrics = _validation_metrics(make_trainer(callbacks=[DeadUnits()]), LinearClassifier(SHAPE, 10), digits)
    assert set(metrics) == {"val/loss", "val/acc"}
    unit = Digits(n_train=250, n_val=201, normalization="unit")
    unit.setup("fit")
    metrics = _validation_metrics(make_trainer(callbacks=[DeadUnits()]), Autoencoder(SHAPE, hidden=(8,)), unit)
    assert {f"val/dead_units_{number}" for number in (1, 2, 3)} < set(metrics)  # 784-8-2-8-784


class _Interrupt(Callback):
    def on_validation_batch_end(self, *args) -> None:
        raise InterruptedError


def _num_hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) for layer in model.modules())


def test_hooks_are_removed_after_a_validation_and_after_an_interrupted_one(digits, make_trainer):
    model = _hand_made()
    make_trainer(callbacks=[DeadUnits()], max_epochs=2).fit(model, digits)
    assert _num_hooks(model) == 0
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[DeadUnits(), _Interrupt()]).validate(model, digits, verbose=False)
    assert _num_hooks(model) == 0


def test_units_are_counted_on_the_validation_set_also_if_the_training_set_is_evaluated_again(make_trainer):
    """A unit that is active for a single training example, and for no validation example, is dead."""
    data = Digits(n_train=250, n_val=201, batch_size=60, evaluate_train=True)
    data.setup("fit")
    model = _active_for_one_example(data, data.train_set)
    trainer = make_trainer(callbacks=[DeadUnits()], max_epochs=1)
    trainer.fit(model, data)
    assert "train_end/acc" in trainer.callback_metrics
    assert float(trainer.callback_metrics["val/dead_units_1"]) == pytest.approx(1 / 3)


def _active_for_one_example(data: Digits, dataset) -> MLP:
    """Network of three units, one of which is active for a single example of `dataset` and no other of both sets."""
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(3,), optimizer=NO_LEARNING)
    both = data.normalize(torch.cat([data.train_set.inputs, data.val_set.inputs])).flatten(1)
    candidates = data.normalize(dataset.inputs).flatten(1)
    products = candidates @ both.T
    squares = candidates.square().sum(1)
    largest, next_largest = products.topk(2).values.T
    index = int((largest - next_largest - 1e6 * (largest > squares * (1 + 1e-6))).argmax())
    with torch.no_grad():
        first, last = _linears(model)
        last.weight *= 100  # otherwise its biases would determine the predictions
        first.weight[0] = candidates[index]
        first.bias[0] = -(largest[index] + next_largest[index]) / 2
        num_active = (both @ first.weight[0] + first.bias[0] > 0).sum()
    assert int(num_active) == 1
    return model


@torch.no_grad()
def _brightness_classifier(digits: Digits, row: int, column: int) -> LinearClassifier:
    """Classifier that predicts 1 if this pixel is brighter than 127.5, otherwise 0."""
    model = LinearClassifier(SHAPE, 10, optimizer=NO_LEARNING)
    (layer,) = _linears(model)
    layer.weight.zero_()
    layer.bias.fill_(-1000)
    layer.weight[1, 28 * row + column] = 1
    layer.bias[0], layer.bias[1] = float(digits.normalize(torch.full((1, *SHAPE), 127.5))[0, 0, 0, 0]), 0
    return model


@pytest.mark.parametrize(("row", "column"), [(14, 14), (20, 9), (0, 12), (0, 0)])
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_fraction_of_predictions_changed_by_a_shift_is_logged(split, row, column, digits, make_trainer):
    """After a shift, a pixel has the value of its neighbour above and to the left; edges are repeated."""
    dataset = getattr(digits, f"{split}_set")
    trainer = make_trainer(callbacks=[ShiftSensitivity()])
    measure = {"val": trainer.validate, "test": trainer.test}[split]
    (metrics,) = measure(_brightness_classifier(digits, row, column), digits, verbose=False)
    bright = dataset.inputs[:, 0] > 127
    for pixels in (1, 2):
        shifted = bright[:, max(row - pixels, 0), max(column - pixels, 0)]
        changed = (bright[:, row, column] != shifted).float().mean()
        assert metrics[f"{split}/changed_by_shift_{pixels}"] == pytest.approx(float(changed), abs=1e-6)
    assert (changed > 0) == (row > 0 or column > 0)


def test_shift_moves_an_image_down_and_to_the_right():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert shift(image, 1)[0, 0].tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    assert shift(image, 2)[0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_a_shift_by_zero_pixels_changes_no_prediction_in_half_precision(make_trainer, monkeypatch):
    monkeypatch.setattr(probes, "SHIFTS", (0,))
    model = ConvNet(SHAPE, 10, channels=(4,), hidden=(16,))
    trainer = make_trainer(max_epochs=1, precision="bf16-mixed", callbacks=[ShiftSensitivity()])
    trainer.fit(model, Digits())
    assert trainer.callback_metrics["val/changed_by_shift_0"] == 0


def test_shift_sensitivity_ignores_the_training_set_if_it_is_evaluated_again(make_trainer):
    fractions = []
    for evaluate_train in (False, True):
        data = Digits(n_train=250, n_val=201, evaluate_train=evaluate_train)
        data.setup("fit")
        trainer = make_trainer(max_epochs=1, callbacks=[ShiftSensitivity()])
        trainer.fit(_brightness_classifier(data, 14, 14), data)
        fractions.append(float(trainer.callback_metrics["val/changed_by_shift_2"]))
    assert fractions[0] == fractions[1] > 0


TWO_PROCESSES = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer
from datamodules.digits import Digits
from modules.mlp import MLP
from modules.probes import ShiftSensitivity, DeadUnits

class Record(Callback):
    def teardown(self, trainer, model, stage):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(metrics))

folder = Path(sys.argv[1])
model = MLP((1, 28, 28), 10, hidden=(3,), optimizer=partial(torch.optim.SGD, lr=0.0))
model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
data = Digits(n_train=250, n_val=201)
data.setup("fit")
Trainer(
    accelerator="cpu", strategy="ddp_fork", devices=2, max_epochs=1, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    callbacks=[DeadUnits(), ShiftSensitivity(), Record()],
).fit(model, data)
"""


def test_two_processes_log_the_same_metrics_as_one(digits, make_trainer, run_python, tmp_path):
    """The processes have 101 and 100 validation examples; one unit is active for a single example."""
    model = _active_for_one_example(digits, digits.val_set)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    result = run_python(TWO_PROCESSES, tmp_path)
    assert result.code == 0, result.err
    assert "sync_dist" not in result.err  # Lightning warns of metrics that are not reduced over processes
    expected = _validation_metrics(make_trainer(callbacks=[DeadUnits(), ShiftSensitivity()]), model, digits)
    assert expected["val/dead_units_1"] == 0
    assert 0 < expected["val/changed_by_shift_1"] < 1
    for rank in (0, 1):
        metrics = json.loads((tmp_path / f"{rank}.json").read_text())
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("old_name", "cls"), [("Units", DeadUnits), ("Shifts", ShiftSensitivity)])
def test_former_class_paths_still_work(old_name, cls):
    assert getattr(probes, old_name) is cls
