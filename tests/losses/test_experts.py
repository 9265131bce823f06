"""Losses of several experts against loops, and what they are in their limits."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

from ltbench.losses import LDAMLoss, NestedCollaborativeLoss, RIDELoss, SADELoss, effective_number_weights

COUNTS = (360, 51, 5000, 97, 1342, 187, 2590, 695)
TARGETS = torch.tensor([2, 2, 1, 7, 0, 2])  # without most classes
PLACE = torch.randperm(8, generator=torch.Generator().manual_seed(2))
LOGITS = 3 * torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LOSSES = {
    "ride": RIDELoss,
    "ride late": lambda counts: RIDELoss(counts, reweight=True),
    "ride ce": lambda counts: RIDELoss(counts, "ce", 0.45, reweight=True, evenness=0.5),
    "sade": SADELoss,
    "ncl": NestedCollaborativeLoss,
    "ncl hidden": lambda counts: NestedCollaborativeLoss(counts, 3, 1.0, "-inf"),
}


def logs(row: Sequence[float]) -> list[float]:
    largest = max(row)
    total = largest + math.log(math.fsum(math.exp(value - largest) for value in row))
    return [value - total for value in row]


def divergence(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(logs(first), logs(second), strict=True))


def test_ride() -> None:
    uneven = [8 * count / sum(COUNTS) * 0.05 + 0.95 for count in COUNTS]
    weights = effective_number_weights(COUNTS, 0.9999).tolist()
    for base in ("ce", "ldam"):
        for late in (False, True):
            temperature = [value / max(uneven) if late else 1.0 for value in uneven]
            mean_temperature, expected = sum(temperature) / 8, 0.0
            for expert in LOGITS.tolist():
                learned, weight, apart = 0.0, 0.0, 0.0
                for i, (row, y) in enumerate(zip(expert, TARGETS.tolist(), strict=True)):
                    margin = 30 * 0.5 * (min(COUNTS) / COUNTS[y]) ** 0.25 if base == "ldam" else 0.0
                    own = weights[y] if late and base == "ldam" else 1.0
                    lowered = [value - margin * (c == y) for c, value in enumerate(row)]
                    learned, weight = learned - own * logs(lowered)[y], weight + own
                    mean = [math.fsum(other[i][c] for other in LOGITS.tolist()) / 3 for c in range(8)]
                    apart += divergence(*([v / t for v, t in zip(z, temperature, strict=True)] for z in (mean, row)))
                expected += learned / weight - 0.3 * mean_temperature**2 * apart / 6
            value = RIDELoss(COUNTS, base, 0.3, reweight=late)(LOGITS, TARGETS)
            assert value.item() == pytest.approx(expected, rel=1e-10)
    alone = RIDELoss(COUNTS, diversity=0.0)(LOGITS, TARGETS)
    torch.testing.assert_close(alone, sum(LDAMLoss(COUNTS)(each / 30, TARGETS) for each in LOGITS))


def test_sade() -> None:
    descending = sorted(COUNTS, reverse=True)
    reverse = [sorted(COUNTS)[descending.index(count)] for count in COUNTS]
    shifts = ([1] * 8, COUNTS, [n / r**2 for n, r in zip(COUNTS, reverse, strict=True)])
    expected = 0.0
    for expert, shift in zip(LOGITS.tolist(), shifts, strict=True):
        for row, y in zip(expert, TARGETS.tolist(), strict=True):
            expected -= logs([value + math.log(n) for value, n in zip(row, shift, strict=True)])[y] / 6
    assert SADELoss(COUNTS)(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-12)
    plain = sum(functional.cross_entropy(each, TARGETS) for each in LOGITS)
    torch.testing.assert_close(SADELoss([9] * 8)(LOGITS, TARGETS), plain)
    with pytest.raises(ValueError):
        SADELoss(COUNTS)(LOGITS[:2], TARGETS)


@pytest.mark.parametrize("mask", ["zero", "-inf"])
def test_ncl(mask: str) -> None:
    adjusted = [
        [[v + math.log(n) for v, n in zip(row, COUNTS, strict=True)] for row in each] for each in LOGITS.tolist()
    ]
    expected = 0.0
    for i, y in enumerate(TARGETS.tolist()):
        ranked = sorted(range(8), key=lambda c: (c == y, LOGITS[0, i, c].item()), reverse=True)[:3]
        every = [each[i] for each in adjusted]
        hard = [[v if c in ranked else 0.0 if mask == "zero" else -1e5 for c, v in enumerate(row)] for row in every]
        for rows in (every, hard):
            expected -= sum(logs(row)[y] for row in rows) / 6
            expected += 0.6 / 2 * sum(divergence(rows[j], rows[i]) for i in range(3) for j in range(3) if i != j) / 6
    loss = NestedCollaborativeLoss(COUNTS, 3, 0.6, mask)
    assert loss(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(loss(LOGITS[[0, 2, 1]], TARGETS), loss(LOGITS, TARGETS))


def test_ncl_limits() -> None:
    balanced = functional.cross_entropy(LOGITS[0] + torch.tensor(COUNTS).log(), TARGETS)
    every = NestedCollaborativeLoss(COUNTS, 8)
    torch.testing.assert_close(every(LOGITS[:1], TARGETS), 2 * balanced)
    torch.testing.assert_close(every(LOGITS[:1].expand(3, -1, -1), TARGETS), 6 * balanced)
    assert NestedCollaborativeLoss([5, 1]).hard_classes == 2 and NestedCollaborativeLoss([5] * 100).hard_classes == 30


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_extremes_and_permuted_classes(name: str) -> None:
    loss = LOSSES[name](COUNTS)
    short = LOGITS[:, :2].clone().requires_grad_()
    if not name.startswith("ride"):  # their mean is a constant
        assert torch.autograd.gradcheck(lambda values: loss(values, TARGETS[:2]), short)
    for size in (1.0, 100.0, -100.0):
        extreme = (size * LOGITS.float().sign()).requires_grad_()
        value = loss(extreme, TARGETS)
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite() and extreme.grad.isfinite().all()
    moved = LOSSES[name](torch.tensor(COUNTS)[PLACE])
    torch.testing.assert_close(moved(LOGITS[..., PLACE], PLACE.argsort()[TARGETS]), loss(LOGITS, TARGETS))
    tied = torch.tensor([5, 5, 1, 9, 5, 1, 2, 9])
    torch.testing.assert_close(
        LOSSES[name](tied[PLACE])(LOGITS[..., PLACE], PLACE.argsort()[TARGETS]), LOSSES[name](tied)(LOGITS, TARGETS)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(LOGITS.float(), TARGETS), loss(LOGITS.float(), TARGETS))
    for wrong in (LOGITS[0], LOGITS[..., :7], LOGITS[:, :5]):
        with pytest.raises(ValueError):
            loss(wrong, TARGETS)


def test_the_mean_of_experts_has_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    RIDELoss(COUNTS, "ce")(logits, TARGETS).backward()
    mean = LOGITS.mean(0).softmax(1)
    own = functional.one_hot(TARGETS, 8)
    # d CE - 0.2 d KL of an expert alone: (p - y) - 0.2 (p - mean p)
    expected = (LOGITS.softmax(2) - own - 0.2 * (LOGITS.softmax(2) - mean)) / 6
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-12)
