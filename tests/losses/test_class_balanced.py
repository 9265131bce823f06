"""Class-balanced loss: its defaults and extremes; values and gradients are in test_class_losses.py."""

import math

import pytest
import torch

from ltbench.losses import ClassBalancedLoss

COUNTS = (360, 51, 5000, 97, 1342)
LOGITS = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([2, 2, 2, 0, 4, 1, 2])


def test_defaults() -> None:
    explicit = ClassBalancedLoss(COUNTS, 0.9999, "softmax", 2.0)
    assert torch.equal(ClassBalancedLoss(COUNTS)(LOGITS, TARGETS), explicit(LOGITS, TARGETS))


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
