"""LADE: the regulariser against loops, absent classes among them."""

import math

import pytest
import torch
from torch import Tensor

from ltbench.losses import BalancedSoftmaxLoss, LADELoss

COUNTS = (360, 51, 5000, 97, 1)


def regulariser(logits: Tensor, targets: Tensor, lam: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for c, count in enumerate(COUNTS):
        share = count / sum(COUNTS)
        own = [logits[i, c] for i in range(len(targets)) if targets[i] == c]
        mean = sum(own) / (len(own) + 1e-8) if own else 0.0
        exponentials = [torch.exp(row[c] - math.log(share) + math.log(1 / len(COUNTS))) for row in logits]
        bound = torch.log(sum(exponentials) / len(logits))
        total = total - share * (mean - bound - lam * bound**2)
    return total


@pytest.mark.parametrize("targets", [[0, 1, 2, 3, 4, 2], [2, 2, 0], [4]])
@pytest.mark.parametrize(("alpha", "lam"), [(0.1, 0.1), (1.0, 0.5), (0.05, 0.0)])
def test_value_and_gradient(targets: list[int], alpha: float, lam: float) -> None:
    classes = torch.tensor(targets)
    logits = 3 * torch.randn(len(classes), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = (logits.clone().requires_grad_() for _ in range(2))
    loss = LADELoss(COUNTS, alpha, lam)(found, classes)
    shares = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    prior = torch.nn.functional.cross_entropy(expected + (shares + 1e-9).log(), classes)
    other = prior + alpha * regulariser(expected, classes, lam)
    loss.backward()
    other.backward()
    torch.testing.assert_close(loss, other, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_ids_may_be_permuted_and_logits_may_be_large() -> None:
    order = [3, 0, 4, 1, 2]
    logits, targets = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 2, 2, 3, 4, 0])
    permuted = LADELoss([COUNTS[each] for each in order])(logits[:, order], torch.tensor(order).argsort()[targets])
    torch.testing.assert_close(permuted, LADELoss(COUNTS)(logits, targets), rtol=1e-12, atol=0)
    large = torch.full((2, 5), -100.0).index_fill(1, torch.tensor([1]), 100.0).requires_grad_()
    loss = LADELoss(COUNTS)(large, torch.tensor([2, 0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(large.grad).all()
    assert loss.dtype == torch.float32 and loss > BalancedSoftmaxLoss(COUNTS)(large, torch.tensor([2, 0]))
