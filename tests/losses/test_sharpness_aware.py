"""Sharpness-aware steps against the formula, with two losses, random draws, BatchNorm and a wrapped state."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ltbench.losses import SharpnessAware

START = ([1.0, -2.0, 0.5], [[3.0, -1.0]])


def parameters() -> list[Tensor]:
    return [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in START]


def bumpy(weights: list[Tensor]) -> Tensor:
    return sum((each.sin() * each.square()).sum() for each in weights) + weights[0].prod() * weights[1].sum()


def closure_of(optimizer: Any, weights: list[Tensor], loss: Callable[[list[Tensor]], Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    return closure


def gradient(values: list[list[float]], loss: Callable[[list[Tensor]], Tensor]) -> list[Tensor]:
    leaves = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in values]
    return list(torch.autograd.grad(loss(leaves), leaves))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("two", [False, True])
def test_steps_are_the_formula(adaptive: bool, rho: float, two: bool) -> None:
    weights = parameters()
    optimizer = SharpnessAware(torch.optim.SGD(weights, lr=0.1), rho, adaptive=adaptive)
    steady = closure_of(optimizer, weights, lambda ws: ws[0].square().sum()) if two else None
    first = optimizer.step(closure_of(optimizer, weights, bumpy), steady)
    g = gradient(list(START), bumpy)
    w = [torch.tensor(each, dtype=torch.float64) for each in START]
    scale = [each.abs() if adaptive else torch.ones_like(each) for each in w]
    length = math.sqrt(sum(float((s * slope).square().sum()) for s, slope in zip(scale, g, strict=True)))
    moved = [x + rho * s * s * slope / (length + 1e-12) for x, s, slope in zip(w, scale, g, strict=True)]
    uphill = gradient([each.tolist() for each in moved], bumpy)
    if two:
        uphill[0] = uphill[0] + 2 * w[0]
    torch.testing.assert_close(first.detach(), bumpy(w))
    for found, x, slope in zip(weights, w, uphill, strict=True):
        torch.testing.assert_close(found.detach(), x - 0.1 * slope, rtol=1e-12, atol=1e-13)


def test_weights_come_back_to_the_bit_and_no_gradient_is_no_move() -> None:
    weights = parameters()
    optimizer = SharpnessAware(torch.optim.SGD(weights, lr=0.0), 0.7)
    optimizer.step(closure_of(optimizer, weights, bumpy))
    assert all(torch.equal(one.detach(), other.detach()) for one, other in zip(weights, parameters(), strict=True))
    calls = []
    optimizer.step(lambda: calls.append(optimizer.zero_grad()), closure_of(optimizer, weights, bumpy))
    assert len(calls) == 1 and torch.equal(weights[0].grad, gradient(list(START), bumpy)[0])


def test_both_evaluations_draw_alike_and_the_next_step_anew() -> None:
    weights, seen = parameters(), []
    for rho, evaluations in ((0.1, 2), (0.0, 1)):
        optimizer = SharpnessAware(torch.optim.SGD(weights, lr=0.1), rho)
        seen.clear()
        for _ in range(2):
            optimizer.step(
                closure_of(optimizer, weights, lambda ws: (seen.append(torch.rand(()).item()), bumpy(ws))[1])
            )
        assert len(seen) == 2 * evaluations and len(set(seen)) == 2 and seen[0] == seen[evaluations - 1]


def test_running_averages_see_a_batch_once() -> None:
    torch.manual_seed(0)
    plain, aware = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    aware.load_state_dict(plain.state_dict())
    images = torch.randn(6, 3)
    plain(images)
    optimizer = SharpnessAware(torch.optim.SGD(aware.parameters(), lr=0.1), network=aware)
    optimizer.step(closure_of(optimizer, [], lambda _: aware(images).square().mean()))
    for name, value in plain[1].named_buffers():
        assert torch.equal(aware[1].get_buffer(name), value)
    assert aware[1].track_running_stats


def test_state_is_the_wrapped_optimizers() -> None:
    def steps(optimizer: SharpnessAware, weights: list[Tensor], count: int) -> None:
        for _ in range(count):
            optimizer.step(closure_of(optimizer, weights, bumpy))

    def made(weights: list[Tensor]) -> SharpnessAware:
        return SharpnessAware(torch.optim.Adam(weights, lr=0.01))

    whole, broken = parameters(), parameters()
    steps(made(whole), whole, 4)
    first = made(broken)
    steps(first, broken, 2)
    second = made(broken)
    second.load_state_dict(first.state_dict())
    steps(second, broken, 2)
    assert second.param_groups is second.base.param_groups
    assert all(torch.equal(one, other) for one, other in zip(whole, broken, strict=True))
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError):
            SharpnessAware(torch.optim.SGD(whole, lr=0.1), wrong)
    with pytest.raises(ValueError):
        second.step()
