"""`litlab compare A B --examples`: what one of two runs classifies correctly, and the predictions that runs keep."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from datamodules.digits import Digits
from pipelines.cli import main
from pipelines.comparison.examples import mcnemar
from pipelines.evaluation.predictions import Predictions, predictions_of, read_predictions
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs on the digits, one without predictions, and one on other data; the runs by name."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('examples') / 'mlflow.db'}"
    digits = ("digits-mlp", "--trainer.max_epochs", "1", "--tracking_uri", uri)
    with contextlib.redirect_stdout(io.StringIO()):
        for seed, more in ((0, ()), (1, ("--keep_predictions", "false"))):
            assert main(["fit", *digits, "--seed_everything", str(seed), "--run_name", f"seed {seed}", *more]) == 0
        assert main(["fit", *digits, "--model.hidden", "[4]", "--run_name", "small"]) == 0
        circles = ("circles", "--trainer.max_epochs", "1", "--tracking_uri", uri)
        assert main(["fit", *circles, "--run_name", "points"]) == 0
    store = Store(uri)
    return {run.name: run for run in find_runs(store, []).runs}


@pytest.fixture(autouse=True)
def uri(uri, trained, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained["small"].store.uri)
    monkeypatch.setenv("COLUMNS", "80")
    return str(trained["small"].store.uri)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 5), (12, 2), (40, 40), (70, 130)], ids=str)
def test_mcnemar_s_exact_test_agrees_with_the_binomial_test_of_scipy(counts):
    wanted = stats.binomtest(counts[0], sum(counts), 0.5).pvalue if sum(counts) else 1.0
    assert mcnemar(*counts) == pytest.approx(wanted)
    assert mcnemar(*reversed(counts)) == mcnemar(*counts)


def test_a_run_keeps_the_prediction_for_each_test_example_in_the_order_of_the_data(trained):
    run = trained["small"]
    kept = read_predictions(run)
    data = Digits()
    data.setup("test")
    assert np.array_equal(kept.targets_N, data.test_set.targets.numpy())
    assert kept.digest == data.test_set.digest() == run.tags["data.sha256.test"]
    assert kept.right_N.mean() == pytest.approx(run.metrics["test/acc"])
    assert ((kept.probabilities_N > 0.1) & (kept.probabilities_N <= 1)).all()
    assert list(kept.classes) == list(data.classes)


def test_the_counts_add_up_to_the_accuracies(litlab, trained):
    outcome = litlab("compare", "seed 0", "small", "--examples", "--format", "json")
    found = json.loads(outcome.out)
    counts = [found[key] for key in ("both_right", "only_a_right", "only_b_right", "both_wrong")]
    assert sum(counts) == 360
    assert (counts[0] + counts[1]) / 360 == pytest.approx(trained["seed 0"].metrics["test/acc"])
    assert (counts[0] + counts[2]) / 360 == pytest.approx(trained["small"].metrics["test/acc"])
    assert found["p_value"] == pytest.approx(stats.binomtest(counts[1], counts[1] + counts[2], 0.5).pvalue)
    assert len(found["examples"]) == counts[1] + counts[2]
    first, second = (read_predictions(trained[name]) for name in ("seed 0", "small"))
    for example in found["examples"]:
        index, target = example["index"], example["target"]
        assert target == first.name(first.targets_N[index])
        assert (example["a"] == target, example["b"] == target) == (first.right_N[index], second.right_N[index])
        assert (example["right"] == "A") is bool(first.right_N[index])


def test_every_format_has_the_counts_and_csv_a_line_for_each_example(litlab):
    args = ("compare", "seed 0", "small", "--examples")
    found = json.loads(litlab(*args, "--format", "json").out)
    table, markdown, latex = (litlab(*args, "--format", name).out for name in ("table", "md", "latex"))
    for text in (table, markdown, latex):
        assert f"{found['only_a_right']:,} examples only A classifies correctly, {found['only_b_right']} only B" in text
        assert "A is better" in text
    assert len(list(csv.DictReader(io.StringIO(litlab(*args, "--format", "csv").out)))) == len(found["examples"])
    assert max(map(len, table.splitlines())) <= 110  # the conclusion is one line


def test_a_run_without_predictions_gets_them_from_litlab_test(litlab, trained):
    run = trained["seed 1"]
    refused = litlab("compare", "seed 1", "small", "--examples")
    assert refused.code == 2
    command = f"litlab test {run.run_id}"
    assert f"run {run.run_id} has no predictions of its test examples: {command} adds them" in refused.err
    assert litlab("test", run.run_id, "--model.dropout", "0.1").code == 0
    assert litlab("compare", "seed 1", "small", "--examples").code == 2, "of another configuration"
    assert litlab("test", run.run_id).code == 0
    assert read_predictions(run).right_N.mean() == pytest.approx(run.metrics["test/acc"])
    assert litlab("compare", "seed 1", "small", "--examples").code == 0


def test_whether_predictions_are_kept_makes_no_other_configuration(litlab):
    rows = json.loads(litlab("compare", "digits-mlp", "--format", "json").out)
    assert sorted(row["n"] for row in rows) == [1, 2]


def test_different_test_sets_are_refused_by_their_digests(litlab, trained):
    outcome = litlab("compare", "points", "small", "--examples")
    digests = [trained[name].tags["data.sha256.test"][:12] for name in ("points", "small")]
    assert outcome.code == 2
    assert f"were tested on different test sets: SHA-256 {digests[0]} and {digests[1]}" in outcome.err


def test_the_images_are_drawn_in_a_folder(litlab, tmp_path):
    outcome = litlab("compare", "seed 0", "small", "--examples", "--plot", tmp_path / "figures")
    assert outcome.code == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"only_A_right.png", "only_A_right.svg"} <= names
    points = litlab("compare", "points", "points", "--examples", "--plot", tmp_path / "points")
    assert (points.code, "only images of litlab's own data modules" in points.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["small"], "--examples compares two runs: litlab compare RUN_A RUN_B --examples; got 1"),
        (["small", "small", "--metric", "test/acc"], "--examples does not take --metric"),
        (["small", "no such run"], "there is no run 'no such run'"),
    ],
)
def test_a_mistake_is_refused(litlab, args, message):
    outcome = litlab("compare", *args, "--examples")
    assert outcome.code == 2
    assert message in outcome.err


def test_a_test_step_of_any_module_may_return_logits_or_predicted_classes(tmp_path):
    labels, logits = np.array([0, 1, 1]), np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]], dtype=np.float32)
    by_logits = predictions_of({"logits": logits, "labels": labels}, classes=("no", "yes"))
    by_class = predictions_of({"preds": np.array([0, 1, 0]), "target": labels})
    assert by_logits.right_N.tolist() == by_class.right_N.tolist() == [True, True, False]
    assert by_logits.probabilities_N[0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert np.isnan(by_class.probabilities_N).all()
    for others in ({"estimates": logits, "targets": logits}, {"labels": labels}, {"logits": logits}, {}):
        assert predictions_of(others) is None
    by_logits.save(tmp_path)
    again = Predictions.read(tmp_path / "predictions.npz")
    assert again.name(again.predicted_N[1]) == "yes"
    assert np.array_equal(again.probabilities_N, by_logits.probabilities_N)
