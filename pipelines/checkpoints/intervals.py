"""How often a checkpoint is saved within an epoch: every N steps, or every few minutes."""

import re
import time
from dataclasses import dataclass, field

from pipelines.runtime.errors import UserError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class SaveInterval:
    """Tells when a checkpoint is due.

    Attributes:
        steps: Optimiser steps between two checkpoints; None for none.
        seconds: Time between two checkpoints; None for none.
    """

    steps: int | None = None
    seconds: float | None = None
    _step: int = 0
    _time: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: str | int | None) -> "SaveInterval":
        """Return the interval of `--checkpoint_every`: "500" steps, or "30s", "10m", "2h".

        Raises:
            UserError: The text is none of these.
        """
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d+)\s*([smh]?)", str(text).strip())
        if match is None or int(match[1]) == 0:
            raise UserError(
                f"checkpoint_every is {text!r}; it must be a number of steps, such as 500, or a time: 10m, 2h"
            )
        number, unit = int(match[1]), match[2]
        return cls(seconds=number * _SECONDS[unit]) if unit else cls(steps=number)

    @property
    def is_set(self) -> bool:
        return self.steps is not None or self.seconds is not None

    def is_due(self, step: int) -> bool:
        """Return whether so many steps or seconds have passed since the last checkpoint."""
        if self.steps is not None:
            return step - self._step >= self.steps
        return self.seconds is not None and time.monotonic() - self._time >= self.seconds

    def restart(self, step: int) -> None:
        """Measure from now on: a checkpoint has been saved at a step."""
        self._step = step - step % self.steps if self.steps else step
        self._time = time.monotonic()
