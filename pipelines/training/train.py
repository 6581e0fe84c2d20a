"""Train and test one run, and end it: FINISHED, KILLED or FAILED."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from modules.speed import flush_denormals
from pipelines.config.loggers import place_logger
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.profiles import keep_report
from pipelines.evaluation.sharing import share_of_test
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import run_after_hook
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings
from pipelines.runtime.user_traceback import user_traceback
from pipelines.tracking.endings import notified, recorded
from pipelines.tracking.run import Run
from pipelines.training.announce import announce
from pipelines.training.device_tags import device_tags
from pipelines.training.failures import RunFailedError, diagnose
from pipelines.training.found_values import log_values_used, remove_searches
from pipelines.training.job import Training
from pipelines.training.logger import RunLogger
from pipelines.training.monitors import explained_monitors
from pipelines.training.progress_bar import quiet_searches
from pipelines.training.results import FitResult, finalize
from pipelines.training.run_metadata import resume_command


def train_and_test(
    training: Training, run: Run, find_checkpoint: Callable[[], Path | None] = lambda: None, *, notify: str = ""
) -> FitResult:
    """Train, test the selected epoch, record the results and end the run.

    Args:
        training: The prepared training.
        run: The run that it is recorded in.
        find_checkpoint: Returns the checkpoint to resume from, or None to train from the start.
        notify: Command to run when the run has ended; "" for none.

    Raises:
        KeyboardInterrupt, SystemExit, BrokenPipeError: The user stopped the training. The run is KILLED; notes of the
            exception say how to continue it.
        RunFailedError: The run is FAILED.
    """
    try:
        with notified(notify, run, training.cli.config.name, lambda: _best_so_far(training)), recorded(run):
            seconds = train(training, run, find_checkpoint(), announced=True)
            result = finalize(training, run, seconds, test=True)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError) as raised:
        stop = KeyboardInterrupt() if run.stop_requested else raised  # litlab stop ends a run as Ctrl-C does
        kept = "; metrics logged so far are kept" if run.has_metrics else ""
        stop.add_note(f"Stopped. Run {run.run_id} is KILLED{kept}.")
        stop.add_note(f"To continue: {resume_command(training.cli, run)}")
        if stop is raised:
            raise
        raise stop from raised
    except Exception as error:
        raise _failure(error, training, run) from error
    return replace(result, refused=tuple(run.refused))


def _best_so_far(training: Training) -> tuple[str, float] | None:
    """Return the metric that selects the best weights, and its best value; None if there is none."""
    selection = training.checkpoint_callback.selection
    if selection.monitor is None or selection.best is None or training.cli.config.test_weights != "best":
        return None
    return selection.monitor.metric, selection.monitor.value(selection.best.score)


def train(
    training: Training, run: Run, checkpoint: Path | None = None, *, announced: bool = False, test: bool = True
) -> float:
    """Log configuration and data, then train; returns the training time in seconds.

    Args:
        training: The prepared training.
        run: The run that it is recorded in.
        checkpoint: The checkpoint to resume from.
        announced: Whether to print what the training is.
        test: Whether the run is tested; `finalize` must then follow.
    """
    log_values_used(training, run)
    if announced:
        announce(training, run)
    training.checkpoint_callback.bind_run(run)
    run_after_hook(training.model, "on_train_start", lambda: run.set_tags(device_tags(training.trainer)))
    return run_trainer(training, checkpoint, run, test=test)


def train_on_further_device(training: Training, checkpoint: Path | None = None, *, test: bool = True) -> None:
    """Train and test in a process that does not own the run.

    Args:
        training: The prepared training.
        checkpoint: The checkpoint to resume from.
        test: Whether the run is tested.
    """
    run_trainer(training, checkpoint, test=test)
    if (share := training.share) is not None:
        if (tested := share.agree()) is not None:
            evaluate("test", training.cli, training.model, training.data, tested, share=share)
        share.end()


def run_trainer(
    training: Training, checkpoint: Path | None = None, run: Run | None = None, *, test: bool = True
) -> float:
    """Train; returns the training time in seconds, including that before the checkpoint.

    Args:
        training: The prepared training.
        checkpoint: The checkpoint to resume from.
        run: The run that it is recorded in; None in the processes of further devices.
        test: Whether the run is tested, which the processes may share.
    """
    trainer = training.trainer
    if not training.cli.searches:
        remove_searches(training.model)
    quiet_searches(training.model, trainer, training.cli.config.trainer.enable_progress_bar)
    trainer.loggers = place_logger(RunLogger(run, trainer), training.loggers, trainer.loggers)
    keep_report(trainer, None if run is None else run.folder, "fit")
    in_memory, folder = isinstance(training.data, InMemoryDataModule), None if run is None else run.folder
    with (
        hidden_warnings(in_memory=in_memory, folder=folder),
        reraise_keyboard_interrupt(training.trainer),
        flush_denormals(),
        explained_monitors(trainer),
    ):
        training.trainer.fit(training.model, datamodule=training.data, ckpt_path=checkpoint, weights_only=True)
    if test and torch.distributed.is_initialized():
        training.share = share_of_test(training.cli, training.model, training.data, trainer)
    if training.share is None and torch.distributed.is_initialized():  # rank zero must not wait for other processes
        torch.distributed.destroy_process_group()
    return training.checkpoint_callback.seconds


def _failure(error: Exception, training: Training, run: Run) -> RunFailedError:
    """Describe an error of a training for the user."""
    by_parts: tuple[type[Exception], ...] = (MisconfigurationException,)  # what model, data and trainer refuse
    if isinstance(training.model, Learner):
        by_parts += (ValueError,)
    before_first_step = training.trainer.global_step == 0
    refused = isinstance(error, UserError) or (before_first_step and isinstance(error, by_parts))
    diagnosis = diagnose(error, run.folder, training.trainer.world_size)
    diverged = isinstance(error, FloatingPointError)
    has_checkpoint = training.checkpoint_callback.last.is_file()
    found = user_traceback(error)
    by_user = found is not None and bool(found.traceback)  # in a file that the user can correct
    may_resume = has_checkpoint or diagnosis is not None  # else it fails again, or there is nothing to continue from
    return RunFailedError(
        diagnosis or str(error),
        run.run_id,
        resume_command=resume_command(training.cli, run) if may_resume and not (refused or diverged) else "",
        refused=refused,
        explained=refused or diverged or diagnosis is not None,
        has_metrics=run.has_metrics,
        to_mend=by_user and not may_resume,
    )
