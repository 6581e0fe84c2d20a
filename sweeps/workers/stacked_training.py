"""Trains several models as one: each epoch comes to what `litlab fit` makes of each alone, up to rounding.

What a model draws is drawn for it alone, from its own generator and in the order of its own training: the order of its
examples, its dropout, its augmentation. Its optimiser and its schedule are its own, and see its parameters only.

Shapes: N models, B examples of a batch, K classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from datamodules.base import EVAL_BATCH_SIZE, InMemoryDataModule
from datamodules.sampling import EpochSampler
from datamodules.sets import TensorSet
from modules.base import Batch, Classifier
from modules.stack import StackedNet
from pipelines.checkpoints.files import BEST, LAST
from pipelines.checkpoints.random_state import RandomState, get_random_state, set_random_state
from pipelines.runtime.lightning_internals import set_callback_metrics
from pipelines.tracking.run import Run
from pipelines.training.job import Training
from pipelines.training.nan_guard import CHECK_EVERY_N_STEPS, nan_error


class Ready(Callback):
    """Ends a training where its first epoch would begin: all its parts are set up, and what it would draw is known."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.random = get_random_state()
        trainer.should_stop = True


@dataclass(eq=False)
class Member:
    """One training of a stack, whose trainer has stopped at its start.

    Attributes:
        job: Its parts.
        run: What it is written to.
        seed: Of the order of its examples.
        random: All generators of its process, when its first epoch would have begun.
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
    def model(self) -> Classifier:
        assert isinstance(self.job.model, Classifier)
        return self.job.model

    @property
    def net(self) -> nn.Sequential:
        net = self.model.net
        assert isinstance(net, nn.Sequential)
        return net

    def begin(self, random: RandomState) -> None:
        """Draw from here on as a process of its own would."""
        self.random = random
        self.generator.set_state(random["torch"])
        self.model.eval()  # the stack knows when there is dropout

    def begin_loader(self) -> None:
        """Draw what a DataLoader draws whenever it begins."""
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)

    def drawing(self, make: Callable[[], Batch]) -> Batch:
        """What comes of a function that draws from torch's own generator, as this training would have drawn it."""
        torch.set_rng_state(self.generator.get_state())
        made = make()
        self.generator.set_state(torch.get_rng_state())
        return made

    def step(self) -> None:
        """Change the parameters, then the learning rate."""
        for optimizer in self.job.trainer.optimizers:
            optimizer.step()
        self.schedule("step")

    def schedule(self, interval: str) -> None:
        """Step the schedules that do so after each "step", or each "epoch"."""
        for config in self.job.trainer.lr_scheduler_configs:
            if config.interval == interval:
                config.scheduler.step()  # type: ignore[call-arg]

    def measure(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Let the trainer know metrics, as if it had measured them; returns them as plain numbers."""
        set_callback_metrics(self.job.trainer, values)
        return {key: float(value) for key, value in values.items()}

    def end_epoch(self, epoch: int, val_batches: int) -> None:
        """Log the training's metrics, and keep the checkpoint if it is the best."""
        self.run.log_metrics(self.measure(self.model.train_metrics.compute()), epoch)
        self._validated = epoch if val_batches else self._validated
        if self.job.checkpoint_callback.end_external_epoch(self.job.trainer, epoch, val_batches):
            self._best = self._content()

    def save(self) -> None:
        """Write the checkpoints of the best and of the last epoch."""
        self.job.checkpoint_callback.save_state(self._content(), LAST)
        if self._best:
            self.job.checkpoint_callback.save_state(self._best, BEST)

    def _content(self) -> dict[str, object]:
        for regions in self.job.regions:
            with torch.no_grad():
                regions.record(self.job.trainer, self.model, self._validated)
        set_random_state({**self.random, "torch": self.generator.get_state()})
        return self.job.checkpoint_callback.state(self.job.trainer)


class Stack:
    """Models that train side by side, until each leaves.

    Args:
        members: The trainings, with the same data, whose configurations passed `sweeps.workers.stacked_trials.check`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        data, self._trainer = members[0].job.data, members[0].job.trainer
        assert isinstance(data, InMemoryDataModule)
        data.trainer = self._trainer
        self._data = data
        self._steps = int(self._trainer.num_training_batches)
        self._stack()

    def _stack(self) -> None:
        self.net = StackedNet([member.net for member in self.members])
        losses = [member.model.hparams.get("label_smoothing", 0.0) for member in self.members]
        self._alike = [[i for i, other in enumerate(losses) if other == loss] for loss in dict.fromkeys(losses)]

    def remove(self, members: Sequence[Member]) -> None:
        """Go on without these."""
        self.members = [member for member in self.members if member not in members]
        if members and self.members:
            self._stack()

    def train(self, epoch: int) -> dict[Member, FloatingPointError]:
        """One epoch's steps; returns those whose loss is no longer a number, and why that ends them."""
        lost: dict[Member, FloatingPointError] = {}
        self._trainer.training = True
        if epoch:
            self._begin_loaders()
        for number, (inputs, labels_NB) in enumerate(self._batches(epoch), 1):
            logits_NBK = self._step(inputs, labels_NB)
            step = epoch * self._steps + number
            for member in self.members:
                member.step()
            if step % CHECK_EVERY_N_STEPS == 0 or number == self._steps:
                lost = {**self._not_finite(logits_NBK, labels_NB, step, epoch), **lost}
        for member in self.members:
            member.schedule("epoch")
        return lost

    def _step(self, inputs: Tensor, labels_NB: Tensor) -> Tensor:
        """Gradients of one batch for each model, and its outputs."""
        generators = [member.generator for member in self.members]
        logits_NBK: Tensor = self.net(inputs, generators, shared=self._shared)
        total = torch.zeros(())
        for group in self._alike:  # the mean over several batches, as often as there are: the sum of their means
            whole = len(group) == len(self.members)
            logits, labels = (logits_NBK, labels_NB) if whole else (logits_NBK[group], labels_NB[group])
            model = self.members[group[0]].model
            total = total + len(group) * model.training_loss(logits.flatten(0, 1), labels.flatten())
        total.backward()  # type: ignore[no-untyped-call]
        self.net.hand_over_gradients()
        for member, outputs_BK, labels_B in zip(self.members, logits_NBK.detach(), labels_NB, strict=True):
            member.model.train_metrics.update(outputs_BK, labels_B)
        return logits_NBK.detach()

    def _not_finite(
        self, logits_NBK: Tensor, labels_NB: Tensor, step: int, epoch: int
    ) -> dict[Member, FloatingPointError]:
        lost = {}
        for member, logits_BK, labels_B in zip(self.members, logits_NBK, labels_NB, strict=True):
            loss = float(member.model.training_loss(logits_BK, labels_B))
            if not math.isfinite(loss):
                lost[member] = nan_error(loss, step, epoch)
        return lost

    def validate(self) -> dict[Member, dict[str, float]]:
        """Measure the validation set, and the training set once more if the data say so."""
        self._trainer.validating = True
        self._begin_loaders()
        sets = self._validation_sets()
        with torch.no_grad():
            for name, examples in sets.items():
                for where_B in torch.split(torch.arange(len(examples)), EVAL_BATCH_SIZE):
                    inputs, labels_B = self._batch(examples, where_B)
                    for member, logits_BK in zip(self.members, self.net(inputs), strict=True):
                        getattr(member.model, name).update(logits_BK, labels_B)
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
        """What a validation measures, by the name of its metrics."""
        sets = {"val_metrics": self._data.val_set}
        return {**sets, "train_end_metrics": self._data.train_set} if self._data.evaluate_train else sets

    def _begin_loaders(self) -> None:
        for member in self.members:
            member.begin_loader()

    @property
    def _shared(self) -> bool:
        """Whether all models see the same batches."""
        return not self._draws and len({member.seed for member in self.members}) == 1

    @property
    def _draws(self) -> bool:
        """Whether the data draw random numbers for a batch."""
        return bool(getattr(self._data, "crop_padding", 0) or getattr(self._data, "flip", False))

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs, one batch for each model unless they are shared, and labels, shape (N, B)."""
        orders = [self._order(member.seed, epoch) for member in self.members[: 1 if self._shared else None]]
        examples = self._data.train_set
        for where_NB in torch.split(torch.stack(orders), self._data.batch_size, 1):
            if self._shared:
                inputs, labels_B = self._batch(examples, where_NB[0])
                yield inputs, labels_B.expand(len(self.members), -1)
            elif self._draws:
                pairs = zip(self.members, where_NB, strict=True)
                parts = [member.drawing(partial(self._batch, examples, where_B)) for member, where_B in pairs]
                inputs, labels_NB = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
                yield inputs, labels_NB
            else:
                inputs, labels = self._batch(examples, where_NB.flatten())
                yield inputs.view(*where_NB.shape, *inputs.shape[1:]), labels.view(where_NB.shape)

    def _batch(self, examples: TensorSet, where: Tensor) -> Batch:
        """Examples as the model sees them: augmented while training, and normalised."""
        batch: Batch = self._data.on_after_batch_transfer(examples.__getitems__(where), 0)  # type: ignore[arg-type]
        return batch

    def _order(self, seed: int, epoch: int) -> Tensor:
        sampler = EpochSampler(self._data.train_set, shuffle=True, seed=seed)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        return sampler.indices()
