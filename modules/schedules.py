"""Learning-rate schedules that span the whole training."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

INITIAL_FACTOR = 1 / 25  # times the optimiser's learning rate, as in torch's OneCycleLR


class WholeTraining(LambdaLR):
    """Base class of schedules that span the whole training, whatever epochs, batch size and training examples are.

    Args:
        optimizer: Optimiser whose learning rates are multiplied by `factor`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.total_steps = 0
        super().__init__(optimizer, self._lr_factor)

    def factor(self, progress: float) -> float:
        """Return the factor of the learning rate at a share of the training, 0 to 1."""
        raise NotImplementedError

    def set_total_steps(self, total_steps: float) -> None:
        """Set the number of training steps.

        Raises:
            ValueError: The number is infinite, or below 1.
        """
        if not math.isfinite(total_steps) or total_steps < 1:
            name = type(self).__name__
            raise ValueError(f"model.lr_scheduler {name} needs a finite number of steps: set trainer.max_epochs")
        self.total_steps = int(total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the number of steps, so that a resumed training may be longer."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def _lr_factor(self, step: int) -> float:
        return self.factor(min(step / self.total_steps, 1.0) if self.total_steps else 0.0)


class OneCycle(WholeTraining):
    """Linear warmup to the optimiser's learning rate, then cosine annealing to zero (Smith, 2018).

    Args:
        optimizer: Optimiser whose learning rates are the maximum ones.
        warmup: Fraction of the training in which the learning rate rises; 0 for cosine annealing only.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.3) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"model.lr_scheduler.warmup is {warmup}; it must be at least 0 and below 1")
        self.warmup = warmup
        super().__init__(optimizer)

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return INITIAL_FACTOR + (1 - INITIAL_FACTOR) * progress / self.warmup
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


class Linear(WholeTraining):
    """Linear decrease from the optimiser's learning rate to zero."""

    def factor(self, progress: float) -> float:
        return 1 - progress
