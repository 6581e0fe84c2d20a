"""`litlab test` and `litlab validate`: measure a run's selected checkpoint again, from the run alone."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import Tensor

from modules.probes import Probe
from pipelines.checkpoints.files import fetch_checkpoint
from pipelines.config.cli import LitlabCLI, load_data
from pipelines.evaluation.load_run import parse_run
from pipelines.runtime.console import print_results
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.store import StoredRun

HELP = """usage: litlab {verb} RUN_ID [--tracking_uri URI] [--KEY VALUE ...]

{does},
and prints what was recorded beside what comes out. The run is only read.

  RUN_ID              as printed by litlab fit and shown in the UI
  --KEY VALUE         another value for a key of the run's configuration,
                        such as --data.data_dir FOLDER
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""
DOES = {
    "test": "Measures a run's selected checkpoint on the test set",
    "validate": "Measures a run's selected checkpoint on the validation set",
}


@dataclass
class Evaluation:
    """Metrics of a split and what the module keeps of each example, such as logits and labels, in the data's order."""

    metrics: dict[str, float]
    outputs: dict[str, Tensor]


class _Collector(Callback):
    """Keeps the tensors that evaluation steps return."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def _keep(self, outputs: Any) -> None:
        if isinstance(outputs, Mapping):
            self._batches.append({name: part.cpu() for name, part in outputs.items() if isinstance(part, Tensor)})

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self._keep(outputs)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self._keep(outputs)

    def stacked(self) -> dict[str, Tensor]:
        names = self._batches[0] if self._batches else {}
        every = {name: [batch[name] for batch in self._batches] for name in names}
        return {name: torch.cat(parts) for name, parts in every.items() if all(part.ndim for part in parts)}


def evaluate(
    verb: str, cli: LitlabCLI, model: LightningModule, data: LightningDataModule, checkpoint: Path
) -> Evaluation:
    """Measure a checkpoint on the validation or test set, on one device, so that every example counts exactly once.

    Args:
        verb: "test" or "validate".
        cli: The configuration, for the accelerator and the precision.
        model: Takes the weights of the checkpoint.
        data: Takes the statistics of the checkpoint.
        checkpoint: Loaded without unpickling objects.
    """
    collector = _Collector()
    probes = [callback for callback in cli.callbacks if isinstance(callback, Probe)]
    trainer = bare_trainer(cli, callbacks=[*probes, collector])
    measure = {"test": trainer.test, "validate": trainer.validate}[verb]
    with reraise_keyboard_interrupt(trainer):
        (metrics,) = measure(model, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return Evaluation(dict(metrics), collector.stacked())


def bare_trainer(cli: LitlabCLI, **kwargs: Any) -> Any:
    """A trainer for one device that logs and saves nothing."""
    return cli.make_trainer(
        **{
            "callbacks": None,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "profiler": None,
            **kwargs,
        }
    )


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab test RUN_ID` and `litlab validate RUN_ID`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP.format(verb=verb, does=DOES[verb]))
        return 0 if argv else 2
    silence_lightning()
    cli, run = parse_run(verb, argv)
    checkpoint = fetch_checkpoint(run)
    data, model = cli.build()
    load_data(data, "fit" if verb == "validate" else "test")
    evaluation = evaluate(verb, cli, model, data, checkpoint)
    split = "val" if verb == "validate" else "test"
    now = by_kind(evaluation.metrics, split)
    recorded = by_kind(run.metrics, "test" if split == "test" else "selected/val")
    print_results(f"{cli.config.name}, run {run.run_id}", {"recorded": recorded, "now": now}, {})
    _warn_if_other_data(run, data, split)
    return 0


def _warn_if_other_data(run: StoredRun, data: LightningDataModule, split: str) -> None:
    part = getattr(data, f"{split}_set", None)
    recorded = run.tags.get(f"data.sha256.{split}")
    if part is not None and recorded and part.digest() != recorded:
        print(f"litlab: note: this is not the {split} set that the run was measured on", file=sys.stderr)


def by_kind(metrics: dict[str, float], split: str) -> dict[str, float]:
    """{"test/acc": 0.9} to {"acc": 0.9}."""
    return {key.rpartition("/")[2]: value for key, value in metrics.items() if key.startswith(f"{split}/")}
