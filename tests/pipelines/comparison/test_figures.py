"""The figures of a comparison of small real runs: what they show, and how they are saved."""

import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex, to_rgba
from mlflow.exceptions import MlflowException
from PIL import Image

from pipelines.commands.fit import main as fit
from pipelines.comparison.figures import draw_figures, log_comparison, rows_that_saved, save_figures
from pipelines.comparison.learning_curves import plot_learning_curves
from pipelines.comparison.rows import group_and_rank
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import COLOURS, figure_style
from pipelines.runtime.log import configure_logging
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_TAG

TWO_EPOCHS = ("--trainer.max_epochs", "2")
CODER = ("autoencoder", "--data", "datamodules.digits.Digits", "--model.hidden", "[32]", "--name", "coder")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Two dropout rates with two seeds each and a longer run on digits, a classifier of Circles, an autoencoder."""
    folder = tmp_path_factory.mktemp("store")
    uri = ("--tracking_uri", f"sqlite:///{folder / 'mlflow.db'}")
    for seed in ("0", "1"):
        for dropout in ("0.2", "0.5"):
            with_seed = ("--model.dropout", dropout, "--seed_everything", seed)
            assert fit("fit", ["digits-mlp", *TWO_EPOCHS, *with_seed, *uri]) == 0
    longer = ("--trainer.max_epochs", "3", "--seed_everything", "2", "--name", "long")
    assert fit("fit", ["digits-mlp", *longer, *uri]) == 0
    assert fit("fit", ["digits-mlp", "--model.hidden", "[2]", *TWO_EPOCHS, "--name", "small", *uri]) == 0
    assert fit("fit", ["circles", "--trainer.max_epochs", "5", "--model.optimizer.lr", "0.3", *uri]) == 0
    assert fit("fit", [*CODER, *TWO_EPOCHS, *uri]) == 0
    return folder


@pytest.fixture
def store(database):
    return Store(f"sqlite:///{database / 'mlflow.db'}")


def compared(store, *names, by=(), metric=None):
    return group_and_rank(find_runs(store, names), metric, by)


def drawn_line(axis, label):
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def bands(figure):
    return [band for axis in figure.axes for band in axis.collections]


def history(store, run, metric):
    return [point.value for point in store.client.get_metric_history(run.run_id, metric)]


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_learning_curves_are_means_over_seeds_with_a_standard_deviation_to_either_side(store):
    comparison = compared(store, "digits-mlp")
    figure = draw_figures(comparison)["learning_curves"]
    row = comparison.rows[0]
    values = np.array([history(store, run, "val/loss") for run in row.runs])
    axis = figure.axes[0]
    epochs, means = drawn_line(axis, "validation")
    assert list(epochs) == [0, 1]
    assert np.allclose(means, values.mean(0))
    (band,) = [band for band in axis.collections if "validation" in str(band.get_label())]
    corners = band.get_paths()[0].vertices
    sd = values.std(0, ddof=1)
    for epoch in (0, 1):
        heights = corners[corners[:, 0] == epoch][:, 1]
        assert np.isclose(heights.min(), (values.mean(0) - sd)[epoch])
        assert np.isclose(heights.max(), (values.mean(0) + sd)[epoch])
    assert "validation: mean ± 1 standard deviation over runs" in legend_of(figure)
    assert axis.get_xlabel() == "epoch (from 0)"
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "loss", "accuracy (fraction)", "accuracy (fraction)"]
    assert "dropout=0." in axis.get_title()
    assert "(n = 2 seeds)" in axis.get_title()


def test_training_and_validation_differ_in_line_and_marker_and_not_only_in_colour(store):
    axis = plot_learning_curves({"all": compared(store, "digits-mlp").rows[0].runs}).axes[0]
    train, val = axis.lines
    assert train.get_linestyle() == "--"
    assert val.get_linestyle() == "-"
    assert train.get_marker() != val.get_marker()


def test_a_single_seed_has_no_band(store):
    figure = plot_learning_curves({"one": find_runs(store, ["long"]).runs})
    assert len(figure.axes) == 2
    assert not bands(figure)
    assert not any("standard deviation" in text for text in legend_of(figure))
    assert "(n = 1 seed)" in figure.axes[0].get_title()


def test_after_a_run_has_ended_the_mean_is_over_the_longer_ones(store):
    runs = [*compared(store, "digits-mlp").rows[0].runs, *find_runs(store, ["long"]).runs]
    figure = plot_learning_curves({"three": runs})
    long = history(store, runs[2], "val/acc")
    epochs, means = drawn_line(figure.axes[1], "validation")
    firsts = [history(store, run, "val/acc")[0] for run in runs]
    assert list(epochs) == [0, 1, 2]
    assert np.isclose(means[0], statistics.mean(firsts))
    assert means[2] == long[2]
    assert "(n = 3 seeds, 1 from epoch 2)" in figure.axes[0].get_title()


def test_a_plot_against_a_numeric_key_has_means_error_bars_and_single_seeds(store):
    comparison = compared(store, "digits-mlp")
    (axis,) = draw_figures(comparison)["against_dropout"].axes
    rows = sorted(comparison.rows, key=lambda row: float(row.value("model.dropout")))
    (bars,) = axis.containers
    means, _, (whiskers,) = bars.lines
    assert list(means.get_xdata()) == [0.2, 0.5]
    assert np.allclose(means.get_ydata(), [row.summary.mean for row in rows])
    for row, (low, high) in zip(rows, whiskers.get_segments(), strict=True):
        assert np.isclose(high[1] - low[1], 2 * row.summary.sd)
    dots = next(line for line in axis.lines if line.get_marker() == ".")
    assert sorted(dots.get_ydata()) == sorted(value for row in rows for value in row.values.values())
    assert axis.get_xlabel() == "dropout"
    assert axis.get_ylabel() == "test accuracy (fraction, mean ± 1\nstandard deviation)"
    assert axis.get_xscale() == "linear"


def test_a_wide_range_of_values_has_a_logarithmic_axis_with_a_tick_each(store):
    comparison = compared(store, "digits-mlp")
    for row, value in zip(comparison.rows, ("1", "50"), strict=True):
        row.configuration["model.dropout"] = value
    (axis,) = draw_figures(comparison)["against_dropout"].axes
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "50"]


def test_a_plot_against_a_text_key_has_categories_with_the_best_on_top(store):
    comparison = compared(store, "digits-mlp", "long", by=["experiment"])
    (axis,) = draw_figures(comparison)["against_experiment"].axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [row.value("experiment") for row in comparison.rows]
    assert axis.yaxis_inverted()
    means = axis.containers[0].lines[0]
    assert np.allclose(means.get_xdata(), [row.summary.mean for row in comparison.rows])


def test_each_value_of_another_key_has_its_own_line(store):
    comparison = compared(store, "digits-mlp")
    for number, (row, size) in enumerate(zip(comparison.rows * 2, ("10", "10", "50", "50"), strict=True)):
        if number > 1:
            row = type(row)(dict(row.configuration), row.runs, row.values, row.summary)
            comparison.rows.append(row)
        row.configuration["data.batch_size"] = size
    comparison.columns.append("data.batch_size")
    figure = draw_figures(comparison)["against_dropout"]
    assert legend_of(figure) == ["batch_size=10", "batch_size=50"]
    styles = {(bars.lines[0].get_linestyle(), bars.lines[0].get_marker()) for bars in figure.axes[0].containers}
    assert len(styles) == 2


def test_the_metric_is_drawn_against_parameters_and_seconds_where_they_differ(store):
    comparison = compared(store, "digits-mlp", "small")
    figure = draw_figures(comparison)["against_cost"]
    parameters, seconds = figure.axes
    assert parameters.get_xlabel() == "number of parameters"
    assert parameters.get_xscale() == "log"
    assert seconds.get_xlabel() == "training time in seconds"
    assert [bars.lines[0].get_xdata()[0] for bars in parameters.containers] == [
        row.mean("parameters") for row in comparison.rows
    ]
    named = legend_of(figure)
    assert len(named) == len(comparison.rows) == 3
    assert sum(name.startswith("small") for name in named) == 1
    looks = {(bars.lines[0].get_marker(), to_rgba(bars.lines[0].get_color())) for bars in seconds.containers}
    assert len(looks) == 3
    alike = draw_figures(compared(store, "digits-mlp"))["against_cost"]
    assert [axis.get_xlabel() for axis in alike.axes] == ["training time in seconds"]


def test_rows_on_different_data_are_in_different_figures(store):
    comparison = compared(store, "digits-mlp", "circles")
    names = set(draw_figures(comparison))
    assert {"learning_curves-Digits", "against_cost-Digits", "learning_curves-Circles"} <= names
    assert not {"learning_curves", "against_cost", "against_cost-Circles"} & names
    for kind, part in comparison.by_data_set().items():
        assert {row.value("data").rpartition(".")[2] for row in part.rows} == {kind}
        assert [row.rank for row in part.rows] == list(range(1, len(part.rows) + 1))
        assert all(row.baseline in (None, part.rows[0]) for row in part.rows)


def test_a_single_row_has_learning_curves_only(store):
    assert set(draw_figures(compared(store, "long"))) == {"learning_curves"}


def test_runs_that_logged_neither_loss_nor_accuracy_have_no_curves(store):
    comparison = compared(store, "long")
    (run,) = comparison.rows[0].runs
    comparison.rows[0].runs = [replace(run, metrics={"test/acc": 0.9, "selected_epoch": 0.0})]
    assert draw_figures(comparison) == {}
    assert not plot_learning_curves({"none": comparison.rows[0].runs}).axes[0].lines


def test_decision_regions_are_those_of_the_selected_weights(store):
    comparison = compared(store, "circles")
    figure = draw_figures(comparison)["decision_regions"]
    panels = [axis for axis in figure.axes if axis.get_xlabel() == "x1"]
    for row, axis in zip(comparison.rows, panels, strict=True):
        shown = np.asarray(axis.images[0].get_array())
        left, right, lower, upper = axis.images[0].get_extent()
        right_ones = 0
        for label, points in enumerate(axis.collections[-2:]):
            for x, y in points.get_offsets():
                column = round((x - left) / (right - left) * (shown.shape[1] - 1))
                at = round((y - lower) / (upper - lower) * (shown.shape[0] - 1))
                inside = 0 <= column < shown.shape[1] and 0 <= at < shown.shape[0]
                right_ones += inside and (shown[at, column] > 0.5) == bool(label)
        accuracy = row.runs[0].metrics["test/acc"]
        assert abs(right_ones / 200 - accuracy) < 0.05  # points beyond the map, and between those of its grid
        assert f"seed 0: test accuracy {accuracy:.3f}" in axis.get_title()


def test_codes_are_drawn_next_to_principal_components_with_accuracy_and_error(store):
    comparison = compared(store, "coder")
    figure = draw_figures(comparison)["codes"]
    codes, components = figure.axes
    (run,) = comparison.rows[0].runs
    assert f"accuracy {run.metrics['test/knn_acc']:.3f}" in codes.get_title()
    assert f"error {run.metrics['test/loss']:.4f}" in codes.get_title()
    assert "two principal components" in components.get_title()
    assert 0.4 < float(re.search(r"accuracy (0\.\d+)", components.get_title())[1]) < 0.6
    assert {text.get_text() for text in codes.texts} == set("0123456789")
    assert sum(len(points.get_offsets()) for points in codes.collections) == 360


def test_which_models_are_drawn_follows_from_the_figures_of_their_runs_and_not_from_their_classes(store):
    for name, figure in (("circles", "decision_regions"), ("coder", "codes")):
        comparison = compared(store, name)
        (run,) = comparison.rows[0].runs
        renamed = {**run.params, "data": "mine.Data", "model": "mine.Model", "model.code": ""}
        comparison.rows[0].runs = [replace(run, params=renamed)]
        assert figure in draw_figures(comparison)
        untested = {key: value for key, value in run.metrics.items() if not key.startswith("test/")}
        comparison.rows[0].runs = [replace(run, metrics=untested)]
        assert figure not in draw_figures(comparison)


def test_a_run_whose_figures_cannot_be_listed_is_a_note_and_the_next_run_is_asked(store, monkeypatch, capfd):
    configure_logging()
    (row,) = compared(store, "circles").rows
    rows = [row, *(replace(row, runs=[replace(row.runs[0], run_id=name)]) for name in ("other", "third"))]
    listed, asked = store.client.list_artifacts, []

    def failing_once(run_id, path):
        asked.append(run_id)
        if len(asked) == 1:
            raise MlflowException("the server is down")
        return listed(row.runs[0].run_id, path)

    monkeypatch.setattr(type(store.client), "list_artifacts", lambda client, *args: failing_once(*args))
    labelled = dict(zip("abc", rows, strict=True))
    chosen = rows_that_saved("decision_regions", labelled, 6, lambda run: run.params["data"])
    assert list(chosen) == ["b", "c"]
    assert asked == [row.runs[0].run_id, "other"]
    note = f"no figure decision_regions of run {row.runs[0].run_id}: the server is down"
    assert f"litlab: note: {note}" in capfd.readouterr().err


def test_a_missing_checkpoint_is_a_note_and_the_other_figures_are_drawn(store, database, tmp_path, capfd):
    configure_logging()
    (checkpoints,) = database.glob("mlartifacts/coder/*/artifacts/checkpoints")
    moved = shutil.move(checkpoints, tmp_path / "moved")
    try:
        drawn = draw_figures(compared(store, "coder"))
    finally:
        shutil.move(moved, checkpoints)
    assert set(drawn) == {"learning_curves"}
    assert "litlab: note: no figure codes: " in capfd.readouterr().err


def test_missing_data_are_a_note_and_are_not_downloaded(store, small, tmp_path, capfd):
    configure_logging()
    uri = ("--tracking_uri", store.uri)
    there = tmp_path / "data"
    shutil.copytree(small("autoencoder")[2], there)
    scans = ["--data.data_dir", str(there), "--data.verify", "false", "--data.n_val", "200", "--model.hidden", "[8]"]
    assert fit("fit", ["autoencoder", *scans, "--trainer.max_epochs", "1", *uri]) == 0
    shutil.rmtree(there)
    capfd.readouterr()
    drawn = draw_figures(compared(store, "autoencoder"))
    assert "codes" not in drawn
    assert "litlab: note: no figure codes: " in capfd.readouterr().err
    assert not there.exists()


def test_figures_are_saved_as_png_svg_and_pdf_always_the_same(store, tmp_path):
    drawn = draw_figures(compared(store, "digits-mlp"))
    paths = save_figures(drawn, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [f"{name}.{end}" for name in drawn for end in ("png", "svg", "pdf")]
    for path in paths[1::3]:
        elements = list(ElementTree.fromstring(path.read_text()).iter())
        here = [element.get("id") for element in elements if element.get("id")]
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', path.read_text())
        assert used
        assert set(used) <= set(here)
        assert not [element for element in elements if element.tag.endswith("}text")]  # no font is needed
    first = [path.read_bytes() for path in paths]
    again = save_figures(draw_figures(compared(store, "digits-mlp")), tmp_path / "again")
    assert [path.read_bytes() for path in again] == first
    assert all(data.startswith(b"\x89PNG") for data in first[::3])
    assert all(data.startswith(b"%PDF") for data in first[2::3])


@pytest.mark.usefixtures("full_size_figures")
def test_labels_are_not_cut_off_and_figures_have_200_dots_per_inch(store, tmp_path):
    drawn = draw_figures(compared(store, "digits-mlp", metric="selected/val/acc"))
    save_figures(drawn, tmp_path)
    for name, figure in drawn.items():
        box = figure.get_tightbbox()  # in inches
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.info["dpi"] == pytest.approx((200, 200), abs=1)
            assert picture.width >= 200 * box.width
            assert picture.height >= 200 * box.height
    axis = drawn["against_dropout"].axes[0]
    assert max(map(len, axis.get_ylabel().splitlines())) <= 34


@pytest.mark.usefixtures("full_size_figures")
def test_litlab_s_style_is_not_that_of_the_user_s_figures(store, tmp_path):
    before = dict(rcParams)
    save_figures(draw_figures(compared(store, "digits-mlp")), tmp_path)
    assert dict(rcParams) == before
    with figure_style():
        assert tuple(map(to_hex, rcParams["axes.prop_cycle"].by_key()["color"])) == COLOURS
        assert rcParams["savefig.dpi"] == 200


def test_a_comparison_is_logged_as_a_run_that_is_never_compared_itself(store, tmp_path):
    comparison = compared(store, "digits-mlp")
    drawn = draw_figures(comparison)
    command = "litlab compare digits-mlp --plot figures"
    run_id = log_comparison(comparison, drawn, tmp_path / "figures", command)
    run = store.find(run_id)
    assert run.status == "FINISHED"
    assert store.client.get_experiment(run.experiment_id).name == "comparisons"
    assert run.tags[PARENT_TAG] == "comparison"
    assert run.tags["litlab.command"] == command
    kept = {Path(file.path).name for file in store.client.list_artifacts(run_id, "figures")}
    assert (
        kept
        == {path.name for path in (tmp_path / "figures").iterdir()}
        == {f"{n}.{end}" for n in drawn for end in ("png", "svg", "pdf")}
    )
    note = run.tags["mlflow.note.content"]
    assert note == run.file("comparison.md").read_text()
    assert note.startswith("test/acc of digits-mlp: 2 rows, higher is better\n\n| row | dropout | mean ± sd |")
    assert all(found.run_id in note for row in comparison.rows for found in row.runs)
    assert not find_runs(store, ["comparisons"]).runs


def test_a_note_that_is_too_long_for_mlflow_is_complete_in_the_file(store, tmp_path):
    comparison = compared(store, "long")
    (row,) = comparison.rows
    run = store.find(log_comparison(replace(comparison, rows=[row] * 300), {}, tmp_path, "litlab compare long"))
    assert len(run.tags["mlflow.note.content"]) <= 8000
    assert run.tags["mlflow.note.content"].endswith("comparison.md.")
    assert run.file("comparison.md").read_text().count("| best |") == 300


def test_a_folder_that_cannot_be_written_to_is_named(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        save_figures({}, tmp_path / "file")


@pytest.mark.slow
def test_classifiers_of_images_are_drawn_without_torch(store):
    code = (
        "import sys; from pipelines.comparison.figures import draw_figures; from pipelines.tracking.store import Store;"
        "from pipelines.tracking.query import find_runs; from pipelines.comparison.rows import group_and_rank;"
        f"store = Store({store.uri!r}); draw_figures(group_and_rank(find_runs(store, ['digits-mlp'])));"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
