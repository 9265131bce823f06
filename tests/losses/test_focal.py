"""Focal loss: what its modulator and its weight do; values and gradients are in test_class_losses.py."""

import math

import pytest
import torch

from ltbench.losses import FocalLoss

LOGITS = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 3, 0, 0, 1, 1, 1])


def test_small_losses_keep_their_digits_and_weights_are_copied() -> None:
    weight = torch.ones(4, dtype=torch.float64)
    loss = FocalLoss(2.0, weight)
    weight.zero_()
    assert loss(LOGITS, TARGETS) > 0
    logits, target = torch.tensor([[12.0, 0.0]]), torch.tensor([0])
    exact = FocalLoss(1.0)(logits.double(), target).item()
    assert FocalLoss(1.0)(logits, target).item() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 0.999, 1.0, 2.0, 50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_gamma_is_finite_wherever_logits_are(gamma: float, dtype: torch.dtype) -> None:
    gap = torch.cat([torch.linspace(-200, 200, 401), torch.logspace(-9, 2, 50)]).to(dtype)
    logits = torch.stack([gap / 2, -gap / 2], 1).requires_grad_()
    loss = FocalLoss(gamma)(logits, torch.zeros(len(gap), dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [-1.0, -1e-9, math.nan, math.inf])
def test_refuses_gamma(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        FocalLoss(gamma)


@pytest.mark.parametrize("weight", [[], [[1.0, 2.0]], 1.0, [1.0, -0.1], [1.0, math.nan], [math.inf, 1.0]])
def test_refuses_weight(weight: object) -> None:
    with pytest.raises(ValueError, match="weight"):
        FocalLoss(weight=weight)
