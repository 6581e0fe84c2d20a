"""How many trainings the nodes of a cluster have room for, and how those that are wanted are spread over them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What each training needs: CPUs and GPUs, perhaps fractions; without `cpus`, a share of those of its node."""

    cpus: float | None
    gpus: float

    def slots(self, cpus: float, gpus: float) -> int:
        """Return for how many trainings so many CPUs and GPUs are enough."""
        by_cpu = math.inf if self.cpus is None and self.gpus else fit(cpus, self.cpus or 1.0)
        by_gpu = fit(gpus, self.gpus) if self.gpus else math.inf
        return int(min(by_cpu, by_gpu))

    def cpus_each(self, cpus: float, gpus: float) -> float:
        """Return the CPUs of each training on a node with so many CPUs and GPUs."""
        if self.cpus is not None or not self.gpus:
            return self.cpus or 1.0
        return cpus / max(1, self.slots(cpus, gpus))

    def __str__(self) -> str:
        cpus = "" if self.cpus is None and self.gpus else _count(self.cpus or 1, "CPU")
        return " and ".join(filter(None, [cpus, _count(self.gpus, "GPU") if self.gpus else ""]))


def spread(room: Mapping[str, int], wanted: int | None) -> dict[str, int]:
    """Return how many trainings each node gets: all that it has room for, or an even part of those wanted.

    Args:
        room: For how many trainings each node has room.
        wanted: How many are wanted in total; None for as many as possible.
    """
    given = dict.fromkeys(room, 0)
    left = sum(room.values()) if wanted is None else min(wanted, sum(room.values()))
    while left > 0:
        node = min((node for node in room if given[node] < room[node]), key=lambda node: given[node])
        given[node] += 1
        left -= 1
    return {node: number for node, number in given.items() if number}


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}" if number == 1 else f"{number:g} {name}s"


def fit(amount: float, each: float) -> int:
    """Return how often a part, perhaps a fraction, is in an amount."""
    return int(amount / each + 1e-6)  # 1 / 0.1 is 9.999...
