"""The keys `optimizer` and `lr_scheduler`, which replace what the module configures itself, as in LightningCLI."""

from types import MethodType
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, instantiate_class
from lightning.pytorch.utilities.model_helpers import is_overridden

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger


def set_optimizers(model: LightningModule, config: Namespace) -> None:
    """Let a module use the optimiser and the scheduler that the configuration has at its top level, if it has any.

    Raises:
        UserError: There is a scheduler without an optimiser.
    """
    optimizer, scheduler = config.optimizer, config.lr_scheduler
    if optimizer is None:
        if scheduler is not None:
            raise UserError("lr_scheduler needs an optimizer beside it: without one, the module configures both")
        return
    if is_overridden("configure_optimizers", model):
        logger.info("optimizer: replaces what %s.configure_optimizers returns", type(model).__name__)

    def configure_optimizers(module: LightningModule) -> Any:
        built = instantiate_class(module.parameters(), optimizer)
        of_scheduler = None if scheduler is None else instantiate_class(built, scheduler)
        return LightningCLI.configure_optimizers(module, built, of_scheduler)

    model.configure_optimizers = MethodType(configure_optimizers, model)  # type: ignore[method-assign]
