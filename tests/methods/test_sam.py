"""SAM: one loss or that of rare classes alone, against steps by hand."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_run import FakeRun, walk
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import SharpnessAware
from ltbench.methods import Batch, Method, Progress, Stage, registry
from ltbench.methods.checks import check_method
from ltbench.methods.sam import rare_classes

COUNTS = np.array([10, 400, 5], dtype=np.int64)
LABELS = np.array([0, 1, 2, 0, 0, 1])  # of the batch
method_of = partial(method_on_colour, "sam", counts=COUNTS)


def step(method: Method, batch: Batch) -> int:
    """Take a step of SGD as the trainer does; return how often the loss was asked for."""
    evaluations = 0
    (stage,) = walk(method, FakeRun(LABELS, epochs=10))
    method.task = type("Task", (), {"new_optimizer": staticmethod(lambda groups: torch.optim.SGD(groups))})()
    optimizer = method.optimizer(method.param_groups(0.1), stage)

    def closure() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad(set_to_none=True)
        value = method.loss(batch, Progress(0, 10))["loss"]
        value.backward()
        return value

    optimizer.step(closure)
    return evaluations


def weights_after(method: Method) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in method.parameters()])


def by_hand(batch: Batch, tail: list[int], rho: float) -> torch.Tensor:
    """Return the weights after a step of ImbSAM on cross-entropy; `tail` are class ids."""
    method = method_on_colour("ce", COUNTS)
    rare = torch.tensor([int(y) in tail for y in batch.targets]).float()
    trained = list(method.parameters())

    def slopes(share: torch.Tensor) -> list[torch.Tensor]:
        each = functional.cross_entropy(method.predict(batch.images), batch.targets, reduction="none")
        return list(torch.autograd.grad((share * each).mean(), trained))

    steady, climb = slopes(1 - rare), slopes(2 * rare)
    length = torch.stack([each.norm() for each in climb]).norm() + 1e-12
    before = [each.detach().clone() for each in trained]
    with torch.no_grad():
        for weight, slope in zip(trained, climb, strict=True):
            weight += rho * slope / length
    uphill = slopes(2 * rare)
    with torch.no_grad():
        for weight, start, one, two in zip(trained, before, steady, uphill, strict=True):
            weight.copy_(start - 0.1 * (one + two))
    return weights_after(method)


@pytest.mark.parametrize(("below", "tail"), [(0, [2]), (11, [2, 0]), (1, []), (1000, [0, 1, 2])])
@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_a_step_of_rare_classes(batch: Batch, below: int, tail: list[int], rho: float) -> None:
    method = method_of(scope="tail", objective="ce", tail_below=below, rho=rho)
    assert sorted(np.flatnonzero(rare_classes(COUNTS, below))) == sorted(tail)
    assert step(method, batch) == (2 if rho else 1) and method.steady is None
    torch.testing.assert_close(weights_after(method), by_hand(batch, tail, rho), rtol=1e-5, atol=1e-6)


def test_no_rare_image_is_the_objectives_own_step(batch: Batch) -> None:
    method, plain = method_of(scope="tail", objective="ce", tail_below=1), method_on_colour("ce", COUNTS)
    step(method, batch)
    functional.cross_entropy(plain.predict(batch.images), batch.targets).backward()
    expected = torch.cat([(each - 0.1 * each.grad).detach().flatten() for each in plain.parameters()])
    torch.testing.assert_close(weights_after(method), expected)


@pytest.mark.parametrize("epoch", [0, 9])
def test_parts_have_the_weights_of_the_whole_batch(batch: Batch, epoch: int) -> None:
    method, base, progress = method_of(scope="tail"), method_on_colour("ldam", COUNTS), Progress(epoch, 10)
    trained = list(method.parameters())

    def slopes(value: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(value, trained))

    whole = method.loss(batch, progress)["loss"]
    method.steady = {}
    in_a_step = method.loss(batch, progress)["loss"]
    both, tail, steady = slopes(whole), slopes(in_a_step), method.steady
    once = torch.autograd.grad(base.loss(batch, progress)["loss"], list(base.parameters()))
    torch.testing.assert_close(in_a_step, whole)
    torch.testing.assert_close([steady[each] + own for each, own in zip(trained, tail, strict=True)], both)
    torch.testing.assert_close([steady[each] + own / 2 for each, own in zip(trained, tail, strict=True)], list(once))
    assert all(each.abs().sum() > 0 for each in (*tail, *steady.values()))
    method.loss(batch, progress)  # at w + e: what was kept at w stays
    assert method.steady is steady


def test_the_whole_loss_is_the_objective_and_its_optimizer_is_aware(batch: Batch) -> None:
    method, base = method_of(), method_on_colour("ldam", COUNTS)
    loss = method.loss(batch, Progress(9, 10))["loss"]
    assert torch.equal(loss, base.loss(batch, Progress(9, 10))["loss"])
    optimizer = method.optimizer(method.param_groups(0.1), Stage("train", 1))
    assert isinstance(optimizer, SharpnessAware) and optimizer.network is method and optimizer.rho == 0.05
    assert step(method, batch) == 2


@pytest.mark.parametrize(("count", "rare"), [(8, 3), (3, 1), (2, 1), (10, 4), (1, 1)])
def test_the_rarest_third_is_that_of_the_tables(count: int, rare: int) -> None:
    from ltbench.benchmarks.analysis.metrics import frequency_groups

    counts = np.random.default_rng(0).permutation(count) + 1
    found = np.flatnonzero(rare_classes(counts, 0)).tolist()
    assert len(found) == rare and sorted(frequency_groups(counts.tolist())["tail"]) == found


def test_rare_classes_alone_hold_to_the_contract(tmp_path: Path) -> None:
    check_method(registry.get("sam"), folder=tmp_path, scope="tail", objective="balanced_softmax")
