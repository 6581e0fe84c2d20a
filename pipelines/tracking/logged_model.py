"""A run's model in MLflow: an exported program, which loads without pickle and without litlab."""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.tracking.client import IMPORTING
from pipelines.tracking.outbox import Outbox

if TYPE_CHECKING:
    from torch import Tensor, nn


def save(path: Path, model: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> None:
    """Save a module in MLflow's format. Needs no store.

    Args:
        path: The folder to create.
        model: On the CPU, in evaluation mode.
        example: Two of its inputs, shape (2, ...). The batch size may differ later.
        metadata: Facts about the model, such as its class names.
    """
    import torch

    with IMPORTING, gc_paused_for_import("mlflow.pytorch"):
        import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(tensor: "Tensor") -> Schema:
        return Schema([TensorSpec(tensor.numpy().dtype, (-1, *tensor.shape[1:]))])

    with torch.no_grad():
        signature = ModelSignature(spec(example), spec(model(example)))
    shutil.rmtree(path, ignore_errors=True)  # left by a process that was killed while saving
    mlflow.pytorch.save_model(
        model,
        str(path),
        mlflow_model=Model(metadata=dict(metadata)),
        signature=signature,
        input_example=example.numpy(),
        pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "mlflow", "numpy")],
        serialization_format="pt2",
    )


def send(client: Any, box: Outbox, epoch: int) -> None:
    """Log the saved model, whose weights are from `epoch`, unless the run has one.

    Raises:
        MlflowException: The store is unavailable. Calling it again logs nothing twice.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    outputs = client.get_run(box.run_id).outputs
    if outputs and outputs.model_outputs:  # logged before the run was interrupted and resumed
        return
    logged = _place(client, box)
    described = Model.load(str(box.model / "MLmodel"))
    described.artifact_path, described.model_id, described.run_id = (
        logged.artifact_location,
        logged.model_id,
        box.run_id,
    )
    described.save(str(box.model / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(box.model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(box.run_id, [LoggedModelOutput(logged.model_id, epoch)])


def _place(client: Any, box: Outbox) -> Any:
    """Return the run's logged model. Create it if missing, and delete duplicates after lost responses."""
    query, order = f"source_run_id = '{box.run_id}'", [{"field_name": "creation_timestamp"}]
    found = client.search_logged_models([box.experiment_id], query, order_by=order)
    if not found:
        client.create_logged_model(box.experiment_id, name="model", source_run_id=box.run_id)
        found = client.search_logged_models([box.experiment_id], query, order_by=order)
    for duplicate in found[1:]:
        client.delete_logged_model(duplicate.model_id)
    return found[0]
