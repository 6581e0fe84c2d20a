"""Save and restore the state of every random number generator that training draws from."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

RandomState = dict[str, Any]


def get_random_state() -> RandomState:
    """Return the state of the generators of torch, CUDA, NumPy and Python, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: RandomState) -> None:
    """Restore what `get_random_state` returned; CUDA's only if there are as many devices as then."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def gather(trainer: Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the states of all processes, by rank. Every process must call it."""
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states
