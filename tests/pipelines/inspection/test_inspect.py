"""The rows that litlab inspect shows, what it reports as unknown, and the command."""

import copy
import json

import pytest
import torch
from torch import nn

from pipelines.config.cli import parse_config
from pipelines.inspection.model_summary import summarize_model
from pipelines.inspection.trace import trace


class HandWritten(nn.Module):
    """No layers, but parameters, one of them unused."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(3, 4))
        self.b = nn.Parameter(torch.zeros(3))
        self.spare = nn.Parameter(torch.zeros(7))

    def forward(self, x):
        return torch.tanh(x @ self.W.T + self.b)


def test_a_layer_called_twice_costs_twice_and_counts_its_parameters_once():
    layer = nn.Conv2d(1, 1, 3)
    rows = trace(nn.Sequential(layer, nn.ReLU(), layer), (1, 8, 8)).layers
    assert [row.name for row in rows] == ["0", "1", "0"]
    assert [row.parameters for row in rows] == [10, 0, 0]
    assert [row.multiply_adds for row in rows] == [9 * 36, 0, 9 * 16]
    assert [row.note for row in rows] == ["", "", "shared"]
    assert [row.receptive_field for row in rows] == [(3, 3), (3, 3), (5, 5)]


def test_parameters_without_a_layer_have_rows_where_they_are_used():
    rows = trace(HandWritten(), (4,)).layers
    assert [(row.name, row.type, row.output, row.parameters, row.multiply_adds) for row in rows] == [
        ("W", "matmul", (3,), 12, 12),
        ("b", "add", (3,), 3, 0),
        ("spare", "Parameter", (7,), 7, 0),
    ]
    assert [row.note for row in rows] == ["", "", "not used by forward"]
    assert {row.receptive_field for row in rows} == {None}


class Then(nn.Module):
    """A convolution, any function, a convolution."""

    def __init__(self, function):
        super().__init__()
        self.before, self.after, self.function = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), function

    def forward(self, x):
        return self.after(self.function(self.before(x)))


@pytest.mark.parametrize(
    ("function", "remark"),
    [
        (lambda x: x if x.sum() > 0 else -x, "receptive fields, and the path that other values take, are unknown"),
        (lambda x: x + float(x.max()), "unknown from float on"),
        (lambda x: x.flip(0), "unknown from after on"),
        (lambda x: x - x.mean(0), "unknown from after on"),
        (lambda x: x[x[:, 0, 0, 0].argsort()], "unknown from argsort on"),
        (lambda x: x.argmax(1, keepdim=True) + x, "unknown from argmax on"),
        (lambda x: torch.where(x > 0, x, 0.0), "unknown from gt on"),
        (lambda x: x.nan_to_num(), "unknown from nan_to_num on"),
        (lambda x: x.index_add(1, torch.tensor([0]), torch.zeros(len(x), 1, 6, 6)), "unknown from index_add on"),
    ],
)
def test_after_a_function_that_cannot_be_traced_receptive_fields_are_unknown(function, remark):
    result = trace(Then(function), (4, 8, 8))
    assert [layer.receptive_field for layer in result.layers] == [(3, 3), None]
    assert remark in " ".join(result.remarks)
    assert {layer.multiply_adds for layer in result.layers} == {4 * 4 * 9 * 36, 4 * 4 * 9 * 16}


def _mask(x):
    x[:, 0] = 0
    return x


def _overwrite(x):
    view = x[:, :, :1]
    x += x.roll(1, 2)
    return view.expand(-1, -1, 6, -1)


@pytest.mark.parametrize(
    ("function", "field"),
    [
        (_mask, (5, 5)),
        (_overwrite, (8, 5)),
        (lambda x: torch.fft.fft(x).real, (5, 8)),
        (lambda x: nn.functional.interpolate(x, size=6, mode="bilinear"), (5, 5)),
        (lambda x: x.flatten(2).softmax(2).view_as(x), (8, 8)),
        (lambda x: nn.functional.scaled_dot_product_attention(x, x, x), (8, 8)),
    ],
)
def test_a_receptive_field_is_found_through_any_function_that_passes_nan_on(function, field):
    result = trace(Then(function), (4, 8, 8))
    assert result.layers[-1].receptive_field == field
    assert result.remarks == []


class Sequences(nn.Module):
    """Layers whose products torch's own counter leaves out."""

    def __init__(self):
        super().__init__()
        self.lstm, self.pair = nn.LSTM(8, 4, batch_first=True), nn.Bilinear(4, 4, 3)
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        h = self.lstm(x)[0][:, -1]
        return self.pair(h, h) @ self.w


def test_multiply_adds_of_recurrent_and_bilinear_layers_and_of_vectors_are_counted():
    rows = trace(Sequences(), (5, 8)).layers
    assert [(row.name, row.multiply_adds) for row in rows] == [("lstm", 5 * 16 * (8 + 4)), ("pair", 3 * 16), ("w", 3)]


def test_a_path_that_depends_on_the_shape_is_traced():
    result = trace(Then(lambda x: x.narrow(2, 0, x.shape[2] // 2) if x.dim() == 4 and len(x) else x.relu()), (4, 8, 8))
    assert [layer.output for layer in result.layers] == [(4, 6, 6), (4, 1, 4)]
    assert result.layers[-1].receptive_field == (5, 5)
    assert result.remarks == []


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Dropout())
    before = copy.deepcopy(model.state_dict())
    trace(model, (1, 8, 8))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


# The command


def test_the_table_shows_layers_and_totals(litlab):
    shown = litlab("inspect", "digits-mlp").out
    assert shown.splitlines()[0].strip() == "digits-mlp"
    assert "parameters per training example" in shown
    assert "…" not in shown


@pytest.mark.slow
def test_the_table_of_a_terminal_fits_it_with_its_receptive_fields(litlab, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")  # without escape codes
    monkeypatch.setenv("COLUMNS", "80")
    table = litlab("inspect", "cifar-resnet9").out.partition("\nparameters ")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert "32x32" in [line.split()[-1] for line in table[-3:] if line.strip()]
    assert "2,359,296" in "\n".join(table)


def test_the_table_in_a_pipe_is_not_wrapped(litlab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = litlab("inspect", "digits-convnet").out.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.startswith("net.2 ")]
    assert row.endswith("6x6")


def test_json_has_the_same_values(litlab, tmp_path):
    summary = json.loads(litlab("inspect", "deep-mnist", "--json", "--data.n_train", "250").out)
    first, total = summary["layers"][0], 3_274_634
    expected = {"output": [32, 28, 28], "kernel": [5, 5], "receptive_field": [5, 5], "multiply_adds": 25 * 32 * 784}
    assert {key: first[key] for key in expected} == expected
    assert summary["parameters"] == sum(layer["parameters"] for layer in summary["layers"]) == total
    assert summary["multiply_adds"] == sum(layer["multiply_adds"] for layer in summary["layers"])
    assert (summary["train_examples"], summary["parameters_per_example"]) == (250, total / 250)


def test_training_examples_are_counted_where_the_files_are(litlab, mnist_format, tmp_path):
    files = ["--data.verify", "false", "--data.n_val", "200"]
    there = litlab("inspect", "mnist-linear", "--json", "--data.data_dir", mnist_format, *files)
    assert json.loads(there.out)["train_examples"] == 1_237
    missing = litlab("inspect", "mnist-linear", "--json", "--data.data_dir", tmp_path / "none")
    assert missing.code == 0
    assert json.loads(missing.out)["train_examples"] is json.loads(missing.out)["parameters_per_example"] is None
    assert "no such file" in json.loads(missing.out)["remarks"][0]
    assert not (tmp_path / "none").exists()  # nothing was downloaded


def test_frozen_parameters_are_not_counted_as_trainable():
    data, model = parse_config("inspect", ["digits-mlp"]).build()
    model.net[1].requires_grad_(False)
    summary = summarize_model("frozen", data, model)
    assert summary.parameters - summary.trainable_parameters == sum(
        value.numel() for value in model.net[1].parameters()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["digits-mpl"], "digits-mlp"), (["digits-mlp", "--model.hiden", "[3]"], "model.hidden"), (["--json"], "name an")],
)
def test_a_users_mistake_is_explained(litlab, arguments, message):
    outcome = litlab("inspect", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


STRANGERS = "tests.fixtures.strangers.verbs"


@pytest.mark.parametrize(
    ("model", "data", "arguments", "layers"),
    [
        ("Net", "Points", [], ["net.0", "net.1", "net.2"]),
        ("Net", "CountedPoints", [], ["net.0", "net.1", "net.2"]),
        ("TokenNet", "Points", [], ["embedding", "mul", "mean"]),
        ("PictureForward", "PictureData", ["--input", "image"], ["conv", "relu", "head"]),
    ],
)
def test_modules_of_others_are_inspected_by_one_batch_of_their_data(litlab, tmp_path, model, data, arguments, layers):
    parts = {"data": f"{STRANGERS}.{data}", "model": f"{STRANGERS}.{model}"}
    (tmp_path / "own.yaml").write_text(json.dumps(parts))
    outcome = litlab("inspect", tmp_path / "own.yaml", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    names = [layer["name"] for layer in summary["layers"]]
    assert set(names) & set(layers)
    assert summary["parameters"] == sum(layer["parameters"] for layer in summary["layers"])
    assert summary["multiply_adds"] > 0


def test_what_is_missing_to_inspect_a_module_is_said(litlab, tmp_path):
    parts = {"data": f"{STRANGERS}.PictureData", "model": f"{STRANGERS}.PictureForward"}
    (tmp_path / "own.yaml").write_text(json.dumps(parts))
    outcome = litlab("inspect", tmp_path / "own.yaml")
    assert outcome.code == 2
    assert "PictureForward.forward fails on a list" in outcome.err
    assert "--input KEY" in outcome.err
    outcome = litlab("inspect", tmp_path / "own.yaml", "--input", "picture")
    assert "the batch has the keys id, image, label" in outcome.err


@pytest.mark.parametrize("option", ["--backbone", "--torchvision"])
def test_a_published_network_is_shown_without_an_experiment_or_weights(litlab, tiny_network, option):
    outcome = litlab("inspect", option, tiny_network, "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["experiment"], summary["layers"][-1]["output"]) == (tiny_network, [1000])
    assert summary["parameters"] == (112 + 8) + (296 + 16) + 9000


def test_a_published_network_is_not_combined_with_an_experiment_and_a_misspelt_one_is_named(litlab):
    outcome = litlab("inspect", "digits-mlp", "--backbone", "alexnet")
    assert (outcome.code, "cannot be combined with digits-mlp" in outcome.err) == (2, True)
    outcome = litlab("inspect", "--backbone", "alexnett")
    assert (outcome.code, "--backbone alexnett: no such network; did you mean alexnet" in outcome.err) == (2, True)
