"""What a person sees of a training: a bar, and the metrics of each epoch."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REFRESH_S = 0.25


class EpochBar(ProgressBar):
    """A bar over all steps of the training, and a line of metrics per epoch; only the lines where there is no terminal.

    It draws a few times a second however fast the steps are: drawing at each step costs more than a small model's step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._progress: Progress | None = None
        self._drawn = 0.0
        self._epoch_began = 0.0
        self._pending: int | None = None
        self._validated: int | None = None

    def disable(self) -> None:
        """Say nothing: Lightning's call in all processes but the first."""
        self._console = Console(quiet=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("<"),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._progress.add_task("epoch 0", total=_total_steps(trainer))
            self._progress.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)
        self._pending, self._epoch_began = trainer.current_epoch, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._drawn > REFRESH_S:
            self._drawn = time.monotonic()
            self._progress.update(
                self._task, completed=trainer.global_step, description=f"epoch {trainer.current_epoch}", refresh=True
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _report(self, trainer: Trainer) -> None:
        """One line for the epoch that has ended; its training metrics are there only once the next hook is called."""
        if self._pending is None:
            return
        stale = () if self._validated == self._pending else ("val/",)  # from an epoch before this one
        logged = trainer.callback_metrics.items()
        metrics = {key: float(value) for key, value in logged if "/" in key and not key.startswith(stale)}
        text = "  ".join(f"{key} {metrics[key]:.4f}" for key in sorted(metrics))
        seconds = time.monotonic() - self._epoch_began
        self._console.print(f"epoch {self._pending:>3}  {text}  ({seconds:.1f} s)", highlight=False, soft_wrap=True)
        self._pending = None

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _total_steps(trainer: Trainer) -> int | None:
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps != float("inf") else None
