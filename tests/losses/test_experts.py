"""Losses of several experts against loops, and what they are in their limits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
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


def logs(row: Tensor) -> Tensor:
    largest = row.detach().max()
    return row - largest - sum((value - largest).exp() for value in row).log()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    return sum(a.exp() * (a - b) for a, b in zip(logs(first), logs(second), strict=True))


def same_with_gradients(loss: nn.Module, by_hand: Callable[[Tensor], Tensor]) -> None:
    one, other = (LOGITS.clone().requires_grad_() for _ in range(2))
    values = loss(one, TARGETS), by_hand(other)
    sum(values).backward()
    torch.testing.assert_close(*values, rtol=1e-10, atol=0)
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("base", ["ce", "ldam"])
@pytest.mark.parametrize("late", [False, True])
def test_ride(base: str, late: bool) -> None:
    uneven = [8 * count / sum(COUNTS) * 0.05 + 0.95 for count in COUNTS]
    temperature = torch.tensor([value / max(uneven) if late else 1.0 for value in uneven], dtype=torch.float64)
    weights = effective_number_weights(COUNTS, 0.9999).tolist()

    def by_hand(experts: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for expert in experts:
            learned, weight, apart = 0.0, 0.0, 0.0
            for i, y in enumerate(TARGETS.tolist()):
                margin = 30 * 0.5 * (min(COUNTS) / COUNTS[y]) ** 0.25 if base == "ldam" else 0.0
                own = weights[y] if late and base == "ldam" else 1.0
                lowered = torch.stack([value - margin * (c == y) for c, value in enumerate(expert[i])])
                learned, weight = learned - own * logs(lowered)[y], weight + own
                mean = sum(other[i].detach() for other in experts) / 3
                apart = apart + divergence(mean / temperature, expert[i] / temperature)
            total = total + learned / weight - 0.3 * (sum(temperature) / 8) ** 2 * apart / 6
        return total

    same_with_gradients(RIDELoss(COUNTS, base, 0.3, reweight=late), by_hand)
    alone = RIDELoss(COUNTS, diversity=0.0)(LOGITS, TARGETS)
    torch.testing.assert_close(alone, sum(LDAMLoss(COUNTS)(each / 30, TARGETS) for each in LOGITS))


def test_sade() -> None:
    descending = sorted(COUNTS, reverse=True)
    reverse = [sorted(COUNTS)[descending.index(count)] for count in COUNTS]
    shifts = ([1] * 8, COUNTS, [n / r**2 for n, r in zip(COUNTS, reverse, strict=True)])

    def by_hand(experts: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for expert, shift in zip(experts, shifts, strict=True):
            for row, y in zip(expert, TARGETS.tolist(), strict=True):
                total = total - logs(torch.stack([v + math.log(n) for v, n in zip(row, shift, strict=True)]))[y] / 6
        return total

    same_with_gradients(SADELoss(COUNTS), by_hand)
    plain = sum(functional.cross_entropy(each, TARGETS) for each in LOGITS)
    torch.testing.assert_close(SADELoss([9] * 8)(LOGITS, TARGETS), plain)
    with pytest.raises(ValueError):
        SADELoss(COUNTS)(LOGITS[:2], TARGETS)


@pytest.mark.parametrize("mask", ["zero", "-inf"])
def test_ncl(mask: str) -> None:
    hidden = torch.tensor(0.0 if mask == "zero" else -1e5, dtype=torch.float64)

    def by_hand(networks: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, y in enumerate(TARGETS.tolist()):
            ranked = sorted(range(8), key=lambda c: (c == y, LOGITS[0, i, c].item()), reverse=True)[:3]
            every = [torch.stack([v + math.log(n) for v, n in zip(z[i], COUNTS, strict=True)]) for z in networks]
            hard = [torch.stack([v if c in ranked else hidden for c, v in enumerate(row)]) for row in every]
            for rows in (every, hard):
                apart = sum(divergence(rows[j], rows[i]) for i in range(3) for j in range(3) if i != j)
                total = total - sum(logs(row)[y] for row in rows) / 6 + 0.6 / 2 * apart / 6
        return total

    loss = NestedCollaborativeLoss(COUNTS, 3, 0.6, mask)
    same_with_gradients(loss, by_hand)
    torch.testing.assert_close(loss(LOGITS[[0, 2, 1]], TARGETS), loss(LOGITS, TARGETS))


def test_ncl_limits() -> None:
    balanced = functional.cross_entropy(LOGITS[0] + torch.tensor(COUNTS).log(), TARGETS)
    every = NestedCollaborativeLoss(COUNTS, 8)
    torch.testing.assert_close(every(LOGITS[:1], TARGETS), 2 * balanced)
    torch.testing.assert_close(every(LOGITS[:1].expand(3, -1, -1), TARGETS), 6 * balanced)
    assert NestedCollaborativeLoss([5, 1]).hard_classes == 2 and NestedCollaborativeLoss([5] * 100).hard_classes == 30


@pytest.mark.parametrize("name", LOSSES)
def test_extremes_and_permuted_classes(name: str) -> None:
    loss = LOSSES[name](COUNTS)
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
