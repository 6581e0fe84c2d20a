"""Progress of a training on the terminal or in a notebook: a bar, and one line of metrics per epoch."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.runtime.console import Console
from pipelines.runtime.hooks import run_after_hook
from pipelines.runtime.lightning_internals import hide_search_bar
from pipelines.runtime.metric_names import shown_in_epoch, split_of
from pipelines.runtime.notebook import UpdatedOutput, in_notebook
from pipelines.training.set_sizes import describe_loaders

REFRESH_S = 0.25
ALL_LINES = 50  # epochs that have a line each
LINE_INTERVAL_S = 5.0
BAR_METRICS_WIDTH = 36  # characters beside the bar, which then fits 80 columns


class EpochBar(ProgressBar):
    """Show a bar over all training steps, and print a line of metrics per epoch.

    Without a terminal, there are the lines only; in a notebook, the bar is an output that is updated.

    After `ALL_LINES` lines, one is printed every `LINE_INTERVAL_S` seconds, and one at the end.

    The bar is drawn a few times per second: drawing it at each step takes longer than the step of a small model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._progress: Progress | None = None
        self._output = UpdatedOutput() if in_notebook() else None
        self._last_drawn = 0.0
        self._epoch_start = 0.0
        self._unreported_epoch: int | None = None
        self._validated_epoch: int | None = None
        self._lines, self._last_line, self._metrics = 0, 0.0, ""

    def disable(self) -> None:
        """Print nothing. Lightning calls this in all processes but the first."""
        self._console = Console(quiet=True)

    def enable(self) -> None:
        """Print again. Lightning calls this after a search for a learning rate or batch size."""
        self._console = Console()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if sizes := describe_loaders(trainer):
            self._console.print(f"sets        {sizes}", highlight=False, markup=False, soft_wrap=True)
        if self._console.is_terminal or self._is_in_notebook:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._progress.add_task("epoch 0", total=_total_steps(trainer))
            if self._console.is_terminal:
                self._progress.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer)
        self._unreported_epoch, self._epoch_start = trainer.current_epoch, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._last_drawn > REFRESH_S:
            self._last_drawn = time.monotonic()
            self._draw(trainer, self._progress, f"epoch {trainer.current_epoch}")

    @property
    def _is_in_notebook(self) -> bool:
        return self._output is not None and not self._console.quiet

    def _draw(self, trainer: Trainer, progress: Progress, title: str) -> None:
        description = f"{title}{self._metrics}"
        if self._output is None:
            progress.update(self._task, completed=trainer.global_step, description=description, refresh=True)
            return
        progress.update(self._task, completed=trainer.global_step, description=description)
        self._output.show(progress.get_renderable())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated_epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer, last=True)
        if self._is_in_notebook and self._progress is not None:
            self._draw(trainer, self._progress, f"{trainer.current_epoch} epochs")  # its last state stays
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _end_epoch(self, trainer: Trainer, *, last: bool = False) -> None:
        """Show the metrics of the last complete epoch. Its training metrics are only available in the next hook."""
        if self._unreported_epoch is None:
            return
        logged, stale = trainer.callback_metrics, self._validated_epoch != self._unreported_epoch  # of an earlier epoch
        names = [name for name in shown_in_epoch(logged) if not (stale and split_of(name) == "val")]
        parts = [f"{name} {float(logged[name]):.4f}" for name in names]
        now = time.monotonic()
        parts.append(f"({now - self._epoch_start:.1f} s)")
        if last or self._lines < ALL_LINES or now - self._last_line > LINE_INTERVAL_S:
            self._lines, self._last_line = self._lines + 1, now
            width = self._console.width if self._console.is_terminal or "COLUMNS" in os.environ else None
            line = fit_line(f"epoch {self._unreported_epoch:>3}", parts, width)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._metrics = fit_line("", [part for part in parts[:-1] if not part.startswith("train")], BAR_METRICS_WIDTH)
        self._unreported_epoch = None

    def _stop(self) -> None:
        if self._progress is not None and self._console.is_terminal:
            self._progress.stop()
        self._progress = None


def quiet_searches(model: LightningModule, trainer: Trainer, enabled: bool | None) -> None:
    """Hide the bar of searches for a learning rate if there is no terminal, or `enable_progress_bar` is false.

    Args:
        model: The module that is trained.
        trainer: Its trainer.
        enabled: `trainer.enable_progress_bar`.
    """
    if enabled is False or not sys.stderr.isatty():
        run_after_hook(model, "on_train_start", lambda: hide_search_bar(trainer))


def _total_steps(trainer: Trainer) -> int | None:
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps != float("inf") else None


def fit_line(start: str, parts: Sequence[str], width: int | None) -> str:
    """Join parts to a line that fits a width; parts that do not fit are left out, the last ones first.

    Values on validation data are kept longest, and the first part is always kept.

    Args:
        start: How the line begins.
        parts: What follows, such as "val/loss 0.2108", in order.
        width: Characters; None for no limit.
    """
    kept = list(range(len(parts)))
    by_importance = sorted(kept, key=lambda index: (split_of(parts[index].partition(" ")[0]) != "val", index))
    line = "  ".join([start, *parts])
    while width is not None and len(line) > width and len(by_importance) > 1:
        kept.remove(by_importance.pop())
        line = "  ".join([start, *(parts[index] for index in kept)])
    return line
