"""Train several trials of a sweep as a stack, in one worker process."""

from collections.abc import Mapping, Sequence
from multiprocessing import connection
from typing import Any

from lightning.pytorch import Trainer

from modules.speed import flush_denormals
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.varied import varied
from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.endings import recorded
from pipelines.training.job import Training, prepare_training
from pipelines.training.results import finalize
from pipelines.training.train import train
from sweeps.workers.job import Job, as_arguments
from sweeps.workers.process import create_run, final_message, max_epochs, selected_metrics, send, set_selection
from sweeps.workers.pruning import PruningCallback
from sweeps.workers.stacked_training import Member, Ready, Stack

FIGURES = 3
"""Number of the best trials of a stack that have a figure, which takes longer than all else at the end of a trial."""


class Parsed:
    """The configurations of the jobs of a stack: one is parsed, the others change its seed and its numbers."""

    def __init__(self) -> None:
        self._first: tuple[Job, LitlabCLI] | None = None

    def configuration(self, job: Job) -> LitlabCLI:
        """Return the configuration of a job, and set the seed of all generators.

        Raises:
            UserError: It is invalid.
        """
        if self._first is not None and _fixed(job) == _fixed(self._first[0]):
            cli = varied(self._first[1], job.values, job.seed)
            if cli is not None:
                return cli
        cli = parse_config("sweep", job.arguments_with_seed)
        self._first = self._first or (job, cli)
        return cli


def _fixed(job: Job) -> tuple[list[str], list[str]]:
    """Return the arguments of a job but the values of a search, and the keys of these."""
    searched = as_arguments(job.values)
    return [argument for argument in job.arguments if argument not in searched], list(job.values)


class Trials:
    """The trials of a stack, each with its own run and its own pipe to the controller."""

    def __init__(self, jobs: Sequence[Job], pipes: Sequence[connection.Connection]) -> None:
        self._waiting, self._size = list(zip(jobs, pipes, strict=True)), len(jobs)
        self._reporters: dict[Member, PruningCallback] = {}
        self._pruner = jobs[0].pruner

    def train(self) -> None:
        """Train them all; an error that ends the process ends those that are left."""
        try:
            silence_lightning()
            self._prepare()
            if self._reporters:
                with flush_denormals():
                    self._train(Stack(list(self._reporters)))
        except BaseException as error:
            for member in list(self._reporters):
                self._leave(member, error)
            for _, pipe in self._waiting:
                send(pipe, final_message(error))

    def _prepare(self) -> None:
        """Start each training as `litlab fit` does; one that cannot start does not affect the others."""
        first: Training | None = None
        parsed = Parsed()
        while self._waiting:
            job, pipe = self._waiting.pop(0)
            ready, reporter = Ready(), PruningCallback(job.metric, pipe)
            try:
                cli = parsed.configuration(job)
                training = prepare_training(cli, [ready], test=job.test, like=first)
                set_selection(job, training)
                run = create_run(job, cli, {"stacked": self._tag(training.trainer)})
                send(pipe, ("run", run.run_id, max_epochs(training.trainer)))
            except Exception as error:
                send(pipe, final_message(error))
                continue
            first = first or training
            member = Member(training, run, job.seed, job.test)
            self._reporters[member] = reporter
            try:
                train(training, run)
                member.begin(ready.random)
            except Exception as error:
                self._leave(member, error)

    def _tag(self, trainer: Trainer) -> str:
        """Return the value of the tag `stacked`: how many trials started together, and what their results are."""
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return f"{self._size}, equal in distribution to separate trainings" if on_gpu else str(self._size)

    def _train(self, stack: Stack) -> None:
        trainer = stack.members[0].job.trainer
        assert trainer.max_epochs is not None
        for epoch in range(trainer.max_epochs):
            self._end(stack, stack.train(epoch))
            validated = (epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
            pruned = self._validate(stack, epoch) if validated and stack.members else []
            stack.end_epoch(epoch, validated=validated)
            reason = f"pruned after epoch {epoch} ({self._pruner})"
            self._end(stack, {member: StoppedError(reason) for member in pruned})
            if not stack.members:
                return
        by_score = sorted(stack.members, key=lambda member: member.score, reverse=True)
        for place, member in enumerate(by_score):
            self._leave(member, figures=place < FIGURES)

    def _validate(self, stack: Stack, epoch: int) -> list[Member]:
        """Measure and report; return the members that the controller ends after this epoch."""
        measured, failed = stack.validate(), {}
        for member in measured:
            try:
                value = self._reporters[member].value(member.job.trainer, member.model)
                self._reporters[member].report(epoch + 1, value)
            except (FloatingPointError, UserError) as error:
                failed[member] = error
        self._end(stack, failed)
        pruned = [member for member in stack.members if self._reporters[member].should_stop()]
        for member in stack.members:
            member.run.log_metrics(measured[member], epoch)
        return pruned

    def _end(self, stack: Stack, ended: Mapping[Member, Exception]) -> None:
        for member, error in ended.items():
            self._leave(member, error)
        stack.remove(list(ended))

    def _leave(self, member: Member, error: BaseException | None = None, *, figures: bool = False) -> None:
        """End a trial: save its results, or report why there are none."""
        pipe = self._reporters.pop(member).pipe
        assert pipe is not None
        last: tuple[str, Any]
        try:
            with recorded(member.run):
                if error is None or isinstance(error, StoppedError):
                    member.save()
                if error is not None:
                    raise error
                seconds = member.job.checkpoint_callback.seconds
                finalize(member.job, member.run, seconds, test=member.test, curves=figures or member.test)
            last = ("done", selected_metrics(member.run))
        except BaseException as raised:
            last = final_message(raised)
            if raised is not error and not isinstance(raised, Exception):  # a signal to all of them
                raise
        finally:
            send(pipe, last)
