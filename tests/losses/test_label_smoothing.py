"""Label-aware smoothing against loops: values, gradients, shapes, equal counts, refusals."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import LabelAwareSmoothingLoss

COUNTS = (360, 51, 5000, 97, 1342, 187, 2590, 695)
TARGETS = torch.tensor([2, 2, 1, 7, 0, 2])
SHAPES = {
    "concave": lambda x: math.sin(math.pi * x / 2),
    "linear": lambda x: x,
    "convex": lambda x: 1 + math.sin(1.5 * math.pi + math.pi * x / 2),
    "exponential": lambda x: x**3,
}


def slow(rows: Tensor, targets: Sequence[int], head: float, tail: float, shape: str) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(rows, targets, strict=True):
        place = (COUNTS[target] - min(COUNTS)) / (max(COUNTS) - min(COUNTS))
        smoothing = tail + (head - tail) * SHAPES[shape](place)
        logs = [value - sum(other.exp() for other in row).log() for value in row]
        wanted = [smoothing / len(row) + (1 - smoothing) * (index == target) for index in range(len(row))]
        total = total - sum(p * log for p, log in zip(wanted, logs, strict=True))
    return total / len(rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape: str) -> None:
    logits = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = LabelAwareSmoothingLoss(COUNTS, 0.4, 0.1, shape, 3.0)
    values = loss(logits, TARGETS), slow(logits, TARGETS.tolist(), 0.4, 0.1, shape)
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in values), rtol=0, atol=1e-12)
    assert float(loss.smoothing[2]) == pytest.approx(0.4) and float(loss.smoothing[1]) == pytest.approx(0.1)


def test_equal_counts_and_permuted_classes() -> None:
    logits = 50 * torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(LabelAwareSmoothingLoss([7] * 8)(logits, TARGETS), functional.cross_entropy(logits, TARGETS))
    place = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    moved = LabelAwareSmoothingLoss(torch.tensor(COUNTS)[place])
    torch.testing.assert_close(
        moved(logits[:, place], place.argsort()[TARGETS]), LabelAwareSmoothingLoss(COUNTS)(logits, TARGETS)
    )


@pytest.mark.parametrize("options", [(1.1,), (0.3, -0.1), (0.3, 0.0, "square"), (0.3, 0.0, "exponential", 0.0)])
def test_refuses_options(options: tuple) -> None:
    with pytest.raises(ValueError):
        LabelAwareSmoothingLoss(COUNTS, *options)
