"""Supervised contrastive losses against their formulas written as loops over pairs."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import (
    BalancedContrastiveLoss,
    BalancedSoftmaxLoss,
    ClassEnhancementLoss,
    ParametricContrastiveLoss,
)

TARGETS = torch.tensor([2, 0, 2, 4, 0])  # class 1 and 3 are absent
COUNTS = [40, 1, 13, 5, 20]


def unit(rows: int, seed: int, dimension: int = 6) -> Tensor:
    draws = torch.randn(rows, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(draws, dim=1).requires_grad_()


def averaged(vectors: Tensor, labels: Sequence[int], anchors: int, temperature: float) -> Tensor:
    losses = []
    for i in range(anchors):
        positives = [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        below = torch.zeros((), dtype=torch.float64)
        for j in range(len(labels)):
            weight = labels.count(labels[j]) - (j in positives)
            below = below + (j != i) * torch.exp(vectors[i] @ vectors[j] / temperature) / weight
        if positives:
            each = [vectors[i] @ vectors[p] / temperature - below.log() for p in positives]
            losses.append(-sum(each) / len(each))
    return sum(losses) / len(losses)


def same_with_gradients(found: Tensor, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(each, inputs, retain_graph=True) for each in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
        assert one.abs().sum() > 0


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_balanced_contrastive(rows: int, temperature: float) -> None:
    first, second, prototypes = unit(rows, 1), unit(rows, 2), unit(5, 3)
    targets = TARGETS[:rows]
    found = BalancedContrastiveLoss(temperature)(first, second, targets, prototypes)
    labels = [*targets.tolist(), *targets.tolist(), *range(5)]
    wanted = averaged(torch.cat([first, second, prototypes]), labels, 2 * rows, temperature)
    same_with_gradients(found, wanted, [first, second, prototypes])


@pytest.mark.parametrize("proxies", [[0, 1, 1, 2, 2, 2, 3, 4, 4], [0, 1, 2, 3, 4]])
def test_class_enhancement(proxies: list[int]) -> None:
    """Class 1, or 1 and 3, of one proxy and no image has no positive."""
    first, second, vectors = unit(5, 1), unit(5, 2), unit(len(proxies), 3)
    found = ClassEnhancementLoss(0.1)(first, second, TARGETS, vectors, torch.tensor(proxies))
    labels = [*TARGETS.tolist(), *TARGETS.tolist(), *proxies]
    wanted = averaged(torch.cat([first, second, vectors]), labels, len(labels), 0.1)
    same_with_gradients(found, wanted, [first, second, vectors])


def test_balanced_losses_know_neither_directions_nor_names_of_classes() -> None:
    first, second, prototypes, place = unit(5, 1), unit(5, 2), unit(5, 3), torch.tensor([3, 0, 4, 1, 2])
    rotation = torch.linalg.qr(unit(6, 4)).Q
    losses = BalancedContrastiveLoss(), ClassEnhancementLoss()
    values = [losses[0](first, second, TARGETS, prototypes)]
    values.append(losses[0](*(each @ rotation for each in (first, second)), TARGETS, prototypes @ rotation))
    values.append(losses[0](first, second, place[TARGETS], prototypes[place.argsort()]))
    torch.testing.assert_close(torch.stack(values[1:]), values[0].expand(2))
    names = torch.arange(5)
    value = losses[1](first, second, TARGETS, prototypes, names)
    torch.testing.assert_close(losses[1](first, second, place[TARGETS], prototypes, place[names]), value)


def test_classes_on_a_simplex_have_a_closed_form() -> None:
    """Every class counts once, the own one without the anchor itself."""
    classes = functional.normalize(torch.eye(5, dtype=torch.float64) - 0.2, dim=1)
    views = classes[TARGETS]
    value = BalancedContrastiveLoss(0.5)(views, views, TARGETS, classes)
    assert value.item() == pytest.approx(math.log(math.exp(2) + 4 * math.exp(-0.25 / 0.5)) - 2, abs=1e-9)


def parametric(logits: Tensor, anchors: Tensor, keys: Tensor, labels: list[int], alpha: float, gamma: float) -> Tensor:
    shares = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    adjusted, vectors, losses = logits + (shares + 1e-9).log(), torch.cat([anchors, keys]), []
    for i in range(len(anchors)):
        others = [j for j in range(len(vectors)) if j != i and labels[j] >= 0]
        below = adjusted[i].exp().sum() + gamma * sum((anchors[i] @ vectors[j] / 0.2).exp() for j in others)
        positives = [j for j in others if labels[j] == labels[i]]
        total = 0.7 * (adjusted[i, labels[i]] - below.log())
        total = total + alpha * sum(anchors[i] @ vectors[p] / 0.2 - below.log() for p in positives)
        losses.append(-total / (0.7 + alpha * len(positives)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.05, 1.0), (0.5, 0.3), (0.05, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("key_targets", [[], [-1, -1], [0, 2, -1, 1, 2]])
def test_parametric_contrastive(alpha: float, gamma: float, key_targets: list[int]) -> None:
    logits = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    anchors, keys = unit(5, 2), unit(len(key_targets), 3).detach()
    loss = ParametricContrastiveLoss(COUNTS, alpha, 0.7, gamma, 0.2)
    found = loss(logits, anchors, TARGETS, keys, torch.tensor(key_targets, dtype=torch.int64))
    wanted = parametric(logits, anchors, keys, [*TARGETS.tolist(), *key_targets], alpha, gamma)
    inputs = [logits, anchors] if alpha or gamma else [logits]
    same_with_gradients(found, wanted, inputs)


def test_parametric_contrastive_without_contrast_is_balanced_softmax() -> None:
    logits = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = logits, unit(5, 2), TARGETS, unit(4, 3), torch.tensor([0, 2, -1, 1])
    wanted = BalancedSoftmaxLoss(COUNTS)(logits, TARGETS)
    torch.testing.assert_close(ParametricContrastiveLoss(COUNTS, 0.0, 1.0, 0.0)(*given), wanted, rtol=0, atol=1e-7)
    assert (ParametricContrastiveLoss(COUNTS, 0.0)(*given) - wanted).abs() > 1
    torch.testing.assert_close(ParametricContrastiveLoss(COUNTS, 0.05, 1e12, 0.0)(*given), wanted, rtol=0, atol=1e-7)


def test_large_logits_and_half_precision() -> None:
    logits, names = 200 * torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) - 100, torch.arange(5)
    first, second, others = (unit(5, seed).detach().float().requires_grad_() for seed in (1, 2, 3))
    parts = {
        "bcl": lambda a, b, c: BalancedContrastiveLoss(0.01)(a, b, TARGETS, c),
        "ecl": lambda a, b, c: ClassEnhancementLoss(0.01)(a, b, TARGETS, c, names),
        "gpaco": lambda a, b, c: ParametricContrastiveLoss(COUNTS, temperature=0.01)(logits, a, TARGETS, c, names),
    }
    for loss in parts.values():
        value = loss(first, second, others)
        value.backward()
        assert value.isfinite() and first.grad.isfinite().all() and others.grad.isfinite().all()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(first, second, others), value)


def test_what_does_not_fit_is_refused() -> None:
    bcl, ecl, gpaco = BalancedContrastiveLoss(), ClassEnhancementLoss(), ParametricContrastiveLoss(COUNTS)
    for call in (
        lambda: bcl(unit(5, 1), unit(4, 1), TARGETS, unit(5, 1)),
        lambda: bcl(unit(5, 1), unit(5, 1), TARGETS, unit(5, 1, 7)),
        lambda: ecl(unit(5, 1), unit(5, 1), TARGETS, unit(5, 1), TARGETS[:4]),
        lambda: gpaco(torch.zeros(5, 4), unit(5, 1), TARGETS, unit(5, 1), TARGETS),
        lambda: gpaco(torch.zeros(5, 5), unit(4, 1), TARGETS, unit(5, 1), TARGETS),
        lambda: gpaco(torch.zeros(5, 5), unit(5, 1), TARGETS, unit(5, 1, 7), TARGETS),
        lambda: BalancedContrastiveLoss(0.0),
        lambda: ParametricContrastiveLoss(COUNTS, beta=0.0),
        lambda: ParametricContrastiveLoss([3, 0]),
    ):
        with pytest.raises(ValueError):
            call()
