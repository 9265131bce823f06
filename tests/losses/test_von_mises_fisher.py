"""ProCo's closed form: Bessel functions by another library, the expectation by sampling, and its limits."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor
from torch.nn import functional

from ltbench.losses import LogitAdjustedLoss, ProbabilisticContrastiveLoss
from ltbench.losses.representation.von_mises_fisher import scaled_log_bessel

COUNTS = [40, 1, 13]


def unit(rows: int, seed: int, dimension: int = 32) -> Tensor:
    draws = torch.randn(rows, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(draws, dim=1)


@pytest.mark.parametrize(("order", "error"), [(15, 5e-6), (63, 7e-8), (511, 2e-10)])
def test_bessel_functions(order: int, error: float) -> None:
    x = torch.logspace(-2, 5, 200, dtype=torch.float64).requires_grad_()
    found = scaled_log_bessel(order, x)
    own = x.detach().numpy()
    scaled = special.ive(order, own)
    known = scaled > 1e-300  # the library underflows below
    exact = np.log(scaled[known]) + own[known] - order * np.log(own[known])
    assert known.sum() > 60 and np.abs(found.detach().numpy()[known] - exact).max() < error
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert (slope > 0).all() and (slope < 1).all()
    ratio = special.ive(order + 1, own[known]) / scaled[known]
    assert slope.numpy()[known] == pytest.approx(ratio, abs=error, rel=error)
    assert math.isfinite(scaled_log_bessel(order, torch.zeros(())).item())


def slowly(u: Tensor, means: Tensor, temperature: float) -> Tensor:
    """Write the definition one pair at a time, with both logarithms."""
    dimension, rows = u.shape[1], []
    order = dimension / 2 - 1

    def log_bessel(x: Tensor) -> Tensor:
        t = x / order
        s = (1 + t * t).sqrt()
        u1, u2 = 3 / s - 5 / s**3, 81 / s**2 - 462 / s**4 + 385 / s**6
        series = 1 + u1 / 24 / order + u2 / 1152 / order**2
        return order * (s + (t / (1 + s)).log()) - (2 * math.pi * order * s).log() / 2 + series.log()

    for each in u:
        row = []
        for mean in means:
            r = mean.norm()
            kappa = dimension * r / (1 - r * r)
            kappa = torch.tensor(1e5).double() if kappa > 1e5 or kappa < 0 else kappa
            x = (kappa * mean / r + each / temperature).norm()
            row.append(log_bessel(x) - order * x.log() - log_bessel(kappa) + order * kappa.log())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def test_logits_loss_and_gradient_are_the_definitions() -> None:
    u = unit(4, 1).requires_grad_()
    means = unit(3, 2) * torch.tensor([[0.3], [0.999999], [1.0 + 1e-9]], dtype=torch.float64)
    targets, loss = torch.tensor([2, 0, 1, 0]), ProbabilisticContrastiveLoss(COUNTS, 0.1)
    wanted = slowly(u, means, 0.1)
    torch.testing.assert_close(loss.logits(u, means), wanted, rtol=0, atol=1e-9)
    values = loss(u, targets, means), LogitAdjustedLoss(COUNTS)(wanted, targets)
    torch.testing.assert_close(*values, rtol=0, atol=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(each, u)[0] for each in values), rtol=0, atol=1e-9)


def test_logits_are_the_expectation_over_the_distribution() -> None:
    u, mean = unit(1, 1), 0.6 * unit(1, 2)
    kappa = 32 * 0.6 / (1 - 0.36)
    drawn = stats.vonmises_fisher(mean[0].numpy() / 0.6, kappa).rvs(50_000, random_state=0)
    sampled = math.log(np.exp(drawn @ u[0].numpy() / 0.5).mean())
    logit = ProbabilisticContrastiveLoss([1], 0.5).logits(u, mean).item()
    assert logit == pytest.approx(sampled, abs=1e-2)


def test_limits_of_the_concentration() -> None:
    u, directions, loss = unit(5, 1), unit(3, 2), ProbabilisticContrastiveLoss(COUNTS, 0.1)
    tight = loss.logits(u, directions)  # kappa is 1e5
    torch.testing.assert_close(tight, u @ directions.T / 0.1, rtol=0, atol=3e-2)
    for loose in (0 * directions, 1e-9 * directions):
        values = loss.logits(u, loose)
        torch.testing.assert_close(values, values[:1, :1].expand(5, 3), rtol=0, atol=1e-6)


def test_single_precision_opposite_vectors_and_what_is_refused() -> None:
    loss, targets = ProbabilisticContrastiveLoss(COUNTS, 1e-5), torch.tensor([0, 1, 2])
    means = unit(3, 2).float()
    u = (-means).requires_grad_()  # kappa mu and u / tau cancel
    value = loss(u, targets, means)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and u.grad.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(u, targets, means), value)
    for vectors, others in ((unit(3, 1, 31), unit(3, 1, 31)), (unit(3, 1), unit(3, 1, 33)), (unit(3, 1)[0], means)):
        with pytest.raises(ValueError):
            loss.logits(vectors, others)
