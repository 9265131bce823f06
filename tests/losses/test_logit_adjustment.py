"""Logit adjustment: its sign and its identities; values and gradients are in test_class_losses.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ltbench.losses import BalancedSoftmaxLoss, LogitAdjustedLoss

COUNTS = (360, 51, 5000, 97, 1)
LOGITS = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([2, 2, 2, 0, 4, 1, 2, 3, 3])


def test_known_value() -> None:
    loss = BalancedSoftmaxLoss([3, 1])(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-14)


def test_shares_are_counts_to_the_softmax() -> None:
    balanced, adjusted = BalancedSoftmaxLoss(COUNTS), LogitAdjustedLoss(COUNTS, tau=1.0)
    torch.testing.assert_close(balanced(LOGITS, TARGETS), adjusted(LOGITS, TARGETS), rtol=1e-13, atol=0)
    assert torch.equal(LogitAdjustedLoss(COUNTS)(LOGITS, TARGETS), adjusted(LOGITS, TARGETS))


def test_scaling_all_counts_changes_nothing() -> None:
    scaled = BalancedSoftmaxLoss([1000 * count for count in COUNTS])
    torch.testing.assert_close(
        scaled(LOGITS, TARGETS), BalancedSoftmaxLoss(COUNTS)(LOGITS, TARGETS), rtol=1e-12, atol=0
    )


def test_rare_classes_must_earn_a_larger_logit() -> None:
    even = torch.zeros(1, 5, dtype=torch.float64)
    rare, frequent = torch.tensor([4]), torch.tensor([2])
    for tau in (0.5, 1.0, 2.0):
        loss = LogitAdjustedLoss(COUNTS, tau)
        assert loss(even, rare) > functional.cross_entropy(even, rare) > loss(even, frequent)


@pytest.mark.parametrize("tau", [-1.0, -1e-9, math.nan, math.inf])
def test_refuses_tau(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        LogitAdjustedLoss(COUNTS, tau)
