"""Barlow Twins against loops; further positives of InfoNCE against loops."""

import pytest
import torch

from ltbench.losses import BarlowTwinsLoss, InfoNCELoss


def vectors(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lam", [5e-3, 0.0, 1.0])
def test_barlow_twins_is_its_formula(lam: float) -> None:
    first, second = vectors(7, 3, 0).requires_grad_(), vectors(7, 3, 1).requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            a, b = (each - sum(each) / 7 for each in (first[:, i], second[:, j]))
            c = sum(a * b) / (sum(a**2) * sum(b**2)).sqrt()
            expected = expected + ((1 - c) ** 2 if i == j else lam * c**2)
    values = BarlowTwinsLoss(lam)(first, second), expected
    torch.testing.assert_close(*values, rtol=1e-11, atol=0)
    for one, other in zip(*(torch.autograd.grad(each, (first, second)) for each in values), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_barlow_twins_of_equal_whitened_views_is_0_and_of_constant_ones_finite() -> None:
    centred = vectors(9, 4, 0) - vectors(9, 4, 0).mean(0)
    white = torch.linalg.qr(centred).Q
    assert BarlowTwinsLoss()(white, 3 * white + 1).item() == pytest.approx(0, abs=1e-20)
    same = torch.ones(4, 3, requires_grad=True)
    loss = BarlowTwinsLoss()(same, torch.ones(4, 3))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(same.grad).all()
    with pytest.raises(ValueError):
        BarlowTwinsLoss()(centred, centred[:, :2])
    with pytest.raises(ValueError):
        BarlowTwinsLoss(-1.0)


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_further_positives_share_the_loss_of_a_query(weight: float) -> None:
    queries, keys, queue = (vectors(rows, 3, rows) for rows in (3, 3, 5))
    queries.requires_grad_()
    positives = torch.tensor([[1, 0, 0, 1, 0], [0] * 5, [0, 0, 1, 0, 0]]).bool()
    excluded = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]).bool()
    q, k, others = (each / each.norm(dim=1, keepdim=True) for each in (queries, keys, queue))
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        own = (q[i] @ k[i] / 0.2).exp()
        rest = [(q[i] @ k[j] / 0.2).exp() for j in range(3) if j != i]
        queued = {j: (q[i] @ others[j] / 0.2).exp() for j in range(5) if not excluded[i, j]}
        total = own + weight * (sum(rest) + sum(queued.values()))
        chosen = [own, *(queued[j] for j in range(5) if positives[i, j])]
        expected = expected - sum((each / total).log() for each in chosen) / len(chosen) / 3
    options = {"negative_weight": weight, "excluded": excluded}
    found = InfoNCELoss(0.2)(queries, keys, queue, positives=positives, **options)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
    gradients = (torch.autograd.grad(each, queries, retain_graph=True)[0] for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)
    none = InfoNCELoss(0.2)(queries, keys, queue, positives=torch.zeros(3, 5, dtype=torch.bool), **options)
    torch.testing.assert_close(none, InfoNCELoss(0.2)(queries, keys, queue, **options))
