"""Losses of features (center, range) against loops: values, gradients, classes of one image, one class alone."""

import itertools

import pytest
import torch
from torch import Tensor

from ltbench.losses import CenterLoss, RangeLoss

BATCHES = {
    "several": [2, 0, 2, 2, 1, 0, 2, 4, 4, 4],
    "two images": [3, 3, 1],
    "one class": [2, 2, 2, 2],
    "one each": [0, 1, 4],
    "one image": [3],
}


def features_of(targets: list[int], width: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(targets))
    return width * torch.randn(len(targets), 3, dtype=torch.float64, generator=generator), torch.tensor(targets)


def distance(one: Tensor, other: Tensor) -> Tensor:
    return torch.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)).clamp(min=1e-12))


def range_by_hand(features: Tensor, targets: Tensor, k: int, margin: float, alpha: float, beta: float) -> Tensor:
    classes = sorted(set(targets.tolist()))
    members = [[f for f, y in zip(features, targets.tolist(), strict=True) if y == c] for c in classes]
    total = torch.zeros((), dtype=torch.float64)
    for own in members:
        ordered = sorted(distance(one, other) for one in own for other in own)
        total = total + alpha * k / sum(1 / d for d in ordered[-2 * k :][::2])
    means = [sum(own) / len(own) for own in members]
    apart = [distance(one, other) for one, other in itertools.combinations(means, 2)]
    return total + (beta * (margin - min(apart)).clamp(min=0) if apart else 0)


@pytest.mark.parametrize("targets", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("k", "margin", "alpha", "beta"), [(2, 0.1, 0.5, 0.5), (2, 5.0, 1.0, 0.3), (1, 2.0, 0.5, 0.5)])
def test_range(targets: list[int], k: int, margin: float, alpha: float, beta: float) -> None:
    features, classes = features_of(targets)
    one, other = (features.clone().requires_grad_() for _ in range(2))
    found, expected = (
        RangeLoss(k, margin, alpha, beta)(one, classes),
        range_by_hand(other, classes, k, margin, alpha, beta),
    )
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("targets", BATCHES.values(), ids=BATCHES)
def test_center(targets: list[int]) -> None:
    features, classes = features_of(targets)
    loss = CenterLoss(5, 3).double()
    leaf = features.clone().requires_grad_()
    loss(leaf, classes).backward()
    expected, own = 0.0, torch.zeros(5, 3, dtype=torch.float64)
    for f, y in zip(features, targets, strict=True):
        expected += sum((f - loss.centers[y].detach()) ** 2).item() / len(targets)
        own[y] -= 2 * (f - loss.centers[y].detach()) / len(targets)
    assert loss(features, classes).item() == pytest.approx(expected, rel=1e-12)
    wanted = 2 * (features - loss.centers.detach()[classes]) / len(targets)
    torch.testing.assert_close(leaf.grad, wanted, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(loss.centers.grad, own, rtol=1e-9, atol=1e-15)


def test_distances_are_clamped_and_centres_start_normal() -> None:
    torch.manual_seed(0)
    loss = CenterLoss(50, 100)
    assert loss.centers.mean().abs() < 0.05 and abs(loss.centers.std() - 1) < 0.05
    near, far = (loss.centers[:1].detach() + offset for offset in (0.0, 1e7))
    assert loss(near, torch.tensor([0])).item() == pytest.approx(1e-12)
    assert loss(far, torch.tensor([0])).item() == pytest.approx(1e12)


@pytest.mark.parametrize("loss", [CenterLoss(5, 3), RangeLoss()])
def test_ids_duplicates_precision_and_refusals(loss: torch.nn.Module) -> None:
    features, targets = features_of(BATCHES["several"])
    order = torch.tensor([3, 0, 4, 1, 2])
    before = loss(features, targets)
    if isinstance(loss, CenterLoss):
        loss.centers.data = loss.centers.data[order.argsort()]
    torch.testing.assert_close(loss(features, order[targets]), before, rtol=1e-12, atol=0)
    same = torch.full((4, 3), 100.0, requires_grad=True)
    value = loss(same, torch.tensor([1, 1, 2, 2]))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(same.grad).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(features.bfloat16(), targets)
    assert half.dtype == torch.float32 and torch.equal(half, loss(features.bfloat16().float(), targets))
    for wrong in ((features[0], targets), (features, targets[:3]), (features, targets.unsqueeze(1))):
        with pytest.raises(ValueError):
            loss(*wrong)


def test_refuses_options() -> None:
    for wrong in ({"k": 0}, {"margin": -0.1}, {"alpha": -1.0}, {"beta": float("inf")}):
        with pytest.raises(ValueError):
            RangeLoss(**wrong)
    with pytest.raises(ValueError):
        CenterLoss(0, 3)
