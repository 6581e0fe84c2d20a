"""The undocumented parts of libraries that litlab uses still exist. If one is missing, its file says what it is for."""

import multiprocessing.forkserver
import multiprocessing.util
from importlib.metadata import version
from operator import attrgetter

import pytest

TRAINER_PARTS = [
    "_checkpoint_connector.dump_checkpoint",
    "fit_loop.load_state_dict",
    "fit_loop.on_iteration_done",
    "fit_loop.restarting",
    "fit_loop.epoch_progress.total.completed",
    "fit_loop.epoch_progress.current.load_state_dict",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop.on_iteration_done",
    "fit_loop.epoch_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.scheduler_progress.current",
    "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total",
    "fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad.current",
    "fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.val_loop.on_iteration_done",
]


def check(library: str, thing: object, part: str, file: str) -> None:
    try:
        attrgetter(part)(thing)
    except AttributeError:
        pytest.fail(f"{library} has no {part} any more: change {file}")


@pytest.mark.parametrize("part", TRAINER_PARTS)
def test_lightnings_trainer_has(part, make_trainer):
    check(f"Lightning {version('lightning')}", make_trainer(), part, "pipelines/runtime/lightning_internals.py")


@pytest.mark.parametrize("part", ["forkserver.ensure_running", "util.get_temp_dir"])
def test_multiprocessing_has(part):
    check("multiprocessing", multiprocessing, part, "sweeps/workers/multiprocessing_internals.py")
