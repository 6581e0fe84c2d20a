"""The probes, on networks whose units and predictions can be counted by hand."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from datamodules.digits import Digits
from modules.autoencoder import Autoencoder
from modules.convnet import ConvNet
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.probes import Shifts, Units, hidden_layers, shift

SHAPE = (1, 28, 28)
STANDING_STILL = partial(torch.optim.SGD, lr=0.0)


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def _hand_made(activation: str = "relu") -> MLP:
    """Layer 1: 2 of 6 units never change and 4 are distinct; layer 2: 2 of 5 never change and 4 are distinct."""
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(6, 5), activation=activation, optimizer=STANDING_STILL)
    first, second, _ = _linears(model)
    first.bias.fill_(100)  # always on
    first.bias[0] = -100  # always off
    first.weight[1] = 0  # always on, and always the same
    first.weight[3], first.weight[4] = first.weight[2], first.weight[2]  # three alike
    second.weight.abs_()
    second.bias.fill_(0)
    second.weight[0], second.weight[4] = -second.weight[0], -second.weight[0]  # always off, and alike
    return model


def _validated(trainer, model, digits) -> dict[str, float]:
    trainer.validate(model, digits, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_dead_and_distinct_units_of_a_hand_made_network_are_counted(digits, make_trainer):
    metrics = _validated(make_trainer(callbacks=[Units()]), _hand_made(), digits)
    counted = {name: value for name, value in metrics.items() if "units" in name}
    assert counted == pytest.approx(
        {
            "val/dead_units_1": 2 / 6,
            "val/dead_units_2": 2 / 5,
            "val/dead_units": 4 / 11,
            "val/distinct_units_1": 4,
            "val/distinct_units_2": 4,
        }
    )


def test_leaky_relu_cannot_die(digits, make_trainer):
    metrics = _validated(make_trainer(callbacks=[Units()]), _hand_made("leaky_relu"), digits)
    assert metrics["val/dead_units_1"] == pytest.approx(1 / 6)  # the one whose weights are zero
    assert metrics["val/dead_units_2"] == 0
    assert metrics["val/distinct_units_2"] == 4  # which says nothing of its weights


def test_one_weight_of_a_unit_makes_it_distinct(digits, make_trainer):
    model = MLP(SHAPE, 10, hidden=(4,), init="constant", init_scale=0.1)
    with torch.no_grad():
        _linears(model)[0].weight[2, 700] += 0.01
        _linears(model)[0].bias[3] += 0.01
    assert _validated(make_trainer(callbacks=[Units()]), model, digits)["val/distinct_units_1"] == 3


def test_a_filter_is_alive_if_a_single_pixel_of_a_single_image_turns_it_on(digits, make_trainer):
    """The filters see single pixels: one is on where a pixel is the brightest of all, one nowhere."""
    model = ConvNet(SHAPE, 10, channels=(3,), kernel_size=1, hidden=())
    with torch.no_grad():
        (convolution,) = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        brightest = digits.normalize(digits.val_set.images_NCHW).max()
        convolution.weight.fill_(1)
        convolution.bias.copy_(torch.stack([0.01 - brightest, -0.01 - brightest, torch.tensor(0.0)]))
    metrics = _validated(make_trainer(callbacks=[Units()]), model, digits)
    assert metrics["val/dead_units"] == metrics["val/dead_units_1"] == pytest.approx(1 / 3)


def test_a_layer_is_known_with_its_activation_and_the_last_one_is_not_hidden():
    model = ConvNet(SHAPE, 10, channels=(2, 3), hidden=(4,), batch_norm=True, dropout=0.5, activation="tanh")
    found = [(type(layer), type(last)) for layer, last in hidden_layers(model)]
    assert found == [(nn.Conv2d, nn.Tanh), (nn.Conv2d, nn.Tanh), (nn.Linear, nn.Tanh)]
    assert hidden_layers(LinearClassifier(SHAPE, 10)) == []


def test_a_network_without_hidden_layers_or_without_classes_can_be_probed_too(digits, make_trainer):
    metrics = _validated(make_trainer(callbacks=[Units()]), LinearClassifier(SHAPE, 10), digits)
    assert set(metrics) == {"val/loss", "val/acc"}
    unit = Digits(n_train=250, n_val=201, normalization="unit")
    unit.setup("fit")
    metrics = _validated(make_trainer(callbacks=[Units()]), Autoencoder(SHAPE, hidden=(8,)), unit)
    assert {f"val/dead_units_{number}" for number in (1, 2, 3)} < set(metrics)  # 784-8-2-8-784


class _Interrupt(Callback):
    def on_validation_batch_end(self, *args) -> None:
        raise InterruptedError


def _hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) for layer in model.modules())


def test_no_hook_stays_behind_after_a_validation_nor_after_one_that_was_interrupted(digits, make_trainer):
    model = _hand_made()
    make_trainer(callbacks=[Units()], max_epochs=2).fit(model, digits)
    assert _hooks(model) == 0
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[Units(), _Interrupt()]).validate(model, digits, verbose=False)
    assert _hooks(model) == 0


def test_units_are_counted_on_the_validation_set_also_when_the_training_set_is_measured_again(make_trainer):
    """A unit that is on for one training example, and for no other, is dead."""
    data = Digits(n_train=250, n_val=201, batch_size=60, evaluate_train=True)
    data.setup("fit")
    model = _on_for_one_example(data, data.train_set)
    trainer = make_trainer(callbacks=[Units()], max_epochs=1)
    trainer.fit(model, data)
    assert "train_end/acc" in trainer.callback_metrics
    assert float(trainer.callback_metrics["val/dead_units_1"]) == pytest.approx(1 / 3)


def _on_for_one_example(data: Digits, part) -> MLP:
    """Three units: one answers to a single example of the training and validation set together."""
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(3,), optimizer=STANDING_STILL)
    both = data.normalize(torch.cat([data.train_set.images_NCHW, data.val_set.images_NCHW])).flatten(1)
    mine = data.normalize(part.images_NCHW).flatten(1)
    products = mine @ both.T
    own = mine.square().sum(1)
    largest, next_largest = products.topk(2).values.T
    index = int((largest - next_largest - 1e6 * (largest > own * (1 + 1e-6))).argmax())
    with torch.no_grad():
        first, last = _linears(model)
        last.weight *= 100  # or its biases would decide
        first.weight[0] = mine[index]
        first.bias[0] = -(largest[index] + next_largest[index]) / 2
        on = (both @ first.weight[0] + first.bias[0] > 0).sum()
    assert int(on) == 1
    return model


@torch.no_grad()
def _bright_at(digits: Digits, row: int, column: int) -> LinearClassifier:
    """Class 1 where this pixel is brighter than 127.5, else class 0."""
    model = LinearClassifier(SHAPE, 10, optimizer=STANDING_STILL)
    (layer,) = _linears(model)
    layer.weight.zero_()
    layer.bias.fill_(-1000)
    layer.weight[1, 28 * row + column] = 1
    layer.bias[0], layer.bias[1] = float(digits.normalize(torch.full((1, *SHAPE), 127.5))[0, 0, 0, 0]), 0
    return model


@pytest.mark.parametrize(("row", "column"), [(14, 14), (20, 9), (0, 12), (0, 0)])
@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_that_a_shift_changes_are_counted(split, row, column, digits, make_trainer):
    """A pixel shows what its neighbour up and to the left was; the edge is repeated."""
    part = getattr(digits, f"{split}_set")
    trainer = make_trainer(callbacks=[Shifts()])
    measure = {"val": trainer.validate, "test": trainer.test}[split]
    (metrics,) = measure(_bright_at(digits, row, column), digits, verbose=False)
    bright = part.images_NCHW[:, 0] > 127
    for pixels in (1, 2):
        moved = bright[:, max(row - pixels, 0), max(column - pixels, 0)]
        changed = (bright[:, row, column] != moved).float().mean()
        assert metrics[f"{split}/changed_by_shift_{pixels}"] == pytest.approx(float(changed), abs=1e-6)
    assert (changed > 0) == (row > 0 or column > 0)


def test_an_image_moves_down_and_to_the_right():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert shift(image, 1)[0, 0].tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    assert shift(image, 2)[0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_shifts_are_measured_on_the_validation_set_only_when_the_training_set_is_measured_again(make_trainer):
    found = []
    for evaluate_train in (False, True):
        data = Digits(n_train=250, n_val=201, evaluate_train=evaluate_train)
        data.setup("fit")
        trainer = make_trainer(max_epochs=1, callbacks=[Shifts()])
        trainer.fit(_bright_at(data, 14, 14), data)
        found.append(float(trainer.callback_metrics["val/changed_by_shift_2"]))
    assert found[0] == found[1] > 0


TWO_PROCESSES = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer
from datamodules.digits import Digits
from modules.mlp import MLP
from modules.probes import Shifts, Units

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
    callbacks=[Units(), Shifts(), Record()],
).fit(model, data)
"""


def test_two_processes_count_what_one_counts(digits, make_trainer, tmp_path):
    """With 101 and 100 validation examples, and a unit that only one of them turns on."""
    model = _on_for_one_example(digits, digits.val_set)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr  # Lightning's warning of figures that only one process knows
    alone = _validated(make_trainer(callbacks=[Units(), Shifts()]), model, digits)
    assert alone["val/dead_units_1"] == 0
    assert 0 < alone["val/changed_by_shift_1"] < 1
    for rank in (0, 1):
        metrics = json.loads((tmp_path / f"{rank}.json").read_text())
        assert {name: metrics[name] for name in alone} == pytest.approx(alone, rel=1e-6)
