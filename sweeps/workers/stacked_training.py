"""Train several models as one, with the results that `litlab fit` has for each alone, up to rounding.

Each model has its own generator, which it uses in the order of its own training: for the order of its examples, its
dropout and its augmentation. It also has its own optimizer and schedule.

Shapes: N models, B examples of a batch, K classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.in_memory import EVAL_BATCH_SIZE, InMemoryDataModule
from datamodules.sampling import EpochSampler
from datamodules.sets import TensorSet
from modules.base import Batch, Classifier, Learner
from modules.functional_stack import FunctionalStack
from modules.stack import Stack as ModelStack
from modules.stack import Updates
from modules.stacked_layers import LayerStack, has_stackable_layers
from pipelines.checkpoints.files import BEST, LAST
from pipelines.checkpoints.random_state import RandomState, get_random_state, set_random_state
from pipelines.runtime.lightning_internals import set_callback_metrics
from pipelines.tracking.run import Run
from pipelines.training.job import Training
from pipelines.training.learning_rates import learning_rates
from pipelines.training.nan_guard import CHECK_EVERY_N_STEPS, nan_error


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
        random: All generators of its process, when its first epoch would have started.
        generator: torch's, which it draws from.
    """

    job: Training
    run: Run
    seed: int
    random: RandomState = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)
    _best: dict[str, object] = field(default_factory=dict)
    _validated: int = -1

    @property
    def model(self) -> Learner:
        assert isinstance(self.job.model, Learner)
        return self.job.model

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

    def end_epoch(self, epoch: int, val_batches: int) -> None:
        """Log the training's metrics, and keep the checkpoint if it is the best."""
        self.run.log_metrics(self.measure(self.model.train_metrics.compute()), epoch)
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
        set_random_state({**self.random, "torch": self.generator.get_state()})
        return self.job.checkpoint_callback.state(self.job.trainer)


class Stack:
    """Models that train together, until each leaves.

    Args:
        members: The trainings, with the same data, whose configurations passed `sweeps.workers.stacked_trials.check`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        data, self._trainer = members[0].job.data, members[0].job.trainer
        assert isinstance(data, InMemoryDataModule)
        data.trainer = self._trainer
        self._data = data
        self._steps = int(self._trainer.num_training_batches)
        self._random_data = bool(getattr(data, "crop_padding", 0) or getattr(data, "flip", False))
        self._stack(list(members))

    def _stack(self, members: list[Member]) -> None:
        self.members, self.models = members, stack_models([member.model for member in members])
        # Whether all models see the same batches
        self._shared = not self._random_data and len({member.seed for member in members}) == 1

    def remove(self, members: Sequence[Member]) -> None:
        """Continue without these."""
        if members:
            self.members = [member for member in self.members if member not in members]
            if self.members:
                self._stack(self.members)

    def train(self, epoch: int) -> dict[Member, FloatingPointError]:
        """Run one epoch's steps; return the members whose loss is not finite, with the error that ends them."""
        lost: dict[Member, FloatingPointError] = {}
        self._trainer.training = True
        for member in self.members:
            if rates := learning_rates(member.job.trainer):
                member.run.log_metrics(rates, epoch, step=epoch)
        if epoch:
            self._start_loaders()
        for number, batch in enumerate(self._batches(epoch), 1):
            self._step(batch)
            step = epoch * self._steps + number
            for member in self.members:
                for optimizer in member.job.trainer.optimizers:
                    optimizer.step()
                member.step_schedules("step")
            if step % CHECK_EVERY_N_STEPS == 0 or number == self._steps:
                lost = {**self._not_finite(step, epoch), **lost}
        for member in self.members:
            member.step_schedules("epoch")
        return lost

    def _step(self, batch: Batch) -> None:
        """Compute the gradients of one batch for each model."""
        generators = [member.generator for member in self.members]
        loss, updates = self.models.training_step(batch, generators, shared=self._shared)
        loss.backward()  # type: ignore[no-untyped-call]
        self.models.hand_over_gradients()
        self._measure("train_metrics", updates)

    def _measure(self, metrics: str, updates: Updates) -> None:
        """Update the metrics of each model."""
        for values in updates:
            for member, *own in zip(self.members, *values, strict=True):
                getattr(member.model, metrics).update(*own)

    def _not_finite(self, step: int, epoch: int) -> dict[Member, FloatingPointError]:
        losses = zip(self.members, self.models.losses().tolist(), strict=True)
        return {member: nan_error(loss, step, epoch) for member, loss in losses if not math.isfinite(loss)}

    def validate(self) -> dict[Member, dict[str, float]]:
        """Measure the validation set, and the training set once more if the data module asks for it."""
        self._trainer.validating = True
        self._start_loaders()
        sets = self._validation_sets()
        for name, examples in sets.items():
            for indices_B in torch.split(torch.arange(len(examples)), EVAL_BATCH_SIZE):
                self._measure(name, self.models.evaluation_step(self._batch(examples, indices_B)))
        return {
            member: member.measure({k: v for name in sets for k, v in getattr(member.model, name).compute().items()})
            for member in self.members
        }

    def end_epoch(self, epoch: int, *, validated: bool) -> None:
        """Log the training's metrics, and keep the checkpoints that are the best."""
        sets = self._validation_sets().values() if validated else ()
        val_batches = sum(math.ceil(len(examples) / EVAL_BATCH_SIZE) for examples in sets)
        for member in self.members:
            member.end_epoch(epoch, val_batches)

    def _validation_sets(self) -> dict[str, TensorSet]:
        """Return what a validation measures, by the name of its metrics."""
        sets = {"val_metrics": self._data.val_set}
        return {**sets, "train_end_metrics": self._data.train_set} if self._data.evaluate_train else sets

    def _start_loaders(self) -> None:
        """Draw for each member what a DataLoader draws whenever it starts."""
        for member in self.members:
            torch.empty((), dtype=torch.int64).random_(generator=member.generator)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Yield batches: one for all models if they are shared, else with a first axis of N."""
        orders = [self._order(member.seed, epoch) for member in self.members[: 1 if self._shared else None]]
        examples = self._data.train_set
        for indices_NB in torch.split(torch.stack(orders), self._data.batch_size, 1):
            if self._shared:
                yield self._batch(examples, indices_NB[0])
            elif self._random_data:
                pairs = zip(self.members, indices_NB, strict=True)
                parts = [member.draw(partial(self._batch, examples, indices_B)) for member, indices_B in pairs]
                yield tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))
            else:
                batch = self._batch(examples, indices_NB.flatten())
                yield tuple(part.view(*indices_NB.shape, *part.shape[1:]) for part in batch)

    def _batch(self, examples: TensorSet, indices: Tensor) -> Batch:
        """Return examples as the model sees them: augmented in training, and normalised."""
        batch: Batch = self._data.on_after_batch_transfer(examples.__getitems__(indices), 0)  # type: ignore[arg-type]
        return batch

    def _order(self, seed: int, epoch: int) -> Tensor:
        sampler = EpochSampler(self._data.train_set, shuffle=True, seed=seed)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        return sampler.indices()


def stack_models(models: Sequence[Learner]) -> ModelStack:
    """Return models as one: with hand-made layers where these can hold them, which are faster, else by torch.func.

    Raises:
        ValueError: The models differ in their layers, or have one that cannot be stacked.
    """
    known = [model for model in models if isinstance(model, Classifier) and has_stackable_layers(model)]
    return LayerStack(known) if len(known) == len(models) else FunctionalStack(models)
