"""A run's model in MLflow: an exported program, which loads without pickle and without litlab."""

import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.run_log import RunLog
from pipelines.tracking.tags import EXPERIMENT_TAG

if TYPE_CHECKING:
    from torch import Tensor, nn

PROGRAM, EXAMPLE, FACTS = "model.pt2", "example.npy", "model.json"
PACKAGES = ("torch", "mlflow", "numpy")  # what loading the model needs


def save(path: Path, model: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> None:
    """Save a module as an exported program, with what MLflow needs to know of it. Does not import MLflow.

    Args:
        path: The folder to create.
        model: On the CPU, in evaluation mode.
        example: Two of its inputs, shape (2, ...). The batch size may differ later.
        metadata: Facts about the model, such as its class names.
    """
    import numpy as np
    import torch
    from torch.export import Dim

    shutil.rmtree(path, ignore_errors=True)  # left by a process that was killed while saving
    path.mkdir(parents=True)
    with torch.no_grad():
        outputs = model(example)
    program = torch.export.export(model, (example,), dynamic_shapes=[{0: Dim.AUTO}])
    torch.export.save(program, path / PROGRAM)
    np.save(path / EXAMPLE, example.numpy())
    tensors = {"inputs": example, "outputs": outputs}
    signature = {name: [str(value.numpy().dtype), list(value.shape[1:])] for name, value in tensors.items()}
    facts = {"metadata": dict(metadata), "pytorch_version": torch.__version__, **signature}
    (path / FACTS).write_text(json.dumps(facts))


def send(client: Any, log: RunLog, epoch: int) -> None:
    """Log the saved model, whose weights are from `epoch`, unless the run has one.

    Raises:
        MlflowException: The store is unavailable. Calling it again logs nothing twice.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(log.run_id)
    if (outputs := run.outputs) and outputs.model_outputs:  # logged before the run was interrupted and resumed
        return
    logged, folder = _place(client, log, _name(run.data.tags)), _packaged(log.model)
    described = Model.load(str(folder / "MLmodel"))
    described.artifact_path, described.model_id, described.run_id = (
        logged.artifact_location,
        logged.model_id,
        log.run_id,
    )
    described.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(log.run_id, [LoggedModelOutput(logged.model_id, epoch)])


def _packaged(path: Path) -> Path:
    """Return the folder of a saved model in MLflow's format, as `mlflow.pytorch.save_model` writes it."""
    folder = path / "mlflow"
    if (path / "MLmodel").is_file():  # saved by an earlier version
        return path
    if folder.is_dir():
        return folder
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(dtype: str, shape: list[int]) -> Schema:
        return Schema([TensorSpec(np.dtype(dtype), (-1, *shape))])

    facts, part = json.loads((path / FACTS).read_text()), path / "mlflow.part"
    shutil.rmtree(part, ignore_errors=True)
    model = Model(metadata=facts["metadata"])
    model.add_flavor("pytorch", model_data="data", pytorch_version=facts["pytorch_version"], code=None)
    mlflow.pyfunc.save_model(
        str(part),
        loader_module="mlflow.pytorch",
        data_path=str(path / PROGRAM),
        mlflow_model=model,
        signature=ModelSignature(schema(*facts["inputs"]), schema(*facts["outputs"])),
        input_example=np.load(path / EXAMPLE, allow_pickle=False),
        pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
    )
    model.flavors["python_function"] |= {"data": "data", "model_config": {"device": None}}
    model.save(str(part / "MLmodel"))
    part.replace(folder)
    return folder


def _name(tags: Mapping[str, str]) -> str:
    """Return the experiment's name, without the characters that MLflow refuses in the name of a model."""
    return re.sub(r"[/:.%\"']", "-", tags.get(EXPERIMENT_TAG, "")) or "model"


def _place(client: Any, log: RunLog, name: str) -> Any:
    """Return the run's logged model. Create it if missing, and delete duplicates after lost responses."""
    query, order = f"source_run_id = '{log.run_id}'", [{"field_name": "creation_timestamp"}]
    found = client.search_logged_models([log.experiment_id], query, order_by=order)
    if not found:
        client.create_logged_model(log.experiment_id, name=name, source_run_id=log.run_id)
        found = client.search_logged_models([log.experiment_id], query, order_by=order)
    for duplicate in found[1:]:
        client.delete_logged_model(duplicate.model_id)
    return found[0]
