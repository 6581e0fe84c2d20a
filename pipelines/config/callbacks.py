"""Which of Lightning's callbacks a run of litlab cannot have, and what is to be known about others."""

from collections.abc import Sequence

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import OnExceptionCheckpoint, StochasticWeightAveraging

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger


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
            "StochasticWeightAveraging ends after the last validation: its averaged weights are neither selected nor "
            "tested. Those of WeightAveraging and EMAWeightAveraging are"
        )
