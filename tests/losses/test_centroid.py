"""The centroid loss against loops, and its two rules of gradient."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ltbench.losses.representation.centroid import CentroidLoss

TARGETS = torch.tensor([0, 2, 2, 5, 0, 2])
SHAPES = [(8, 6), (10, 6), (14, 6), (14, 1), (1, 3), (2, 5)]


def vectors(rows: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(classes: int, batch: int, scale: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    targets = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(batch))
    return vectors(batch, 1, scale), targets, vectors(classes, 2, scale)


def by_loops(features: Tensor, targets: Tensor, centroids: Tensor, weight: float = 0.01, margin: float = 10.0) -> float:
    v, y, memory = features.numpy(), targets.numpy(), centroids.numpy()
    attraction = others = 0.0
    for i in range(len(v)):
        for k in range(len(memory)):
            squared = sum((a - b) ** 2 for a, b in zip(v[i], memory[k], strict=True))
            attraction += squared / (2 * len(v)) if k == y[i] else 0.0
            others += squared / (len(v) * len(memory)) if k != y[i] else 0.0
    return attraction + weight * min(max(margin - others, 0.0), 1e6)


@pytest.mark.parametrize("own_rule", [True, False])
@pytest.mark.parametrize("scale", [0.3, 30.0])
@pytest.mark.parametrize(("classes", "batch"), SHAPES)
def test_value(classes: int, batch: int, scale: float, own_rule: bool) -> None:
    features, targets, centroids = problem(classes, batch, scale)
    value = CentroidLoss(own_gradient_rule=own_rule)(features, targets, centroids)
    assert value.dtype == torch.float64 and value.ndim == 0
    assert value.item() == pytest.approx(by_loops(features, targets, centroids), rel=1e-12, abs=1e-12)


def test_the_second_term_ends_at_its_margin_and_both_rules_agree_on_features() -> None:
    features, targets, centroids = problem(8, 6, scale=30.0)
    assert CentroidLoss(1.0)(features, targets, centroids) == CentroidLoss(0.0)(features, targets, centroids)
    near = CentroidLoss(1.0, 1e9)(features, targets, centroids) - CentroidLoss(0.0)(features, targets, centroids)
    assert near.item() == pytest.approx(1e6, rel=1e-9)
    features, targets, centroids = problem(8, 6)
    gradients = {}
    for rule in (True, False):
        v, memory = features.clone().requires_grad_(), centroids.clone().requires_grad_()
        CentroidLoss(0.0, own_gradient_rule=rule)(v, targets, memory).backward()
        gradients[rule] = v.grad, memory.grad
    torch.testing.assert_close(gradients[True][0], gradients[False][0], rtol=1e-12, atol=1e-15)
    # The rule is the true gradient over 1 + n_k.
    counts = torch.bincount(targets, minlength=8).double().unsqueeze(1)
    torch.testing.assert_close(gradients[True][1] * (1 + counts), gradients[False][1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("outer", [1.0, 0.01, 0.0])
def test_the_first_terms_gradient_by_hand(outer: float) -> None:
    features, centroids = vectors(6, 1).requires_grad_(), vectors(8, 2).requires_grad_()
    (outer * CentroidLoss(repel_weight=0.0)(features, TARGETS, centroids)).backward()
    v, memory = features.detach().numpy(), centroids.detach().numpy()
    own, pull = np.zeros_like(v), np.zeros_like(memory)
    for i, k in enumerate(TARGETS.tolist()):
        own[i] = outer * (v[i] - memory[k]) / 6
        pull[k] += (memory[k] - v[i]) / 6 / (1 + TARGETS.tolist().count(k))
    np.testing.assert_allclose(features.grad.numpy(), own, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(centroids.grad.numpy(), pull, rtol=1e-12, atol=1e-15)
    absent = [k for k in range(8) if k not in TARGETS.tolist()]
    assert (centroids.grad[absent] == 0).all() and (centroids.grad[TARGETS] != 0).all()


@pytest.mark.parametrize("outer", [1.0, 0.3])
def test_the_second_terms_gradient_is_scaled(outer: float) -> None:
    gradients = []
    for loss in (CentroidLoss(0.5), CentroidLoss(0.0)):
        features, centroids = vectors(6, 1, 0.3).requires_grad_(), vectors(8, 2, 0.3).requires_grad_()
        (outer * loss(features, TARGETS, centroids)).backward()
        gradients.append((features.grad, centroids.grad))
    features, centroids = vectors(6, 1, 0.3).requires_grad_(), vectors(8, 2, 0.3).requires_grad_()
    others = sum(
        (features[i] - centroids[k]).square().sum() for i in range(6) for k in range(8) if k != TARGETS[i].item()
    )
    (-outer * 0.5 * others / 48).backward()
    for (whole, first), second in zip(zip(*gradients, strict=True), (features.grad, centroids.grad), strict=True):
        torch.testing.assert_close(whole - first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("classes", [8, 10, 14])
def test_large_values_in_single_precision(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = (200 * torch.rand(5, 512, generator=generator) - 100).requires_grad_()
    centroids = (200 * torch.rand(classes, 512, generator=generator) - 100).requires_grad_()
    targets = torch.arange(5)
    value = CentroidLoss(margin=1e9)(features, targets, centroids)
    value.backward()
    assert value.dtype == torch.float32
    assert all(torch.isfinite(each).all() for each in (value, features.grad, centroids.grad))
    exact = by_loops(features.detach().double(), targets, centroids.detach().double(), margin=1e9)
    assert value.item() == pytest.approx(exact, rel=1e-5)


def test_full_precision_under_autocast() -> None:
    features, targets, centroids = (each.float() if each.is_floating_point() else each for each in problem(8, 6))
    results = []
    for autocast in (False, True):
        v, memory = features.clone().requires_grad_(), centroids.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = CentroidLoss()(v, targets, memory)
        value.backward()
        results.append((value.detach(), v.grad, memory.grad))
    for plain, cast in zip(*results, strict=True):
        assert cast.dtype == torch.float32 and torch.equal(plain, cast)
    assert CentroidLoss()(features.bfloat16(), targets, centroids).dtype == torch.float32


@pytest.mark.parametrize("options", [{"repel_weight": -0.1}, {"margin": -1.0}, {"margin": float("nan")}])
def test_settings_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        CentroidLoss(**options)


@pytest.mark.parametrize(
    ("features", "targets", "centroids", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), torch.zeros(8, 5), r"features must be \[B, D\]"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), torch.zeros(8, 3), r"features must be \[B, D\]"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long), torch.zeros(8, 4), r"targets must be \[B\]"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(8, 4), "B at least 1"),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(8, 4), "class ids"),
    ],
)
def test_arguments_that_do_not_fit(features: Tensor, targets: Tensor, centroids: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CentroidLoss()(features, targets, centroids)


def test_a_target_that_is_no_class() -> None:
    with pytest.raises(RuntimeError, match="Class values must be smaller"):
        CentroidLoss()(torch.zeros(1, 4), torch.tensor([8]), torch.zeros(8, 4))
