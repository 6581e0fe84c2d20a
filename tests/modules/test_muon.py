"""Muon: orthogonal updates of filters, SGD for the rest, and what it refuses."""

import pytest
import torch

from modules.muon import Muon, orthogonalized


def parameter(*shape: int, seed: int = 0) -> torch.nn.Parameter:
    value = torch.nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
    value.grad = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 100))
    return value


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (16, 16), (1, 9)])
def test_an_orthogonalized_matrix_keeps_its_singular_vectors_and_has_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values[0] > 2 * values[-1] or min(shape) == 1
    middle = left.T @ orthogonalized(matrix, iterations=5) @ right.T
    assert torch.all((middle.diagonal() > 0.5) & (middle.diagonal() < 1.5))
    torch.testing.assert_close(middle, torch.diag(middle.diagonal()), rtol=0, atol=1e-4)


def test_the_scale_of_a_gradient_does_not_matter_and_a_zero_gradient_gives_no_update():
    matrix = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalized(1000 * matrix), orthogonalized(matrix), rtol=1e-4, atol=1e-5)
    assert torch.equal(orthogonalized(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_a_step_scales_filters_to_their_norm_and_subtracts_the_orthogonal_momentum():
    filters = parameter(6, 3, 3, 3)
    before, gradient = filters.detach().clone(), filters.grad.clone()
    Muon([filters], lr=0.1, momentum=0.6).step()
    scaled = before * 6**0.5 / before.norm()
    update = orthogonalized((1.6 * gradient).flatten(1)).view_as(before)  # Nesterov: gradient + 0.6 * gradient
    torch.testing.assert_close(filters.detach(), scaled - 0.1 * update)


def test_vectors_and_matrices_are_trained_as_by_sgd_each_with_its_rate():
    ours, theirs = ([parameter(5), parameter(4, 5, seed=1)] for _ in range(2))
    optimizer = Muon(ours, vector_lr=0.2, matrix_lr=0.05, other_momentum=0.85)
    groups = [{"params": [theirs[0]], "lr": 0.2}, {"params": [theirs[1]], "lr": 0.05}]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    for _ in range(3):
        optimizer.step()
        sgd.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


def test_weight_decay_follows_the_schedule_and_leaves_filters_alone():
    values = {1: parameter(5), 4: parameter(2, 2, 3, 3)}
    for value in values.values():
        value.grad.zero_()
    before = {ndim: value.detach().clone() for ndim, value in values.items()}
    optimizer = Muon(values.values(), vector_lr=0.2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for share in (0.1, 0.05):
        optimizer.step()
        schedule.step()
        before[1] = before[1] * (1 - share)
    torch.testing.assert_close(values[1].detach(), before[1])
    torch.testing.assert_close(values[4].detach(), before[4] * 2**0.5 / before[4].norm())


def test_a_resumed_optimizer_makes_the_same_steps():
    def train(steps: int, state: dict | None = None, start: list | None = None):
        values = start or [parameter(3), parameter(4, 2, 3, 3)]
        optimizer = Muon(values)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.step()
        return values, optimizer.state_dict()

    whole, _ = train(4)
    half, state = train(2)
    resumed, _ = train(2, state, half)
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


@pytest.mark.parametrize(
    ("options", "key"), [({"lr": 0.0}, "lr"), ({"vector_lr": -1}, "vector_lr"), ({"momentum": 1}, "momentum")]
)
def test_an_invalid_rate_is_refused_by_its_key(options, key):
    with pytest.raises(ValueError, match=rf"model\.optimizer\.{key} is"):
        Muon([parameter(3)], **options)
