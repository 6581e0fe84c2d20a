"""Learning-rate schedules that know how long the training will be."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

START = 1 / 25  # of the optimiser's learning rate, as in torch's OneCycleLR


class OneCycle(LambdaLR):
    """The learning rate rises in a line to the optimiser's own, then falls to zero as half a cosine (Smith, 2018).

    The length is that of the training, whatever `trainer.max_epochs`, `data.batch_size` and `data.n_train` make of it.

    Args:
        optimizer: Its learning rates are the highest ones.
        warmup: The part of the training in which the rate rises; 0 for cosine annealing alone.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.3) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"model.lr_scheduler.warmup is {warmup}; it must be at least 0 and below 1")
        self.warmup, self.total_steps = warmup, 0
        super().__init__(optimizer, self._factor)

    def last_until(self, total_steps: float) -> None:
        """Say how many steps the training has.

        Raises:
            ValueError: It has no end.
        """
        if not math.isfinite(total_steps) or total_steps < 1:
            raise ValueError("model.lr_scheduler OneCycle needs a training with an end: set trainer.max_epochs")
        self.total_steps = int(total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Without the length: a training that is resumed may be made longer."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def _factor(self, step: int) -> float:
        progress = min(step / self.total_steps, 1.0) if self.total_steps else 0.0
        if progress < self.warmup:
            return START + (1 - START) * progress / self.warmup
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2
