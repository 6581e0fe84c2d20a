"""Fit methods of scikit-learn to the data of an experiment, as MLflow runs next to those of the networks.

Shapes: N examples of a set, D values of an example, K components.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.in_memory import InMemoryDataModule
from modules.metrics import KNNAccuracy
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.data_setup import load_data
from pipelines.config.defaults import config_defaults
from pipelines.config.experiments import config_arguments
from pipelines.config.identity import config_hash
from pipelines.config.known_keys import known_keys
from pipelines.evaluation import figures
from pipelines.evaluation.baseline_methods import setting_name, settings_of
from pipelines.evaluation.decision_regions import Plane, is_plane
from pipelines.evaluation.fit_in_subprocess import fit_in_subprocess
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.text import format_command, option_tokens, redact_credentials
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    CONFIG_HASH_TAG,
    EXPERIMENT_TAG,
    FIT_SECONDS,
    SEED_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
)

Array = NDArray[np.float32]
Metrics = dict[str, float]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class BaselineRun:
    """A fitted baseline.

    Attributes:
        run_id: Its run in the tracking store.
        experiment: Name of its MLflow experiment.
        name: Of the run, such as "C=10".
        metrics: On the training, validation and test set, such as "test/acc"; and "fit_seconds".
    """

    run_id: str
    experiment: str
    name: str
    metrics: Metrics


def fit_baseline(
    method: str,
    experiment: str,
    overrides: Sequence[str] = (),
    *,
    C: Sequence[float] = (1.0,),
    components: int = 2,
    name: str | None = None,
    tracking_uri: str | None = None,
    command: str | None = None,
) -> list[BaselineRun]:
    """Fit a method of scikit-learn to the training set of an experiment, and measure it on all three sets.

    The sets and their normalisation are those of the networks. Each setting is a run.

    Args:
        method: "svm-linear", "svm-rbf" or "pca"; see METHODS.
        experiment: Name, or path, of the experiment whose data to use.
        overrides: Other values for keys of the data, such as `["--data.n_train", "250"]`.
        C: Inverse strengths of the regularisation, for a support vector machine; a run for each.
        components: For PCA.
        name: Name of the MLflow experiment; by default the experiment's, a hyphen and the method.
        tracking_uri: Where the runs are stored; by default where the experiment says, or else the project's mlflow.db.
        command: Recorded as the command that made the runs; by default that of these arguments.

    Raises:
        UserError: An argument is wrong, or the data have no classes or no fixed training set.
    """
    settings = settings_of(method, C=C, components=components)
    silence_lightning()
    cli = parse_config("baseline", config_arguments(experiment, overrides, tracking_uri))
    data = _read_data(cli)
    most = min(len(data.train_set), data.train_set.inputs[0].numel())
    if method == "pca" and not 1 <= components <= most:
        raise UserError(f"--components is {components}; it must be 1 to {most}")
    own = {"--components": str(components)} if method == "pca" else {"--C": [str(value) for value in C]}
    options = option_tokens({**own, "--name": name, "--tracking_uri": tracking_uri})
    command = command or format_command("baseline", [method, experiment, *overrides, *options])
    name = name or f"{cli.config.name}-{method}"
    store, runs, tags = Store(cli.config.tracking_uri), [], _tags(cli, name, command)
    data_params = {key: value for key, value in cli.params().items() if key.partition(".")[0] == "data"}
    for setting in settings:
        digest = config_hash(baseline_config(method, setting, cli))
        run = Run(store, name, setting_name(setting), {**tags, CONFIG_HASH_TAG: digest})
        with recorded(run):
            run.log_params({"method": method, **setting, **data_params})
            run.log_dataset(data.describe())
            fit = _fit_pca if method == "pca" else _fit_svm
            metrics = fit(method, setting, cli.config.seed_everything, data, run)
            run.log_metrics(metrics, 0)
        runs.append(BaselineRun(run.run_id, name, setting_name(setting), metrics))
    return runs


def baseline_config(method: str, setting: Mapping[str, Any], cli: LitlabCLI) -> dict[str, Any]:
    """Return the configuration of a run, which makes its hash: method, setting, and the data of an experiment."""
    return {"method": method, **setting, "data": cli.resolved()["data"]}


def recorded_baseline(run: StoredRun) -> list[dict[str, Any]]:
    """Return the configuration that the params of a run tell, as one item; a key that is None is missing."""
    params = {}
    for key, text in run.params.items():
        try:
            params[key] = json.loads(text)
        except ValueError:
            params[key] = text
    init_args = {key.removeprefix("data."): value for key, value in params.items() if key.startswith("data.")}
    rest = {key: value for key, value in params.items() if key.partition(".")[0] != "data"}
    return [{**rest, "data": {"class_path": params.get("data"), "init_args": init_args}}]


def _read_data(cli: LitlabCLI) -> InMemoryDataModule:
    """Return the data module with all three sets.

    Raises:
        UserError: It has no classes, or no fixed training set, or a file is missing.
    """
    data, _ = cli.build()
    if not isinstance(data, InMemoryDataModule) or not data.classes:
        raise UserError(f"litlab baseline needs data with classes, not {type(data).__name__}")
    for stage in ("fit", "test"):
        load_data(data, stage)
    if data.train_set.inputs.shape[1:] != data.test_set.inputs.shape[1:]:
        raise UserError(f"litlab baseline needs fixed training examples; {type(data).__name__} draws them in training")
    return data


def _tags(cli: LitlabCLI, name: str, command: str) -> dict[str, str]:
    """Return the tags that the runs of all settings share."""
    return {
        EXPERIMENT_TAG: name,
        COMMAND_TAG: redact_credentials(command),
        SEED_TAG: str(cli.config.seed_everything),
        SOURCE_NAME_TAG: f"litlab baseline {name}",
        SOURCE_TYPE_TAG: "LOCAL",
        **known_keys({"data": cli.resolved()["data"]}, config_defaults(cli)).tags(),
    }


def flat_arrays(data: InMemoryDataModule, split: str) -> tuple[Array, NDArray[np.int64]]:
    """Return the normalised inputs of "train", "val" or "test", shape (N, D), and the labels, shape (N,)."""
    examples = {"train": data.train_set, "val": data.val_set, "test": data.test_set}[split]
    inputs = examples.inputs.float() if data.normalize is None else data.normalize(examples.inputs)
    return inputs.flatten(1).numpy(), examples.targets.numpy()


def _fit_svm(method: str, setting: dict[str, Any], seed: int, data: InMemoryDataModule, run: Run) -> Metrics:
    """Fit a support vector machine, save its figures, and return its metrics."""
    from sklearn.svm import SVC, LinearSVC

    svm = LinearSVC(**setting, random_state=seed) if method == "svm-linear" else SVC(**setting)
    arrays = {split: flat_arrays(data, split) for split in SPLITS}
    svm, seconds, warnings = fit_in_subprocess(svm, *arrays["train"])
    for warning in warnings:
        logger.warning(f"note: {warning}")
    inputs_ND, labels_N = arrays["test"]
    run.save_figure("confusion_matrix", figures.confusion_matrix(labels_N, svm.predict(inputs_ND), data.classes))
    if is_plane(data):
        plane = Plane(data)
        scores_N = svm.decision_function(plane.points_N2.numpy())
        maps = {f"C = {setting['C']:g}": plane.as_grid(torch.from_numpy((scores_N > 0).astype(np.float32)))}
        figure = figures.decision_regions(maps, plane.corners, data.test_set, data.classes)
        run.save_figure("decision_regions", figure)
    return {**{f"{split}/acc": float(svm.score(*pair)) for split, pair in arrays.items()}, FIT_SECONDS: seconds}


def _fit_pca(method: str, setting: dict[str, Any], seed: int, data: InMemoryDataModule, run: Run) -> Metrics:
    """Find the principal components, save their figures, and return their metrics."""
    from sklearn.decomposition import PCA

    train_ND, _ = flat_arrays(data, "train")
    began = time.monotonic()
    pca = PCA(setting["components"], random_state=0).fit(train_ND)
    metrics = {FIT_SECONDS: time.monotonic() - began}
    metrics["explained_variance"] = float(pca.explained_variance_ratio_.sum())
    for split in SPLITS:
        codes_NK, metrics[f"{split}/loss"], metrics[f"{split}/knn_acc"] = measure_pca(pca, data, split)
    outputs = {"codes": codes_NK, "labels": data.test_set.targets.numpy()}  # of the test set, the last one
    for name, figure in figures.output_figures(data.test_set.inputs.numpy(), outputs, data.classes).items():
        run.save_figure(name, figure)
    return metrics


def measure_pca(pca: Any, data: InMemoryDataModule, split: str) -> tuple[Array, float, float]:
    """Return the components of a split, shape (N, K), their mean squared reconstruction error and KNNAccuracy."""
    inputs_ND, labels_N = flat_arrays(data, split)
    codes_NK = pca.transform(inputs_ND)
    error = float(np.square(pca.inverse_transform(codes_NK) - inputs_ND).mean())
    neighbours = KNNAccuracy()
    neighbours.update(torch.from_numpy(codes_NK), torch.from_numpy(labels_N))
    return codes_NK, error, float(neighbours.compute())
