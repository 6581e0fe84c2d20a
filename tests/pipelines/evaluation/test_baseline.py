"""`litlab baseline`: methods of scikit-learn on the data of an experiment, as runs next to the networks'."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from datamodules.circles import Circles
from datamodules.digits import Digits
from datamodules.in_memory import InMemoryDataModule
from pipelines.commands.baseline import parse
from pipelines.config.experiments import find_experiment

DIGITS = ["digits-mlp", "--data.n_train", "200", "--data.n_val", "100"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """One database for all tests of this file: creating one takes longer than fitting a machine."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def uri(uri, store, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store


def _runs(uri: str, experiment: str) -> dict[str, Run]:
    """The runs of an experiment, by name."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def _arrays(data: InMemoryDataModule) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs as the networks get them, in rows, and labels."""
    data.setup("fit")
    data.setup("test")
    sets = {name: getattr(data, f"{name}_set") for name in ("train", "val", "test")}
    normalize = data.normalize or (lambda inputs: inputs)
    return {name: (normalize(part.inputs).flatten(1).numpy(), part.targets.numpy()) for name, part in sets.items()}


def _figures(run: Run) -> set[str]:
    folder = Path(urlparse(run.info.artifact_uri).path) / "figures"
    for path in folder.iterdir():
        with Image.open(path) as figure:
            assert min(figure.size) > 100
            assert np.asarray(figure.convert("L")).std() > 1, f"{path.name} is blank"
    return {path.stem for path in folder.iterdir()}


def test_each_C_is_a_run_with_the_metrics_of_scikit_learn(litlab, uri):
    outcome = litlab("baseline", "svm-rbf", "circles", "--C", "0.1", "10")
    assert outcome.code == 0, outcome.err
    runs, arrays = _runs(uri, "circles-svm-rbf"), _arrays(Circles())
    assert set(runs) == {"C=0.1", "C=10"}
    for C in (0.1, 10):
        run = runs[f"C={C:g}"]
        machine = SVC(C=C).fit(*arrays["train"])
        for split, part in arrays.items():
            assert run.data.metrics[f"{split}/acc"] == pytest.approx(machine.score(*part), abs=1e-9)
        assert run.info.status == "FINISHED"
        assert (run.data.params["method"], float(run.data.params["C"])) == ("svm-rbf", C)
        assert run.data.metrics["fit_seconds"] > 0
        assert _figures(run) == {"confusion_matrix", "decision_regions"}
    (line,) = (line for line in outcome.out.splitlines() if "C=10" in line)
    assert f"test/acc {runs['C=10'].data.metrics['test/acc']:.4f}" in line


def test_a_run_records_its_command_and_its_data(litlab, uri):
    litlab(
        "baseline",
        "svm-rbf",
        "circles",
        "--data.n_train",
        "50",
        "--data.seed",
        "3",
        "--seed_everything",
        "4",
        "--name",
        "made",
    )
    (run,) = _runs(uri, "made").values()
    data = Circles(n_train=50, seed=3)
    data.setup("fit")
    assert run.data.params["data.n_train"] == "50"
    assert not [key for key in run.data.params if key.startswith(("model", "trainer"))]
    assert run.data.tags["data.sha256.train"] == data.train_set.digest()
    assert run.data.tags["litlab.command"].startswith("litlab baseline svm-rbf circles --data.n_train 50")
    assert run.data.tags["seed"] == "4"
    assert run.inputs.dataset_inputs[0].dataset.name == "Circles"


def test_a_run_is_stored_where_the_experiment_file_says(litlab, tmp_path):
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    file = tmp_path / "here.yaml"
    file.write_text(f"{find_experiment('circles').read_text()}\ntracking_uri: {elsewhere}\n")
    outcome = litlab("baseline", "svm-rbf", file, "--data.n_train", "50")
    assert outcome.code == 0, outcome.err
    assert set(_runs(elsewhere, "here-svm-rbf")) == {"C=1"}


@pytest.mark.slow
def test_the_default_command_of_fit_baseline_makes_the_same_runs(uri):
    from pipelines.evaluation.baseline import fit_baseline

    arguments = {"C": [0.1, 10.0], "components": 2, "name": "called", "tracking_uri": uri}
    overrides = ["--data.n_train", "50"]
    fit_baseline("svm-rbf", "circles", overrides, **arguments)
    for run in _runs(uri, "called").values():
        program, verb, *argv = shlex.split(run.data.tags["litlab.command"])
        assert (program, verb) == ("litlab", "baseline")
        assert vars(parse(argv)) == {"method": "svm-rbf", "experiment": "circles", "overrides": overrides, **arguments}


@pytest.mark.slow
def test_on_circles_a_linear_machine_is_at_chance_and_radial_basis_functions_are_not(litlab, uri):
    """Chance within four standard errors of 200 points; the report has 0.94 with radial basis functions."""
    for method in ("svm-linear", "svm-rbf"):
        assert litlab("baseline", method, "circles", "--name", f"both-{method}").code == 0
    (linear,), (radial,) = (_runs(uri, f"both-{method}").values() for method in ("svm-linear", "svm-rbf"))
    assert linear.data.metrics["test/acc"] == pytest.approx(0.5, abs=4 * (0.25 / 200) ** 0.5)
    assert radial.data.metrics["test/acc"] >= 0.9


def test_a_linear_machine_gets_the_normalised_pixels_of_the_networks(litlab, uri):
    outcome = litlab("baseline", "svm-linear", *DIGITS, "--C", "0.01", "--seed_everything", "1", "--name", "mine")
    assert outcome.code == 0, outcome.err
    (run,) = _runs(uri, "mine").values()
    arrays = _arrays(Digits(n_train=200, n_val=100))
    machine = LinearSVC(C=0.01, random_state=1).fit(*arrays["train"])
    for split, part in arrays.items():
        assert run.data.metrics[f"{split}/acc"] == pytest.approx(machine.score(*part), abs=1e-9)
    assert _figures(run) == {"confusion_matrix"}


@pytest.mark.slow
def test_a_machine_that_does_not_converge_is_reported_and_saved(litlab, uri):
    outcome = litlab("baseline", "svm-linear", *DIGITS, "--C", "1e6")
    assert outcome.code == 0
    (warning,) = (line for line in outcome.err.splitlines() if "converge" in line)
    assert warning.startswith("litlab: note: ")
    (run,) = _runs(uri, "digits-mlp-svm-linear").values()
    assert run.info.status == "FINISHED"


def test_principal_components_are_those_of_scikit_learn(litlab, uri):
    outcome = litlab("baseline", "pca", *DIGITS, "--data.normalization", "unit", "--components", "2")
    assert outcome.code == 0, outcome.err
    (run,) = _runs(uri, "digits-mlp-pca").values()
    arrays = _arrays(Digits(n_train=200, n_val=100, normalization="unit"))
    pca = PCA(2, random_state=0).fit(arrays["train"][0])
    metrics = run.data.metrics
    assert metrics["explained_variance"] == pytest.approx(float(pca.explained_variance_ratio_.sum()), rel=1e-5)
    for split, (inputs, labels) in arrays.items():
        codes = pca.transform(inputs)
        error = np.square((pca.inverse_transform(codes) - inputs).astype(float)).mean()
        assert metrics[f"{split}/loss"] == pytest.approx(error, rel=1e-5)
        vote = cross_val_predict(KNeighborsClassifier(10), codes, labels, cv=LeaveOneOut())
        assert metrics[f"{split}/knn_acc"] == pytest.approx((vote == labels).mean(), abs=1.5 / len(labels))
    assert run.info.run_name == "components=2"
    assert run.data.params["components"] == "2"
    assert run.info.status == "FINISHED"
    assert _figures(run) == {"codes"}


def test_all_components_reconstruct_the_training_images(litlab, uri):
    args = ["--data.n_train", "30", "--data.n_val", "100", "--data.normalization", "unit", "--components", "30"]
    assert litlab("baseline", "pca", "digits-mlp", *args, "--name", "all").code == 0
    (run,) = _runs(uri, "all").values()
    assert run.data.metrics["train/loss"] < 1e-9 < run.data.metrics["test/loss"]
    assert run.data.metrics["explained_variance"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["svm-cubic", "circles"], "'svm-cubic' is not a baseline; choose from svm-linear, svm-rbf, pca"),
        (["svm-rbf"], "name the experiment whose data to use: litlab baseline svm-rbf NAME"),
        (["svm-rbf", "--C", "1"], "name the experiment whose data to use: litlab baseline svm-rbf NAME"),
        (["svm-rbf", "cirles"], "cirles"),
        (["pca", "circles", "--C", "1"], "--C is not an option of pca"),
        (["pca", "circles", "--C=1"], "--C is not an option of pca"),
        (["svm-rbf", "circles", "--components", "2"], "--components is not an option of svm-rbf"),
        (["svm-rbf", "circles", "--components=2"], "--components is not an option of svm-rbf"),
        (["svm-rbf", "circles", "--C", "0"], "0 is not above 0"),
        (["svm-rbf", "circles", "--C", "-1"], "-1 is not above 0"),
        (["svm-rbf", "circles", "--C", "many"], "--C: invalid float value: 'many'"),
        (["pca", "circles", "--components", "3"], "--components is 3; it must be 1 to 2"),
        (["pca", "circles", "--components", "0"], "--components is 0; it must be 1 to 2"),
        (["svm-rbf", "functions-linear"], "litlab baseline needs data with classes, not Functions"),
        (["svm-rbf", "circles", "--data.nois", "1"], "unknown key data.nois: did you mean data.noise?"),
        (["svm-rbf", "circles", "--data.noise", "-1"], "data.noise is -1"),
    ],
)
def test_a_mistake_is_reported_in_a_clear_line(litlab, args, message):
    outcome = litlab("baseline", *args)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_pairs_that_are_drawn_in_training_have_no_baseline(litlab):
    outcome = litlab("baseline", "svm-linear", "paired-digits", "--data.source", "digits")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert "PairedDigits" in outcome.err


def test_without_arguments_it_prints_its_help(litlab):
    assert litlab("baseline").code == 2
    outcome = litlab("baseline", "--help")
    assert outcome.code == 0
    assert all(method in outcome.out for method in ("svm-linear", "svm-rbf", "pca"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_stopped_baseline_ends_at_once_and_its_run_is_killed(uri, start_litlab, number, code):
    name = f"stopped-{code}"
    command = ["baseline", "svm-rbf", "circles", "--data.n_train", "60000", "--data.noise", "2", "--name", name]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    process = start_litlab(*command, stderr=subprocess.DEVNULL, env=environment)  # takes libsvm minutes
    deadline = time.monotonic() + 120
    folder = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / name
    while not list(folder.glob("*/artifacts/data.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    (run,) = _runs(uri, name).values()
    assert run.info.status == "KILLED"
