"""LDAM: batches without weight, and refusals; values and gradients are in test_class_losses.py."""

import math

import pytest
import torch

from ltbench.losses import LDAMLoss

COUNTS = (16, 1, 81, 256)
COSINES = torch.rand(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
TARGETS = torch.tensor([0, 1, 2, 3, 3, 3, 2, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_weight_has_no_loss_and_no_gradient(dtype: torch.dtype) -> None:
    loss = LDAMLoss(COUNTS, weight=[0.0, 1.0, 0.0, 0.0])
    cosines = COSINES.to(dtype).requires_grad_()
    value = loss(cosines, torch.tensor([0, 0, 2, 3, 3, 3, 2, 0]))
    value.backward()
    assert value == 0 and torch.equal(cosines.grad, torch.zeros_like(cosines))
    assert loss(cosines, TARGETS) == LDAMLoss(COUNTS)(cosines[[1]], TARGETS[[1]])  # the one image of class 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_margin": -0.1}, "max_margin"),
        ({"max_margin": math.nan}, "max_margin"),
        ({"scale": 0.0}, "scale"),
        ({"scale": -30.0}, "scale"),
        ({"scale": math.inf}, "scale"),
        ({"weight": [1.0] * 3}, r"weight must have shape \[4\], got \[3\]"),
        ({"weight": [[1.0] * 4]}, "weight must have shape"),
        ({"weight": [1.0, 1.0, 1.0, -1.0]}, "weight must be finite"),
        ({"weight": [1.0, 1.0, 1.0, math.nan]}, "weight must be finite"),
    ],
)
def test_refuses_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LDAMLoss(COUNTS, **options)
