"""`litlab baseline`: what scikit-learn does with the same data, tracked beside the networks.

Shapes: N examples of a set, D values of an example.
"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from datamodules.base import InMemoryDataModule
from datamodules.sets import TensorSet
from modules.metrics import KNNAccuracy
from pipelines.config import identity
from pipelines.config.cli import LitlabCLI, load_data, option_values, parse_config
from pipelines.evaluation import baseline_process as apart
from pipelines.evaluation import figures
from pipelines.evaluation.decision_regions import Plane, is_plane
from pipelines.runtime.console import format_duration
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    COMMAND_TAG,
    CONFIG_HASH_TAG,
    EXPERIMENT_TAG,
    FIT_SECONDS,
    SEED_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
)

METHODS = {
    "svm-linear": "support vector machine, linear (LinearSVC)",
    "svm-rbf": "support vector machine with radial basis functions (SVC)",
    "pca": "principal components, and the way back from them (PCA)",
}
HELP = f"""usage: litlab baseline METHOD NAME [--C 0.1 1 10] [--KEY VALUE ...]

Fits a method of scikit-learn to the data of an experiment, and keeps it in
MLflow beside the networks: the same training, validation and test set, with the
same normalisation. Each C is a run of its own.

{chr(10).join(f"  {name:<12}{text}" for name, text in METHODS.items())}

  NAME or PATH        the experiment whose data to take (litlab list shows them)
  --C 0.1 1 10        for a support vector machine: one run for each (1)
  --components 2      for pca: how many (2)
  --data.n_train 250  any key of the data
  --tracking_uri URI  where runs are kept (mlflow.db here)
  --name NAME         the MLflow experiment (NAME-METHOD)"""

Array = NDArray[np.float32]


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab baseline METHOD NAME [--C ...] [--components ...] [--key value ...]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    method, options, rest = split(argv)
    silence_lightning()
    exit_on_sigterm()
    cli = parse_config(verb, rest)
    data, _ = cli.build()
    if not isinstance(data, InMemoryDataModule) or not data.classes:
        raise UserError(f"litlab baseline needs data with classes, not {type(data).__name__}")
    for stage in ("fit", "test"):
        load_data(data, stage)
    if data.train_set.inputs.shape[1:] != data.test_set.inputs.shape[1:]:
        raise UserError(f"litlab baseline needs fixed training examples; {type(data).__name__} makes them as it goes")
    most = min(len(data.train_set), data.train_set.inputs[0].numel())
    if method == "pca" and not 1 <= options.components <= most:
        raise UserError(f"--components is {options.components}; it must be 1 to {most}")
    name = cli.config.name if option_values(rest, "--name") else f"{cli.config.name}-{method}"
    rows = {}
    for setting in settings(method, options):
        run = Run(Store(cli.config.tracking_uri), name, _run_name(setting), _tags(cli, name, method, setting, argv))
        with recorded(run):
            rows[_run_name(setting)] = _fit(method, setting, cli, data, run)
    _show(name, rows)
    return 0


def split(argv: Sequence[str]) -> tuple[str, argparse.Namespace, list[str]]:
    """The method, this verb's own options, and what is left for the configuration."""
    parser = argparse.ArgumentParser(prog="litlab baseline", allow_abbrev=False, add_help=False)
    parser.add_argument("--C", type=_positive, nargs="+", default=[1.0])
    parser.add_argument("--components", type=int, default=2)
    method, *others = argv
    if method not in METHODS:
        raise UserError(f"{method!r} is no baseline; they are {', '.join(METHODS)}")
    options, rest = parser.parse_known_args(others)
    foreign = {"--C"} if method == "pca" else {"--components"}
    if given := foreign & {token.partition("=")[0] for token in others}:
        raise UserError(f"{given.pop()} is no option of {method}")
    if not rest or rest[0].startswith("-"):
        raise UserError(f"name the experiment whose data to take: litlab baseline {method} NAME")
    return method, options, rest


def settings(method: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The settings that the options ask for; each is a run."""
    if method == "pca":
        return [{"components": options.components}]
    return [{"C": C} for C in dict.fromkeys(options.C)]


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _run_name(setting: dict[str, Any]) -> str:
    return " ".join(f"{key}={value:g}" for key, value in setting.items())


def config_hash(method: str, setting: Mapping[str, Any], cli: LitlabCLI) -> str:
    """What is the same in all runs of a method with one setting on the same data; see `identity.config_hash`."""
    return identity.config_hash({"method": method, **setting, "data": cli.resolved()["data"]})


def _tags(cli: LitlabCLI, name: str, method: str, setting: Mapping[str, Any], argv: Sequence[str]) -> dict[str, str]:
    return {
        EXPERIMENT_TAG: name,
        CONFIG_HASH_TAG: config_hash(method, setting, cli),
        COMMAND_TAG: redact_credentials(shlex.join(["litlab", "baseline", *argv])),
        SEED_TAG: str(cli.config.seed_everything),
        SOURCE_NAME_TAG: f"litlab baseline {name}",
        SOURCE_TYPE_TAG: "LOCAL",
    }


def _fit(method: str, setting: dict[str, Any], cli: LitlabCLI, data: InMemoryDataModule, run: Run) -> dict[str, float]:
    """Fit one setting, measure it on the three sets, and keep what came out."""
    run.log_params({"method": method, **setting, **_data_params(cli)})
    run.log_dataset(data.describe())
    if method == "pca":
        metrics = _principal_components(setting["components"], data, run)
    else:
        metrics = _support_vectors(method, setting["C"], cli.config.seed_everything, data, run)
    run.log_metrics(metrics, 0)
    return metrics


def _data_params(cli: LitlabCLI) -> dict[str, Any]:
    return {key: value for key, value in cli.params().items() if key.partition(".")[0] == "data"}


def _arrays(data: InMemoryDataModule, part: TensorSet) -> tuple[Array, NDArray[np.int64]]:
    """Normalised inputs of shape (N, D), and labels."""
    inputs = part.inputs.float() if data.normalize is None else data.normalize(part.inputs)
    return inputs.flatten(1).numpy(), part.targets.numpy()


def _support_vectors(method: str, C: float, seed: int, data: InMemoryDataModule, run: Run) -> dict[str, float]:
    from sklearn.svm import SVC, LinearSVC

    machine = LinearSVC(C=C, random_state=seed) if method == "svm-linear" else SVC(C=C)
    sets = {"train": data.train_set, "val": data.val_set, "test": data.test_set}
    arrays = {split: _arrays(data, part) for split, part in sets.items()}
    machine, seconds, said = apart.fit(machine, *arrays["train"])
    for text in said:
        print(f"litlab: note: {text}", file=sys.stderr)
    predicted_N = machine.predict(arrays["test"][0])
    truth_N = arrays["test"][1]
    run.save_figure("confusion_matrix", figures.confusion_matrix(truth_N, predicted_N, data.classes))
    if is_plane(data):
        plane = Plane(data)
        scores = machine.decision_function(plane.points_N2.numpy())
        maps = {f"C = {C:g}": plane.as_map(torch.from_numpy((scores > 0).astype(np.float32)))}
        run.save_figure("decision_regions", figures.decision_regions(maps, plane.corners, data.test_set))
    accuracies = {f"{split}/acc": float(machine.score(*pair)) for split, pair in arrays.items()}
    return {**accuracies, FIT_SECONDS: seconds}


def _principal_components(components: int, data: InMemoryDataModule, run: Run) -> dict[str, float]:
    from sklearn.decomposition import PCA

    train_ND, _ = _arrays(data, data.train_set)
    began = time.monotonic()
    pca = PCA(components, random_state=0).fit(train_ND)
    seconds = time.monotonic() - began
    metrics = {FIT_SECONDS: seconds, "explained_variance": float(pca.explained_variance_ratio_.sum())}
    for split, part in (("train", data.train_set), ("val", data.val_set), ("test", data.test_set)):
        inputs_ND, labels_N = _arrays(data, part)
        codes_NK = pca.transform(inputs_ND)
        again_ND = pca.inverse_transform(codes_NK)
        neighbours = KNNAccuracy()
        neighbours.update(torch.from_numpy(codes_NK), torch.from_numpy(labels_N))
        metrics |= {f"{split}/loss": float(np.square(again_ND - inputs_ND).mean())}
        metrics |= {f"{split}/knn_acc": float(neighbours.compute())}
    outputs = {"codes": codes_NK, "labels": labels_N}  # of the test set, the last one
    for name, figure in figures.of_outputs(data.test_set.inputs.numpy(), outputs, data.classes).items():
        run.save_figure(name, figure)
    return metrics


def _show(name: str, rows: dict[str, dict[str, float]]) -> None:
    """A line for each run: its metrics on the three sets."""
    console = Console(soft_wrap=True)
    for setting, metrics in rows.items():
        shown = {key: value for key, value in metrics.items() if key != FIT_SECONDS}
        text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
        console.print(f"{name}  {setting:<12} {text}  ({format_duration(metrics['fit_seconds'])})", highlight=False)
