"""Measure a trained model on its validation or test set."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from datamodules.in_memory import InMemoryDataModule
from modules.probes import Probe
from pipelines.config.bare_trainer import bare_trainer
from pipelines.config.cli import LitlabCLI
from pipelines.config.objects import Objects
from pipelines.evaluation.later_tests import changes_nothing, record_test
from pipelines.evaluation.load_run import LoadedRun, load_run, needed_keys
from pipelines.evaluation.predictions import FILE, MAX_EXAMPLES, PREDICTED, TARGETS, Predictions, predictions_of
from pipelines.evaluation.profiles import evaluation_profiler, keep_report
from pipelines.evaluation.randomness import RandomnessCheck
from pipelines.evaluation.sharing import Share
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import of_split, split_of
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED

Split = Literal["val", "test"]


@dataclass
class Evaluation:
    """Metrics and outputs of a model on a split.

    Attributes:
        metrics: By name, such as "test/acc".
        outputs: The tensors that the evaluation step returned, such as "logits" and "labels", in the data's order.
    """

    metrics: dict[str, float]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class RunEvaluation:
    """A finished run, measured again.

    Attributes:
        recorded: Metrics that the run recorded for the split, such as "acc".
        measured: The same metrics, measured now.
        same_data: False if the split is not the one that the run recorded.
        draws_randomly: Whether the evaluation drew random numbers: the training drew others.
    """

    run_id: str
    experiment: str
    recorded: dict[str, float]
    measured: dict[str, float]
    same_data: bool
    draws_randomly: bool


def evaluate_run(
    run_id: str,
    split: Split = "test",
    overrides: Sequence[str] = (),
    *,
    tracking_uri: str | None = None,
    trust: bool = False,
    objects: Objects | None = None,
) -> RunEvaluation:
    """Measure the selected checkpoint of a run again. A run without predictions of its test gets them, and a
    test is recorded as a look at the test set.

    Args:
        run_id: A run of `litlab fit`, or of a sweep or several seeds, as `find_run` takes it.
        split: "val" or "test".
        overrides: Other values for keys of the run's configuration, such as `["--data.data_dir", "data"]`.
        tracking_uri: Where the run is; by default the project's mlflow.db.
        trust: See `load_checkpoint`.
        objects: Module and data of a run that was trained with objects.

    Raises:
        UserError: There is no such run, its checkpoint or its data are missing, or an override is wrong.
    """
    stage = "fit" if split == "val" else "test"
    loaded = load_run(
        run_id, overrides, tracking_uri=tracking_uri, stages=[stage], weights=False, trust=trust, objects=objects
    )
    assert loaded.run is not None
    random = RandomnessCheck()
    evaluation = evaluate(split, loaded.cli, loaded.model, loaded.data, loaded.checkpoint, [random])
    nameless = [name for name in evaluation.metrics if split_of(name) is None]
    recorded = of_split(_recorded(loaded.run, split), split, nameless)
    measured = of_split(evaluation.metrics, split, nameless)
    name, same_data = loaded.cli.config.name, loaded.has_recorded_data(split)
    if split == "test":
        record_test(loaded, overrides)
        if same_data and changes_nothing(overrides):
            _add_predictions(loaded, evaluation)
    return RunEvaluation(loaded.run.run_id, name, recorded, measured, same_data, random.draws)


def _add_predictions(loaded: LoadedRun, evaluation: Evaluation) -> None:
    """Save the predictions of the test in a run that has none."""
    run, kept = loaded.run, kept_predictions(evaluation, loaded.data)
    if run is None or kept is None:
        return
    with contextlib.suppress(UserError):
        run.file(FILE)
        return
    with tempfile.TemporaryDirectory() as folder:
        kept.save(Path(folder))
        if run.store.keep_file(run.run_id, Path(folder) / FILE, FILE):
            logger.info("the predictions are saved in the run, for litlab compare RUN_A RUN_B --examples")


def kept_predictions(evaluation: Evaluation, data: LightningDataModule | None) -> Predictions | None:
    """Return the predictions of a test that a run keeps; None if there are none, or too many."""
    known = {name for name in evaluation.outputs if name in (*TARGETS, *PREDICTED, "logits")}
    outputs = {name: evaluation.outputs[name] for name in known}
    arrays = {name: (part.float() if part.is_floating_point() else part).numpy() for name, part in outputs.items()}
    digest, classes = (data.test_set.digest(), data.classes) if isinstance(data, InMemoryDataModule) else ("", ())
    kept = predictions_of(arrays, digest, classes)
    if kept is None or len(kept.targets_N) <= MAX_EXAMPLES:
        return kept
    logger.info(
        "the predictions of %s test examples are not kept: more than %s", f"{len(kept.targets_N):,}", "a million"
    )
    return None


def _recorded(run: StoredRun, split: Split) -> dict[str, float]:
    """Return what a run recorded of its test, or of the validation that it selected."""
    if split == "test":
        return test_metrics(run.metrics, run.tags)
    prefix = f"{SELECTED}/"
    return {key.removeprefix(prefix): value for key, value in run.metrics.items() if key.startswith(prefix)}


def evaluate(
    split: Split,
    cli: LitlabCLI,
    model: LightningModule,
    data: LightningDataModule | None,
    checkpoint: Path,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    folder: Path | None = None,
    share: Share | None = None,
) -> Evaluation:
    """Measure a checkpoint on the validation or test set, so that every example counts exactly once.

    Args:
        split: "val" or "test".
        cli: The configuration, for the accelerator and the precision.
        model: Gets the weights of the checkpoint.
        data: Gets the statistics of the checkpoint.
        checkpoint: See `load_checkpoint`.
        callbacks: Further callbacks.
        loggers: What the module logs to; by default nothing is kept.
        folder: Folder of a run that keeps the report of the profiler.
        share: The share of this process, if several measure together; by default one device measures everything.

    Raises:
        UserError: The module has no such step, or there are no such data.
    """
    _check_has_step(split, model, data)
    collector = _OutputCollector()
    own = [callback for callback in cli.callbacks if isinstance(callback, Probe)]
    given: dict[str, Any] = {"logger": list(loggers)} if loggers else {}
    keys = needed_keys(model, data)
    given["profiler"] = evaluation_profiler(cli)
    given |= {} if share is None else {"devices": share.trainer_devices}
    trainer = bare_trainer(cli, checkpoint_keys=keys, callbacks=[*own, *callbacks, collector], **given)
    keep_report(trainer, folder, split)
    measure = trainer.test if split == "test" else trainer.validate
    in_memory = isinstance(data, InMemoryDataModule)
    shared = share.of_data(data) if share and isinstance(data, InMemoryDataModule) else contextlib.nullcontext()
    hidden = hidden_warnings(in_memory=in_memory, evaluates=True, shared=share is not None)
    with hidden, reraise_keyboard_interrupt(trainer), shared:
        per_loader = measure(model, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    outputs = collector.outputs() if share is None else share.gather(collector.outputs())
    return Evaluation({key: value for metrics in per_loader for key, value in metrics.items()}, outputs)


def _check_has_step(split: Split, model: LightningModule, data: LightningDataModule | None) -> None:
    step = "test_step" if split == "test" else "validation_step"
    source: Any = model if data is None else data
    for name, owner in ((step, model), (f"{split}_dataloader", source)):
        if not is_overridden(name, owner):
            raise UserError(f"{type(owner).__name__} has no {name}: there is nothing to evaluate")


class _OutputCollector(Callback):
    """Collect the tensors that evaluation steps return."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        if isinstance(outputs, Mapping):
            self._batches.append({name: part.cpu() for name, part in outputs.items() if isinstance(part, Tensor)})

    on_validation_batch_end = on_test_batch_end  # type: ignore[assignment]

    def outputs(self) -> dict[str, Tensor]:
        """Return the tensors of all batches, by name, concatenated; those without an axis are left out."""
        names = self._batches[0] if self._batches else {}
        batches = {name: [batch[name] for batch in self._batches] for name in names}
        return {name: torch.cat(parts) for name, parts in batches.items() if all(part.ndim for part in parts)}
