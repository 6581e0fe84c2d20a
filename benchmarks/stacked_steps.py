"""CPU time of a step of N perceptrons as one: with hand-made layers, and by torch.func.

    python benchmarks/stacked_steps.py

A step is forward, backward and the gradients of each model, on batches that all models share; without an optimiser. The
time is that of one thread, the lowest of several turns in which both take part.
"""

import time
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from modules.base import Classifier
from modules.functional_stack import FunctionalStack
from modules.mlp import MLP
from modules.stack import Stack
from modules.stacked_layers import LayerStack

CASES: dict[str, tuple[tuple[int, ...], int, int, float]] = {
    "circles, 2-10-2, batch 10": ((2, 10), 2, 10, 0.0),
    "mnist-linear, 784-10, batch 100": ((784,), 10, 100, 0.0),
    "784-64-32-10, batch 100": ((784, 64, 32), 10, 100, 0.2),
    "digits-mlp, 784-128-64-10, batch 32": ((784, 128, 64), 10, 32, 0.2),
    "mnist-mlp, 784-512-256-10, batch 500": ((784, 512, 256), 10, 500, 0.2),
}
"""Units of the input and the hidden layers, classes, batch size and dropout rate of each case."""
SIZES = (1, 4, 16)
TURNS = 4
STEPS = 10


def step(stack: Stack, batch: tuple[Tensor, ...], generators: Sequence[torch.Generator]) -> None:
    """Compute the gradients of all models."""
    loss, _ = stack.training_step(batch, generators, shared=True)
    loss.backward()
    stack.hand_over_gradients()


def measure(name: str, size: int) -> list[float]:
    """Return the CPU milliseconds of a step, of hand-made layers and of torch.func."""
    (inputs, *hidden), classes, batch_size, dropout = CASES[name]
    batch = torch.randn(batch_size, inputs), torch.randint(0, classes, (batch_size,))
    generators = [torch.Generator().manual_seed(number) for number in range(size)]
    models: list[list[Classifier]] = [
        [MLP((inputs,), classes, hidden=hidden, dropout=dropout) for _ in range(size)] for _ in range(2)
    ]
    stacks = [LayerStack(models[0]), FunctionalStack(models[1])]
    lowest = [float("inf")] * 2
    for _ in range(TURNS):
        for number, stack in enumerate(stacks):
            start = time.process_time()
            for _ in range(STEPS):
                step(stack, batch, generators)
            lowest[number] = min(lowest[number], (time.process_time() - start) / STEPS)
    return [seconds * 1e3 for seconds in lowest]


def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    table = Table(title="CPU ms per step of all models: hand-made layers, torch.func (ratio)", box=None)
    for column in ("model", *map(str, SIZES)):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in CASES:
        times = [measure(name, size) for size in SIZES]
        table.add_row(name, *(f"{layers:.2f}, {func:.2f} ({func / layers:.1f})" for layers, func in times))
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()
