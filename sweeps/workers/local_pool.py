"""A pool that trains objects of Python in this process, one job after another.

Objects cannot travel to another process, and a fork is not safe once torch has threads or a GPU.
"""

import copy
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from pipelines.config.arguments import take_experiment
from pipelines.config.object_cli import ObjectCLI, trains_objects
from pipelines.config.objects import Objects
from pipelines.runtime.log import logger
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.terminal_log import recorded_terminal
from pipelines.training.job import build_parts
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, Pool, WorkerProcess
from sweeps.workers.process import create_run, final_message
from sweeps.workers.worker import experiment_facts, named_point, prepare_job, train_job

Build = Callable[..., Any]


class LocalPool(Pool):
    """A pool without processes: `events` trains a job, and returns when it has ended. Trainings are not pruned.

    Args:
        build: Makes the module, or the module and its data, from the values of a job.
        data: The data, unless `build` makes them; see `Objects`.
        trainer: Arguments of the Trainer that are objects. Each job gets a copy, since callbacks have a state.
        folder: See `Pool`.
        system_metrics: See `Pool`.
    """

    def __init__(
        self, build: Build, data: Any, trainer: Mapping[str, Any], folder: Path, *, system_metrics: bool = False
    ) -> None:
        super().__init__(1, folder, system_metrics=system_metrics)
        self._build, self._data, self._trainer = build, data, trainer
        self._measures_system = system_metrics
        self._repeated = _Repeated()

    def __enter__(self) -> Self:
        logger.addFilter(self._repeated)
        return self

    def __exit__(self, *error: object) -> None:
        logger.removeFilter(self._repeated)
        super().__exit__(*error)

    def warm_up(self) -> None:
        """Do nothing: there are no processes."""

    def check(self, job: Job, configurations: list[dict[str, Any]]) -> dict[str, Any]:
        """Build the objects with these configurations, and read the data; see `Pool.check`.

        Raises:
            UserError: A key or a value is refused.
        """
        silence_lightning()
        if _required(self._build):  # each configuration has the value of one key only
            for values in reversed(configurations):
                job.values |= values
        for values in configurations:
            with named_point(values):
                self._objects(job.values | values).make_model()
        cli = self._configure(job, job.arguments)
        data, model = build_parts(cli, test=job.test)
        cli.make_trainer(callbacks=None, logger=False, enable_checkpointing=False)
        facts = experiment_facts(job, cli, data, model)
        cli.release("")
        return facts | {"values": facts["values"] | defaults_of(self._build)}

    def start(self, *jobs: Job) -> None:
        """Take a job, which `events` trains."""
        (job,) = jobs
        job.system_metrics = self._measures_system
        self.children.append(WorkerProcess(job, None, None, time.monotonic(), [], None))  # type: ignore[arg-type]

    def events(self, timeout: float) -> list[tuple[WorkerProcess, Message]]:
        """Train the job that was started, and return its last message."""
        if not self.children:
            return []
        child = self.children[0]
        try:
            message: Message = "done", self._train(child)
        except BaseException as error:
            message = final_message(error)
        self.children.clear()
        return [(child, message)]

    def kill_all(self) -> None:
        """Forget the job that was started."""
        self.children.clear()

    @recorded_terminal()
    def _train(self, child: WorkerProcess) -> dict[str, float]:
        silence_lightning()
        cli = self._configure(child.job, child.job.arguments_with_seed)
        training, reporter = prepare_job(child.job, cli, None, [_StopsOnRequest(self)])
        run = create_run(child.job, cli)
        child.run_id = run.run_id
        with trains_objects(cli, run.run_id):
            return train_job(child.job, training, run, reporter)

    def _configure(self, job: Job, arguments: Sequence[str]) -> ObjectCLI:
        _, options = take_experiment(arguments)
        keys = [word for word in options if word.partition("=")[0].removeprefix("--") not in job.values]
        return ObjectCLI(self._objects(job.values), [*keys, "--trainer.enable_progress_bar=false"])

    def _objects(self, values: Mapping[str, Any]) -> Objects:
        made: dict[str, Any] = {"data": self._data}

        def model() -> LightningModule:
            built = self._build(**values)
            if isinstance(built, tuple):
                built, made["data"] = built
            return built  # type: ignore[no-any-return]

        return Objects(model, lambda: _called(made["data"]), copy.deepcopy(dict(self._trainer)))


class _Repeated(logging.Filter):
    """Drops warnings that were shown before: each training would repeat them."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._shown
        self._shown.add(message)
        return is_new


class _StopsOnRequest(Callback):
    """Stops a training after a step as soon as its pool is to stop."""

    once_per_block = True

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._pool.stop_requests:
            raise KeyboardInterrupt


def _called(data: Any) -> Any:
    is_made = data is None or isinstance(data, LightningDataModule | DataLoader | Mapping)
    return data if is_made else data()


def _parameters(build: Build) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [one for one in inspect.signature(build).parameters.values() if one.kind not in kinds]


def _required(build: Build) -> bool:
    """Return whether a function has arguments without a default."""
    return any(one.default is one.empty for one in _parameters(build))


def defaults_of(build: Build) -> dict[str, Any]:
    """Return the defaults of the arguments of a function."""
    return {one.name: one.default for one in _parameters(build) if one.default is not one.empty}
