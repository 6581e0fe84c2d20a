"""Find out whether an evaluation draws random numbers, so that it measures other values when it is repeated."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.checkpoints.random_state import get_random_state


class RandomnessCheck(Callback):
    """Compare the state of the random number generators before the first and after each batch of a data loader.

    What a data loader draws when it starts, and what its worker processes draw, is not compared.

    Attributes:
        draws: Whether random numbers were drawn.
    """

    def __init__(self) -> None:
        self.draws = False
        self._before: list[bytes] = []

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:
            self._before = _fingerprint()

    def on_validation_batch_end(self, *args: Any) -> None:
        self.draws = self.draws or _fingerprint() != self._before

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]


def _fingerprint() -> list[bytes]:
    state = get_random_state()
    tensors = [state["torch"], *state["cuda"]]
    _, keys, *rest = state["numpy"]
    return [
        *(tensor.numpy().tobytes() for tensor in tensors),
        keys.numpy().tobytes(),
        repr((rest, state["python"])).encode(),
    ]
