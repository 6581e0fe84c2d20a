"""What can be trained together: one batch, alone and together, shows whether the results are the same."""

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from datamodules.in_memory import EVAL_BATCH_SIZE, InMemoryDataModule
from datamodules.sampling import EpochSampler
from modules.base import Batch, Learner
from modules.functional_stack import run_first_step, structure
from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from sweeps.workers.stacked_training import stack_models

# Keys of the trainer that a stack respects, or that change no result; any other must have its default.
KEYS_OF_TRAINER = (
    *("accelerator", "devices", "max_epochs", "check_val_every_n_epoch", "default_root_dir", "log_every_n_steps"),
    *("enable_model_summary", "enable_progress_bar", "num_sanity_val_steps"),
)
HOOKS = (
    *("configure_callbacks", "on_train_epoch_start", "on_train_epoch_end", "on_train_batch_start"),
    *("on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end"),
    *("on_validation_batch_start", "on_validation_batch_end", "on_validation_end", "backward", "optimizer_step"),
    *("optimizer_zero_grad", "lr_scheduler_step", "configure_gradient_clipping", "transfer_batch_to_device"),
    *("on_before_batch_transfer", "on_after_batch_transfer", "on_train_end", "on_fit_end"),
)
"""Hooks of a module that a stack does not call, or calls before the training."""
ADVICE = "leave out --stacked to train each trial for itself"
TOLERANCE = 1e-3
"""Relative difference of rounding, in float32 and one step."""
SIZE_ON_CPU = 16
"""More are not faster there: docs/SWEEPS.md."""
MAX_SIZE, SHARE_OF_MEMORY = 1000, 0.8


def check_keys(keys: Sequence[str]) -> None:
    """Refuse a space that searches anything but the model and its training; the message names the key."""
    for key in keys:
        if key.partition(".")[0] != "model":
            raise UserError(f"space: {key} must be the same in trials that are stacked; {ADVICE}")


def check(
    cli: LitlabCLI,
    data: LightningDataModule | None,
    model: LightningModule,
    others: Mapping[str, LightningModule],
    sharers: int = 1,
) -> int:
    """Refuse an experiment whose trials cannot be trained together; the message names the key.

    Args:
        cli: The experiment.
        data: Its data, which have been read.
        model: Its model.
        others: The models of the ends of the space, by what they set.
        sharers: Number of stacks that share a GPU.

    Returns:
        How many trials are trained together if the user does not say.
    """
    trainer = _check_trainer(cli)
    if not isinstance(data, InMemoryDataModule) or type(data.train_dataloader().sampler) is not EpochSampler:
        raise UserError(f"data: {type(data).__name__} cannot be stacked; {ADVICE}")
    batch = _batch(data, data.batch_size)
    models = {values: _check_model(values, one) for values, one in {"model": model, **others}.items()}
    for values, one in models.items():
        _check_layers(values, models["model"], one)
    _check_results(models, batch, trainer)
    device = trainer.strategy.root_device
    return fitting_size(models["model"], batch, _batch(data, EVAL_BATCH_SIZE), device, sharers)


def fitting_size(model: Learner, batch: Batch, evaluated: Batch, device: torch.device, sharers: int) -> int:
    """Return how many models to stack: on a GPU as many as fit in its free memory, on a CPU as many as are faster.

    Args:
        model: One of them.
        batch: A batch of the training.
        evaluated: A batch of the validation.
        device: Where they are trained.
        sharers: Number of stacks that share its memory.
    """
    if device.type != "cuda":
        return SIZE_ON_CPU
    model.to(device)
    stack = stack_models([model], device)
    free, _ = torch.cuda.mem_get_info(device)
    torch.cuda.reset_peak_memory_stats(device)
    loss, _ = stack.training_step(tuple(part.to(device) for part in batch), None, shared=True)
    loss.backward()  # type: ignore[no-untyped-call]
    training = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    stack.evaluation_step(tuple(part.to(device) for part in evaluated))
    evaluation = torch.cuda.max_memory_allocated(device)
    moments = 3 * sum(parameter.nbytes for parameter in stack.parameters())  # and a copy in the update
    return size_in_memory(free // sharers, training + evaluation + moments)  # a graph keeps the memory of its step


def size_in_memory(free: int, each: int) -> int:
    """Return how many models fit in free memory, at most `MAX_SIZE`, if each takes so many bytes."""
    return max(1, min(MAX_SIZE, int(SHARE_OF_MEMORY * free / each)))


def _batch(data: InMemoryDataModule, size: int) -> Batch:
    rows = range(min(size, len(data.train_set)))
    batch: Batch = data.on_after_batch_transfer(data.train_set.__getitems__(rows), 0)
    return batch


def _check_trainer(cli: LitlabCLI) -> Trainer:
    defaults = cli.parser.get_defaults().trainer
    for key, value in cli.config.trainer.items():
        if key not in KEYS_OF_TRAINER and value != defaults.get(key):
            raise UserError(f"trainer.{key} is {value}, and trials that are stacked have {defaults.get(key)}; {ADVICE}")
    trainer = cli.make_trainer(callbacks=None, logger=False, enable_checkpointing=False)
    if trainer.max_epochs == -1:
        raise UserError(f"trainer.max_epochs -1 has no end, and a stack ends with all its trials; {ADVICE}")
    _check_device(trainer.strategy.root_device, trainer.world_size)
    return trainer


def _check_device(device: torch.device, world_size: int) -> None:
    wanted = "a stack trains on one CPU or one NVIDIA GPU"
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"trainer.accelerator: {wanted}, not on {device.type} (--trainer.accelerator cpu); {ADVICE}")
    if world_size > 1:
        raise UserError(f"trainer.devices: {wanted} (--trainer.devices 1); {ADVICE}")


def _check_model(values: str, model: LightningModule) -> Learner:
    """Refuse a model whose training is more than its steps, one optimiser and its schedule."""
    name = type(model).__name__
    if not isinstance(model, Learner):
        raise UserError(f"{values}: {name} cannot be stacked: it is not a Classifier or Learner of litlab; {ADVICE}")
    if not model.automatic_optimization:
        raise UserError(f"{values}: {name} cannot be stacked: it calls its optimiser itself; {ADVICE}")
    for hook in HOOKS:
        if is_overridden(hook, model, parent=Learner):
            raise UserError(f"{values}: {name} cannot be stacked: it has the hook {hook}; {ADVICE}")
    if len(model.train_metrics.others) or len(model.val_metrics.others):
        raise UserError(f"{values}: {name} cannot be stacked: it has metrics of other outputs; {ADVICE}")
    made = model.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    scheduler = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None  # type: ignore[typeddict-item]
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LBFGS):
        raise UserError(f"{values}: model.optimizer {type(optimizer).__name__} cannot be stacked; {ADVICE}")
    if isinstance(scheduler, ReduceLROnPlateau):
        raise UserError(f"{values}: model.lr_scheduler {type(scheduler).__name__} cannot be stacked; {ADVICE}")
    return model


def _check_layers(values: str, first: Learner, other: Learner) -> None:
    """Refuse models whose layers, or losses, differ from those of the experiment's, or cannot be stacked."""
    try:
        same = structure(first) == structure(other)
    except ValueError as error:
        raise UserError(f"{values}: {error}; {ADVICE}") from error
    if not same or type(first) is not type(other) or first.hparams.get("loss") != other.hparams.get("loss"):
        raise UserError(
            f"space: {values}: trials that are stacked have the same layers, frozen or not, and loss; {ADVICE}"
        )


def _check_results(models: Mapping[str, Learner], batch: Batch, trainer: Trainer) -> None:
    """Refuse models whose first step is not the same when they are trained together."""
    alone, generators = [], []
    for number, model in enumerate(models.values()):
        model.trainer = trainer
        torch.manual_seed(number)
        generators.append(torch.Generator().manual_seed(number))
        alone.append(run_first_step(model, batch))
    name = type(models["model"]).__name__
    try:
        stack = stack_models(list(models.values()), trainer.strategy.root_device)  # the kind that trains there
        _, updates = stack.training_step(batch, generators, shared=True)
        stack.evaluation_step(batch)
    except (RuntimeError, ValueError, TypeError) as error:  # of torch.func
        raise UserError(f"model: {name} cannot be stacked: {first_line(error)}; {ADVICE}") from error
    for number, (values, (loss, own)) in enumerate(zip(models, alone, strict=True)):
        pairs = [(loss, stack.losses()[number])]
        for ours, theirs in zip(own, updates, strict=True):
            pairs += [(one, other[number]) for one, other in zip(ours, theirs, strict=True)]
        if not all(torch.allclose(one.float(), other.float(), TOLERANCE, TOLERANCE) for one, other in pairs):
            differ = f"the loss of a batch is {float(pairs[0][1]):.6g} when it is stacked, and {float(loss):.6g} alone"
            raise UserError(f"{values}: {name} cannot be stacked: {differ}; {ADVICE}")
