"""Callbacks of a configuration: those that a run cannot have, and those that only a training needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)

from modules.probes import Probe
from modules.speed import CudaGraph
from pipelines.runtime.class_paths import import_named
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

SEARCHING = (BatchSizeFinder, LearningRateFinder)  # they replace a value of the configuration before the first step


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check the callbacks of a training.

    Raises:
        UserError: One of them would start the training from a file of another run.
    """
    if any(isinstance(callback, OnExceptionCheckpoint) for callback in callbacks):
        raise UserError(
            "trainer.callbacks: Lightning starts the next fit from the file of OnExceptionCheckpoint, whichever run "
            "wrote it. Leave it out: litlab resume continues a failed run from its last checkpoint"
        )
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        logger.warning(
            "StochasticWeightAveraging averages after the last validation, so its weights are the last ones: "
            "--test_weights last tests them"
        )


def check_save_interval(callbacks: Sequence[Callback], steps: int | None) -> None:
    """Check that checkpoints are not to be saved at steps that callbacks do not see.

    Raises:
        UserError: They are to be saved every `steps` steps, and several steps are made at a time.
    """
    at_once = max((one.batches_at_once for one in callbacks if isinstance(one, CudaGraph)), default=1)
    if steps is not None and at_once > 1:
        made = f"modules.speed.CudaGraph makes {at_once} at a time"
        raise UserError(f"checkpoint_every counts steps, but {made}: give a time, such as 10m")


def without_training_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what only a training needs: callbacks, except probes; profiler; loggers.

    These need not be importable any more. Probes measure in evaluations too.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        return dict(config)
    kept = {key: value for key, value in trainer.items() if key not in ("callbacks", "logger", "profiler")}
    callbacks = trainer.get("callbacks")
    probes = [item for item in (callbacks if isinstance(callbacks, list) else [callbacks]) if _is_probe(item)]
    return {**config, "trainer": {**kept, "callbacks": probes} if probes else kept}


def _is_probe(callback: Any) -> bool:
    class_path = callback.get("class_path") if isinstance(callback, dict) else callback
    try:
        named = import_named(str(class_path))
    except Exception:  # it, or its module, is not there any more
        return False
    return isinstance(named, type) and issubclass(named, Probe)
