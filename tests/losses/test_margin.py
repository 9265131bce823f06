"""LDAM: what its margins do; values and gradients are in test_class_losses.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ltbench.losses import LDAMLoss

COUNTS = (16, 1, 81, 256)  # n ** -1/4: 1/2, 1, 1/3, 1/4
MARGINS = torch.tensor([0.25, 0.5, 1 / 6, 0.125], dtype=torch.float64)
COSINES = torch.rand(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
TARGETS = torch.tensor([0, 1, 2, 3, 3, 3, 2, 0])


def test_the_rarest_class_has_the_largest_margin() -> None:
    torch.testing.assert_close(LDAMLoss(COUNTS).margins, MARGINS, rtol=1e-14, atol=0)
    torch.testing.assert_close(LDAMLoss([9] * 3).margins, torch.full((3,), 0.5, dtype=torch.float64))


def test_the_margin_is_taken_off_the_target_alone_and_scaled_once() -> None:
    lowered = COSINES.clone()
    lowered[torch.arange(8), TARGETS] -= MARGINS[TARGETS]
    expected = functional.cross_entropy(30 * lowered, TARGETS)
    torch.testing.assert_close(LDAMLoss(COUNTS)(COSINES, TARGETS), expected, rtol=1e-13, atol=0)


def test_a_margin_lowers_the_probability_of_the_target() -> None:
    plain, margin = LDAMLoss(COUNTS, max_margin=0.0), LDAMLoss(COUNTS)
    torch.testing.assert_close(plain(COSINES, TARGETS), functional.cross_entropy(30 * COSINES, TARGETS))
    for row in range(8):
        assert margin(COSINES[[row]], TARGETS[[row]]) > plain(COSINES[[row]], TARGETS[[row]])


def test_a_weight_is_that_of_the_weighted_mean() -> None:
    weight = [0.5, 2.0, 0.0, 3.0]
    each = torch.stack([LDAMLoss(COUNTS)(COSINES[[row]], TARGETS[[row]]) for row in range(8)])
    own = torch.tensor(weight, dtype=torch.float64)[TARGETS]
    result = LDAMLoss(COUNTS, weight=weight)(COSINES, TARGETS)
    torch.testing.assert_close(result, (own * each).sum() / own.sum(), rtol=1e-13, atol=0)
    torch.testing.assert_close(LDAMLoss(COUNTS, weight=[7.0] * 4)(COSINES, TARGETS), each.mean(), rtol=1e-13, atol=0)


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
