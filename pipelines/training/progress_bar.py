"""Progress of a training on the terminal: a bar, and one line of metrics per epoch."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipelines.runtime.console import Console
from pipelines.runtime.metric_names import shown_in_epoch, split_of

REFRESH_S = 0.25


class EpochBar(ProgressBar):
    """Show a bar over all training steps and print a line of metrics per epoch; without a terminal, the lines only.

    The bar is drawn a few times per second: drawing it at each step takes longer than the step of a small model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._progress: Progress | None = None
        self._last_drawn = 0.0
        self._epoch_start = 0.0
        self._unreported_epoch: int | None = None
        self._validated_epoch: int | None = None

    def disable(self) -> None:
        """Print nothing. Lightning calls this in all processes but the first."""
        self._console = Console(quiet=True)

    def enable(self) -> None:
        """Print again. Lightning calls this after a search for a learning rate or batch size."""
        self._console = Console()

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
        self._print_epoch(trainer)
        self._unreported_epoch, self._epoch_start = trainer.current_epoch, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._last_drawn > REFRESH_S:
            self._last_drawn = time.monotonic()
            self._progress.update(
                self._task, completed=trainer.global_step, description=f"epoch {trainer.current_epoch}", refresh=True
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated_epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print_epoch(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _print_epoch(self, trainer: Trainer) -> None:
        """Print the metrics of the last complete epoch. Its training metrics are only available in the next hook."""
        if self._unreported_epoch is None:
            return
        logged, stale = trainer.callback_metrics, self._validated_epoch != self._unreported_epoch  # of an earlier epoch
        names = [name for name in shown_in_epoch(logged) if not (stale and split_of(name) == "val")]
        text = "  ".join(f"{name} {float(logged[name]):.4f}" for name in names)
        seconds = time.monotonic() - self._epoch_start
        self._console.print(
            f"epoch {self._unreported_epoch:>3}  {text}  ({seconds:.1f} s)", highlight=False, soft_wrap=True
        )
        self._unreported_epoch = None

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _total_steps(trainer: Trainer) -> int | None:
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps != float("inf") else None
