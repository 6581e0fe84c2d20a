"""One search with `litlab sweep` and with Ray Tune: wall time, CPU time, and what is in Optuna and MLflow at the end.

    python benchmarks/ray_tune.py [--trials 32] [--epochs 5] [--repeats 1]

Each trains trials of `digits-mlp`, two at a time on one CPU each, with random configurations and successive halving
(ASHA), which prunes by what has been reached when; runs are logged to MLflow, trials to Optuna, both on SQLite. Ray
Tune has OptunaSearch, ASHAScheduler and MLflowLoggerCallback, and a function that trains with Lightning; by default it
starts a process for each trial, with `reuse_actors` it does not. CPU time is that of all processes, sampled twice a
second; epochs are those in MLflow. Variants take turns.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from fresh import LITLAB
from rich.console import Console
from rich.table import Table

MARK = "LITLAB_BENCHMARK"  # environment variable of all processes of a variant
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.7},
    "model.optimizer.lr": {"low": 3e-4, "high": 3e-2, "log": True},
    "data.batch_size": [16, 32, 64],
}
LITLAB_NAME, DEFAULT, REUSE = "litlab sweep --workers 2", "Ray Tune", "Ray Tune, reuse_actors"


def litlab(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the arguments of Python for litlab."""
    space = {"experiment": "digits-mlp", "metric": "val/loss", "sampler": "random", "trials": options.trials}
    space |= {"pruner": {"name": "successivehalving", "min_resource": 1, "reduction_factor": 2}, "confirm": 0}
    space |= {"set": {"trainer.max_epochs": options.epochs}, "space": SPACE, "keep": "none"}
    (folder / "search.yaml").write_text(yaml.safe_dump(space))
    return [*LITLAB, "sweep", "-c", str(folder / "search.yaml"), "--workers", "2"]


def tune(folder: Path, options: argparse.Namespace, *, reuse: bool) -> list[str]:
    """Return the arguments of Python for Ray Tune."""
    numbers = ["--trials", str(options.trials), "--epochs", str(options.epochs)]
    return [str(Path(__file__).resolve()), "--tune", str(folder), *numbers, *(["--reuse"] if reuse else [])]


def train(config: dict[str, Any]) -> None:
    """Train one configuration, and report each epoch to Ray Tune."""
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
    from ray import tune

    from datamodules.digits import Digits
    from modules.mlp import MLP

    class Report(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            tune.report({key: float(value) for key, value in trainer.callback_metrics.items()})

    seed_everything(0)
    torch.set_num_threads(1)
    data, optimizer = (
        Digits(batch_size=config["batch_size"]),
        partial(torch.optim.Adam, lr=config["lr"], fused=True),
    )
    model = MLP(
        input_shape=data.input_shape, num_classes=10, hidden=(128, 64), dropout=config["dropout"], optimizer=optimizer
    )
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=config["epochs"], callbacks=[Report()], **options).fit(model, data)


def run_tune(folder: Path, options: argparse.Namespace) -> None:
    """Search with Ray Tune."""
    import optuna
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")
    sampler, aim = optuna.samplers.RandomSampler(0), {"metric": "val/loss", "mode": "min"}
    search = OptunaSearch(sampler=sampler, study_name="search", storage=storage, **aim)
    scheduler = ASHAScheduler(max_t=options.epochs, grace_period=1, reduction_factor=2)
    space = {
        "dropout": tune.uniform(0.0, 0.7),
        "lr": tune.loguniform(3e-4, 3e-2),
        "batch_size": tune.choice([16, 32, 64]),
        "epochs": options.epochs,
    }
    settings = tune.TuneConfig(
        search_alg=search, scheduler=scheduler, num_samples=options.trials, reuse_actors=options.reuse, **aim
    )
    logger = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="search-sweep")
    run = tune.RunConfig(name="search", storage_path=str(folder / "tune"), callbacks=[logger], verbose=0)
    tune.Tuner(tune.with_resources(train, {"cpu": 1}), param_space=space, tune_config=settings, run_config=run).fit()


def measure(arguments: list[str], folder: Path, mark: str) -> tuple[float, float]:
    """Run Python; return wall time and the CPU time of all its processes, in seconds."""
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "RAY_worker_niceness": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path[1:], str(Path(__file__).parent)])
    used: dict[str, float] = {}
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            _sample(mark, used)
            time.sleep(0.5)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit((folder / "log").read_text()[-4000:])
    return seconds, sum(used.values())


def _sample(mark: str, used: dict[str, float]) -> None:
    """Update the CPU time of each process of a variant, by id and start time."""
    own = f"{MARK}={mark}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if own in (folder / "environ").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                used[f"{folder.name} {fields[19]}"] = (int(fields[11]) + int(fields[12])) * TICK_S


def kept(folder: Path) -> tuple[str, str, str]:
    """Return the number of epochs that were trained, the states of the trials in Optuna, and of the runs in MLflow."""
    import optuna
    from mlflow import MlflowClient

    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/optuna.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    ids = [one.experiment_id for one in client.search_experiments() if one.name != "Default"]
    found = [run for run in client.search_runs(ids) if "mlflow.parentRunId" in run.data.tags or len(ids) == 1]
    runs = [run for run in found if run.data.tags.get("litlab.parent") is None]
    epochs = sum(len(client.get_metric_history(run.info.run_id, "val/loss")) for run in runs)
    states = _counts(trial.state.name for trial in study.trials)
    return str(epochs), states, _counts(run.info.status for run in runs)


def _counts(names: Any) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(Counter(names).items()))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--tune", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reuse", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tune:
        run_tune(options.tune, options)
        return
    variants = {LITLAB_NAME: litlab, DEFAULT: partial(tune, reuse=False), REUSE: partial(tune, reuse=True)}
    title = f"{options.trials} trials of digits-mlp, at most {options.epochs} epochs"
    table = Table("variant", "s", "CPU s", "epochs", "trials in Optuna", "runs in MLflow", title=title, box=None)
    for repeat in range(options.repeats):
        for name, arguments in variants.items():
            with tempfile.TemporaryDirectory(prefix="rt-") as text:
                folder = Path(text)
                seconds, cpu = measure(arguments(folder, options), folder, f"{os.getpid()}-{repeat}-{name}")
                table.add_row(name, f"{seconds:.0f}", f"{cpu:.0f}", *kept(folder))
    Console().print(table)


if __name__ == "__main__":
    main()
