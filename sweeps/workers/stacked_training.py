"""Train several models as one, with the results that `litlab fit` has for each alone, up to rounding.

Each model has its own generator, which it uses in the order of its own training: for the order of its examples, its
dropout and its augmentation. It also has its own optimizer and schedule.

Shapes: N models, B examples of a batch, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.in_memory import EVAL_BATCH_SIZE, InMemoryDataModule
from modules.base import Batch, Classifier, Learner
from modules.functional_stack import FunctionalStack
from modules.metrics import SplitMetrics
from modules.stack import Stack as ModelStack
from modules.stacked_layers import LayerStack, has_stackable_layers
from modules.stacked_metrics import SeparateMetrics, StackedMetrics
from modules.stacked_step import StackedStep
from pipelines.checkpoints.files import BEST, LAST
from pipelines.checkpoints.random_state import RandomState, get_random_state, set_random_state
from pipelines.runtime.lightning_internals import set_callback_metrics
from pipelines.tracking.run import Run
from pipelines.training.job import Training
from pipelines.training.learning_rates import learning_rates
from pipelines.training.nan_guard import CHECK_EVERY_N_STEPS, nan_error
from sweeps.workers.stacked_data import StackedData


class Ready(Callback):
    """End a training where its first epoch would start: all its parts are set up, and its random state is known."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.random = get_random_state()
        trainer.should_stop = True


@dataclass(eq=False)
class Member:
    """One training of a stack, whose trainer has stopped at its start.

    Attributes:
        job: Its parts.
        run: Its run.
        seed: Seed of the order of its examples.
        test: Whether its test set is measured at the end.
        random: All generators of its process, when its first epoch would have started.
        generator: torch's, which it draws from.
    """

    job: Training
    run: Run
    seed: int
    test: bool = False
    random: RandomState = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)
    _best: dict[str, object] = field(default_factory=dict)
    _validated: int = -1

    @property
    def model(self) -> Learner:
        assert isinstance(self.job.model, Learner)
        return self.job.model

    @property
    def score(self) -> float:
        """How good its best epoch is; of those without a metric to select by, none is better."""
        best = self.job.checkpoint_callback.selection.best
        return -math.inf if best is None else best.score

    def begin(self, random: RandomState) -> None:
        """Draw from here on as a process of its own would."""
        self.random = random
        self.generator.set_state(random["torch"])
        self.model.eval()  # the stack applies dropout

    def draw(self, make: Callable[[], Batch]) -> Batch:
        """Call a function that draws from torch's global generator, with the state that this training would have."""
        torch.set_rng_state(self.generator.get_state())
        made = make()
        self.generator.set_state(torch.get_rng_state())
        return made

    def step_schedules(self, interval: str) -> None:
        """Step the learning rate schedules of an interval, "step" or "epoch"."""
        for config in self.job.trainer.lr_scheduler_configs:
            if config.interval == interval:
                config.scheduler.step()  # type: ignore[call-arg]

    def measure(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Give metrics to the trainer, as if it had measured them; return them as plain numbers."""
        set_callback_metrics(self.job.trainer, values)
        return {key: float(value) for key, value in values.items()}

    def end_epoch(self, epoch: int, trained: dict[str, Tensor], val_batches: int) -> None:
        """Log the training's metrics, and keep the checkpoint if it is the best."""
        self.run.log_metrics(self.measure(trained), epoch)
        self._validated = epoch if val_batches else self._validated
        if self.job.checkpoint_callback.end_external_epoch(self.job.trainer, epoch, val_batches):
            self._best = self._checkpoint()

    def save(self) -> None:
        """Save the checkpoints of the best and of the last epoch."""
        self.job.checkpoint_callback.save_state(self._checkpoint(), LAST)
        if self._best:
            self.job.checkpoint_callback.save_state(self._best, BEST)

    def _checkpoint(self) -> dict[str, object]:
        for regions in self.job.regions:
            with torch.no_grad():
                regions.record(self.job.trainer, self.model, self._validated)
        now = get_random_state()  # the generator of a GPU is that of the whole stack
        set_random_state({**self.random, "torch": self.generator.get_state(), "cuda": now["cuda"]})
        return self.job.checkpoint_callback.state(self.job.trainer)


class Stack:
    """Models that train together, until each leaves.

    Args:
        members: The trainings, with the same data, whose configurations passed `sweeps.workers.stacked_check.check`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        data, trainer = members[0].job.data, members[0].job.trainer
        assert isinstance(data, InMemoryDataModule)
        self._data, self._device = StackedData(data, trainer), trainer.strategy.root_device
        self._steps = int(trainer.num_training_batches)
        self._trained: dict[Member, dict[str, Tensor]] = {}
        self._stack(list(members))

    def _stack(self, members: list[Member]) -> None:
        for member in members:
            member.model.to(self._device)
        self.members, self.models = members, stack_models([member.model for member in members], self._device)
        optimizers = [optimizer for member in members for optimizer in member.job.trainer.optimizers]
        self._step = StackedStep(self.models, optimizers, self._device)
        # Whether all models see the same batches
        self._shared = not self._data.is_random and len({member.seed for member in members}) == 1
        self._generators = [member.generator for member in members] if self._device.type == "cpu" else None

    def remove(self, members: Sequence[Member]) -> None:
        """Continue without these."""
        if members:
            self.members = [member for member in self.members if member not in members]
            if self.members:
                self._data.attach(self.members[0].job.trainer)
                self._stack(self.members)

    def train(self, epoch: int) -> dict[Member, FloatingPointError]:
        """Run one epoch's steps; return the members whose loss is not finite, with the error that ends them."""
        lost: dict[Member, FloatingPointError] = {}
        metrics = self._metrics("train_metrics")
        for member in self.members:
            if rates := learning_rates(member.job.trainer):
                member.run.log_metrics(rates, epoch, step=epoch)
        if epoch:
            self._start_loaders()
        for number, batch in enumerate(self._data.training_batches(self.members, epoch, shared=self._shared), 1):
            for values in self._step.run(batch, self._generators, shared=self._shared):
                metrics.update(*values)
            step = epoch * self._steps + number
            self._step_schedules("step")
            if number == self._steps or (step % CHECK_EVERY_N_STEPS == 0 and self._device.type == "cpu"):
                lost = {**self._not_finite(step, epoch), **lost}
        self._step_schedules("epoch")
        self._trained = dict(zip(self.members, metrics.compute(), strict=True))
        return lost

    def _step_schedules(self, interval: str) -> None:
        scheduled = [member for member in self.members if member.job.trainer.lr_scheduler_configs]
        for member in scheduled:
            member.step_schedules(interval)
        if scheduled:
            self._step.read_numbers()

    def _metrics(self, name: str) -> StackedMetrics | SeparateMetrics:
        splits: list[SplitMetrics] = [getattr(member.model, name) for member in self.members]
        return StackedMetrics(splits) if StackedMetrics.takes(splits[0]) else SeparateMetrics(splits)

    def _not_finite(self, step: int, epoch: int) -> dict[Member, FloatingPointError]:
        losses = zip(self.members, self.models.losses().tolist(), strict=True)
        return {member: nan_error(loss, step, epoch) for member, loss in losses if not math.isfinite(loss)}

    def validate(self) -> dict[Member, dict[str, float]]:
        """Measure the validation set, and the training set once more if the data module asks for it."""
        self._start_loaders()
        measured: dict[Member, dict[str, Tensor]] = {member: {} for member in self.members}
        for name, examples in self._data.validation_sets.items():
            metrics = self._metrics(name)
            for batch in self._data.evaluation_batches(examples):
                for values in self.models.evaluation_step(batch):
                    metrics.update(*values)
            for member, found in zip(self.members, metrics.compute(), strict=True):
                measured[member] |= found
        return {member: member.measure(values) for member, values in measured.items()}

    def end_epoch(self, epoch: int, *, validated: bool) -> None:
        """Log the training's metrics, and keep the checkpoints that are the best."""
        sets = self._data.validation_sets.values() if validated else ()
        val_batches = sum(math.ceil(len(examples) / EVAL_BATCH_SIZE) for examples in sets)
        for member in self.members:
            member.end_epoch(epoch, self._trained[member], val_batches)

    def _start_loaders(self) -> None:
        """Draw for each member what a DataLoader draws whenever it starts."""
        for member in self.members:
            torch.empty((), dtype=torch.int64).random_(generator=member.generator)


def stack_models(models: Sequence[Learner], device: torch.device) -> ModelStack:
    """Return models as one: on a CPU with hand-made layers where these can hold them, as they are faster there.

    Raises:
        ValueError: The models differ in their layers, or have one that cannot be stacked.
    """
    known = [model for model in models if isinstance(model, Classifier) and has_stackable_layers(model)]
    return LayerStack(known) if len(known) == len(models) and device.type == "cpu" else FunctionalStack(models)
