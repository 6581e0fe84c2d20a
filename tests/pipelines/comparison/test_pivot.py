"""`litlab compare --pivot`: a metric by two keys, in every format."""

import csv
import io
import itertools
import json
import statistics

import pytest

MODELS, DATA = ("modules.mlp.MLP", "modules.convnet.ConvNet"), ("datamodules.digits.Digits", "datamodules.mnist.MNIST")


@pytest.fixture(autouse=True)
def uri(uri, store, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("COLUMNS", "80")
    return store.uri


def accuracy(model: str, data: str, seed: int) -> float:
    return 0.8 + 0.1 * MODELS.index(model) + 0.05 * DATA.index(data) + seed / 100


@pytest.fixture
def grid(write, store) -> str:
    """Three of four pairs of two models and two data sets, with two seeds each."""
    if store.client.get_experiment_by_name("grid") is None:
        for model, data, seed in itertools.product(MODELS, DATA, (1, 2)):
            if (model, data) != (MODELS[1], DATA[1]):
                tags = {"data.sha256.test": str(DATA.index(data)) * 64}
                params = {"model": model, "data": data, "model.lr": "0.1"}
                write("grid", params, seed, tags, test__acc=accuracy(model, data, seed))
    return "grid"


def test_a_pivot_has_a_line_for_each_model_and_a_column_for_each_data_set(litlab, grid):
    outcome = litlab("compare", grid, "--pivot", "model.class_path", "data.class_path")
    title, header, *lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert title == "test/acc by model and data: mean ± sd (n), higher is better"
    assert header.split() == ["model", "Digits", "MNIST"]
    assert lines[0].split() == ["ConvNet", "0.9150", "±", "0.0071", "(2)"]
    assert lines[1].split() == ["MLP", "0.8150", "±", "0.0071", "(2)", "0.8650", "±", "0.0071", "(2)"]


def test_csv_and_json_have_a_record_for_each_pair_that_has_runs(litlab, grid):
    args = ("compare", grid, "--pivot", "model", "data", "--format")
    records = json.loads(litlab(*args, "json").out)
    lines = list(csv.DictReader(io.StringIO(litlab(*args, "csv").out)))
    assert len(records) == len(lines) == 3
    for record, line in zip(records, lines, strict=True):
        values = [accuracy(record["model"], record["data"], seed) for seed in (1, 2)]
        assert record["mean"] == float(line["mean"]) == pytest.approx(statistics.mean(values))
        assert record["sd"] == float(line["sd"]) == pytest.approx(statistics.stdev(values))
        assert (record["n"], line["n"]) == (2, "2")
        assert line["runs"].split() == record["runs"]


def test_markdown_and_latex_have_the_same_cells(litlab, grid):
    args = ("compare", grid, "--pivot", "model", "data", "--format")
    markdown = [line for line in litlab(*args, "markdown").out.splitlines() if line.startswith("| ")]
    latex = [line for line in litlab(*args, "latex").out.splitlines() if line.endswith(r"\\")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown]
    assert cells == [
        [cell.strip().replace(r"$\pm$", "±") for cell in line.removesuffix(r"\\").split("&")] for line in latex
    ]
    assert cells[1] == ["ConvNet", "0.9150 ± 0.0071 (2)", ""]


def test_keys_that_do_not_tell_the_data_set_make_a_table_for_each(litlab, grid):
    args = ("compare", grid, "--pivot", "model", "lr")
    out = litlab(*args).out
    assert "test/acc on Digits by model and lr" in out
    assert "test/acc on MNIST by model and lr" in out
    records = json.loads(litlab(*args, "--format", "json").out)
    assert sorted((record["data_set"], record["n"]) for record in records) == [
        ("Digits", 2),
        ("Digits", 2),
        ("MNIST", 2),
    ]


def test_a_cell_that_pools_configurations_says_so(litlab, write):
    for model, lr, seed in itertools.product(MODELS, ("0.1", "0.2"), (1, 2)):
        write("pooled", {"model": model, "model.lr": lr, "model.init": "he"}, seed, test__acc=0.8 + seed / 10)
    out = litlab("compare", "pooled", "--pivot", "model", "init").out
    assert "2 of 2 cells pool several configurations" in out
    assert out.count("(4)") == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pivot", "model"], "--pivot: expected 2 arguments"),
        (["--pivot", "model", "dta"], "--pivot dta: no run has such a key; did you mean data"),
        (["--pivot", "model", "data", "--by", "lr"], "--pivot takes the place of --by: give one of them"),
    ],
)
def test_a_wrong_pivot_is_refused(litlab, grid, args, message):
    outcome = litlab("compare", grid, *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"litlab: {message}")
