"""One element-wise update does the steps of several optimisers of torch."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from modules.stacked_optimizer import StackedOptimizer

OPTIMIZERS = {
    "adam": lambda parameters, number: torch.optim.Adam(parameters, 0.01 * number, betas=(0.8, 0.9), weight_decay=0.1),
    "adamw": lambda parameters, number: torch.optim.AdamW(parameters, 0.01, weight_decay=0.1 * number),
    "sgd": lambda parameters, number: torch.optim.SGD(parameters, 0.1 * number, weight_decay=0.01),
    "nesterov": lambda parameters, number: torch.optim.SGD(parameters, 0.1, momentum=0.3 * number, nesterov=True),
}


def steps(models, take, schedules=(), count=5):
    """Step with gradients that are the same in each call."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        for model in models:
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        take()
        for schedule in schedules:
            schedule.step()


def stack(models):
    owners = list(zip(*(model.parameters() for model in models), strict=True))
    stacked = [nn.Parameter(torch.stack([part.detach() for part in parts])) for parts in owners]
    for whole, parts in zip(stacked, owners, strict=True):
        for part, view in zip(parts, whole.detach().unbind(0), strict=True):
            part.data = view
    return stacked, owners


def take_stacked(optimizer, stacked, owners):
    for whole, parts in zip(stacked, owners, strict=True):
        whole.grad = torch.stack([part.grad for part in parts])
    optimizer.read_numbers()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_is_that_of_torch_with_the_numbers_of_each_model(name):
    models = [nn.Linear(3, 2) for _ in range(2)]
    alone = copy.deepcopy(models)
    optimizers = [OPTIMIZERS[name](model.parameters(), number) for number, model in enumerate(models, 1)]
    separate = [OPTIMIZERS[name](model.parameters(), number) for number, model in enumerate(alone, 1)]
    steps(alone, lambda: [optimizer.step() for optimizer in separate])
    stacked, owners = stack(models)
    assert StackedOptimizer.takes(optimizers)
    optimizer = StackedOptimizer(stacked, owners, optimizers)
    steps(models, lambda: take_stacked(optimizer, stacked, owners))
    for model, other, ours, theirs in zip(models, alone, optimizers, separate, strict=True):
        torch.testing.assert_close(list(model.parameters()), list(other.parameters()), rtol=1e-5, atol=1e-6)
        for part, same in zip(model.parameters(), other.parameters(), strict=True):
            assert ours.state[part].keys() == theirs.state[same].keys()
            torch.testing.assert_close(dict(ours.state[part]), dict(theirs.state[same]), rtol=1e-5, atol=1e-6)


def test_schedules_change_the_numbers_and_a_new_stack_continues_from_the_state():
    models = [nn.Linear(3, 2) for _ in range(2)]
    alone = copy.deepcopy(models)
    optimizers, separate = ([torch.optim.Adam(model.parameters()) for model in group] for group in (models, alone))
    schedules, others = (
        [OneCycleLR(optimizer, 0.1 * number, total_steps=10) for number, optimizer in enumerate(group, 1)]
        for group in (optimizers, separate)
    )
    steps(alone, lambda: [optimizer.step() for optimizer in separate], others)
    steps(alone[1:], separate[1].step, others[1:])
    for first in (0, 1):
        stacked, owners = stack(models[first:])
        optimizer = StackedOptimizer(stacked, owners, optimizers[first:])
        steps(models[first:], lambda o=optimizer, s=stacked, w=owners: take_stacked(o, s, w), schedules[first:])
    torch.testing.assert_close(list(models[1].parameters()), list(alone[1].parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizers",
    [
        lambda one, two: [torch.optim.Adam(one), torch.optim.SGD(two)],
        lambda one, two: [torch.optim.Adam(one, amsgrad=True), torch.optim.Adam(two, amsgrad=True)],
        lambda one, two: [torch.optim.RMSprop(one), torch.optim.RMSprop(two)],
        lambda one, two: [torch.optim.SGD(one, 0.1, momentum=0.9), torch.optim.SGD(two, 0.1)],
        lambda one, two: [torch.optim.SGD(part, 0.1, momentum=0.9, dampening=0.5) for part in (one, two)],
    ],
)
def test_other_optimisers_are_left_to_torch(optimizers):
    one, two = nn.Linear(2, 1), nn.Linear(2, 1)
    assert not StackedOptimizer.takes(optimizers(list(one.parameters()), list(two.parameters())))
