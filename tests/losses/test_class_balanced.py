"""Class-balanced loss: its reductions and its forms; values and gradients are in test_class_losses.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ltbench.losses import ClassBalancedLoss, effective_number_weights, inverse_frequency_weights

COUNTS = (360, 51, 5000, 97, 1342)
LOGITS = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([2, 2, 2, 0, 4, 1, 2])


def test_defaults() -> None:
    assert torch.equal(
        ClassBalancedLoss(COUNTS)(LOGITS, TARGETS), ClassBalancedLoss(COUNTS, 0.9999, "softmax", 2.0)(LOGITS, TARGETS)
    )


def test_is_divided_by_the_batch_and_not_by_its_weights() -> None:
    weights = effective_number_weights(COUNTS, 0.9999)
    each = functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    result = ClassBalancedLoss(COUNTS)(LOGITS, TARGETS)
    torch.testing.assert_close(result, (weights[TARGETS] * each).sum() / 7, rtol=1e-13, atol=0)
    assert not torch.allclose(result, functional.cross_entropy(LOGITS, TARGETS, weights))


def test_the_weight_counts_in_a_batch_of_one() -> None:
    one = ClassBalancedLoss(COUNTS)(LOGITS[:1], TARGETS[:1])
    weight = effective_number_weights(COUNTS, 0.9999)[TARGETS[0]]
    torch.testing.assert_close(one, weight * functional.cross_entropy(LOGITS[:1], TARGETS[:1]), rtol=1e-13, atol=0)


def test_sigmoids_are_summed_over_classes() -> None:
    entries = functional.binary_cross_entropy_with_logits(
        LOGITS, functional.one_hot(TARGETS, 5).double(), reduction="none"
    )
    expected = (effective_number_weights(COUNTS, 0.999)[TARGETS, None] * entries).sum() / 7
    torch.testing.assert_close(ClassBalancedLoss(COUNTS, 0.999, "sigmoid")(LOGITS, TARGETS), expected)


def test_focal_without_gamma_is_the_sigmoid_form() -> None:
    focal, sigmoid = (ClassBalancedLoss(COUNTS, 0.99, base, gamma=0.0) for base in ("focal", "sigmoid"))
    torch.testing.assert_close(focal(LOGITS, TARGETS), sigmoid(LOGITS, TARGETS), rtol=1e-14, atol=0)


def test_the_starting_bias_makes_the_first_loss_small() -> None:
    """Sigmoids that start at 1 / K cost about 1 + log K an image, those that start at 1 / 2 K log 2."""
    biased = torch.full((4, 50), -math.log(49), dtype=torch.float64)
    loss = ClassBalancedLoss([7] * 50, base="sigmoid")(biased, torch.tensor([0, 3, 20, 49]))
    assert loss.item() == pytest.approx(math.log(50) + 49 * math.log(50 / 49), rel=1e-12)


def test_beta_towards_one_is_the_inverse_frequency() -> None:
    each = functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    expected = (inverse_frequency_weights(COUNTS)[TARGETS] * each).mean()
    torch.testing.assert_close(ClassBalancedLoss(COUNTS, 1 - 1e-12)(LOGITS, TARGETS), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("base", ["softmax", "sigmoid", "focal"])
def test_a_hopeless_image_still_teaches(base: str) -> None:
    """Binary cross-entropy of softmax probabilities, which goes by this name too, would give no gradient here."""
    logits = torch.tensor([[-100.0, 100.0, 0.0, 0.0, 0.0]], requires_grad=True)
    ClassBalancedLoss(COUNTS, base=base)(logits, torch.tensor([0])).backward()
    assert logits.grad[0, 0] < -0.1


@pytest.mark.parametrize("gamma", [0.5, 2.0, 50.0])
def test_the_modulator_does_not_overflow(gamma: float) -> None:
    logits = torch.linspace(-300, 300, 61).repeat(5, 1).T.contiguous().requires_grad_()
    loss = ClassBalancedLoss(COUNTS, base="focal", gamma=gamma)(logits, torch.arange(61) % 5)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "beta"),
        ({"beta": 1.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": math.nan}, "gamma"),
        ({"base": "hinge"}, "base must be one of softmax, sigmoid, focal, got 'hinge'"),
    ],
)
def test_refuses_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassBalancedLoss(COUNTS, **options)
