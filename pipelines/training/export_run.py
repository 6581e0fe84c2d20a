"""Export the model of a finished run that has none, from one batch of its data."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from pipelines.config.example_batch import ExampleBatch, class_names, describe, example_batch
from pipelines.evaluation.load_run import load_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line, kind_and_message
from pipelines.tracking import logged_model
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED_EPOCH
from pipelines.training.export import exportable


def export_run(
    run: StoredRun, overrides: Sequence[str] = (), *, input_key: str | None = None, trust: bool = False
) -> None:
    """Log the model of a run, whose `forward` maps one tensor to one tensor.

    Args:
        run: Is finished, and has no model.
        overrides: Other values for keys of its configuration, such as `["--data.data_dir", "data"]`.
        input_key: The part of a batch that is the input; by default what the module's step passes to `forward`, or else
            the first part.
        trust: See `load_checkpoint`.

    Raises:
        UserError: The model cannot be exported; the message says why.
    """
    from mlflow.exceptions import MlflowException

    loaded = load_run(run, overrides, trust=trust)
    name = type(loaded.model).__name__
    example = example_batch(loaded.cli, loaded.data, loaded.model)
    inputs = _one_tensor(name, example, input_key)
    try:
        model = exportable(None, loaded.model)
        with torch.no_grad():
            outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"forward returns {describe(outputs)}, not a tensor")
    except Exception as error:  # of the module
        raise UserError(
            f"run {run.run_id} has no model, and {name}.forward fails on {describe(inputs)} "
            f"({kind_and_message(error)}); --input KEY names the part of a batch that it takes"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog.new(run.store.uri, run.store.client.get_run(run.run_id).info, Path(folder))
        _save(log.model, model, inputs, _metadata(loaded.data, example, outputs), name)
        try:
            logged_model.send(run.store.client, log, int(run.metrics.get(SELECTED_EPOCH, 0)))
        except MlflowException as error:
            raise UserError(f"the model of run {run.run_id} cannot be logged: {first_line(error)}") from error


def _one_tensor(name: str, example: ExampleBatch, input_key: str | None) -> Tensor:
    """Return two inputs of the model."""
    args, kwargs = example.forward_arguments(input_key)
    tensors = [value for value in (*args, *kwargs.values()) if value is not None]
    if len(args) != 1 or len(tensors) != 1 or not isinstance(args[0], Tensor):
        raise UserError(
            f"{name}.forward takes {', '.join(map(describe, tensors))}: only a model that maps one tensor to one "
            "tensor can be registered; --input KEY names the part of a batch that it takes"
        )
    inputs = args[0].detach()
    return torch.cat([inputs, inputs])[:2].contiguous()  # at least two: the batch size is a variable


def _metadata(data: LightningDataModule | None, example: ExampleBatch, outputs: Tensor) -> dict[str, list[str]]:
    if outputs.ndim != 2:
        return {}
    names = class_names(data, example, outputs.shape[1])
    return {} if names == tuple(map(str, range(outputs.shape[1]))) else {"classes": list(names)}


def _save(path: Path, model: nn.Module, inputs: Tensor, metadata: dict[str, list[str]], name: str) -> None:
    try:
        logged_model.save(path, model, inputs, metadata)
    except Exception as error:  # torch.export has many
        raise UserError(f"torch.export cannot export {name}.forward: {first_line(error)}") from error
