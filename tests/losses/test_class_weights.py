"""Class weights: their sum, their limits, their digits where 1 - beta ** n has none."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ltbench.losses import (
    effective_number_weights,
    inverse_frequency_weights,
    logarithmic_weights,
    power_weights,
    square_root_weights,
)

R100 = (5000, 2590, 1342, 695, 360, 187, 97, 51)
UNSORTED = (360, 51, 5000, 97, 1342, 187, 2590, 695)
SCHEMES: dict[str, Callable[..., Tensor]] = {
    "inverse": inverse_frequency_weights,
    "sqrt": square_root_weights,
    "effective": partial(effective_number_weights, beta=0.9999),
    "power": power_weights,
}
scheme = pytest.mark.parametrize("weights", SCHEMES.values(), ids=SCHEMES)


def exact_effective(counts: tuple[int, ...], beta: float) -> list[float]:
    """Return the effective-number weights of a binary64 beta, computed with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        raw = [(1 - Decimal(beta)) / (1 - Decimal(beta) ** count) for count in counts]
        return [float(value * len(counts) / sum(raw)) for value in raw]


@scheme
@pytest.mark.parametrize("counts", [R100, UNSORTED, (1, 1), (7,), (1, 10**9)])
def test_sum_to_the_number_of_classes(weights: Callable[..., Tensor], counts: tuple[int, ...]) -> None:
    result = weights(counts)
    assert result.dtype == torch.float64 and result.shape == (len(counts),) and (result > 0).all()
    assert result.sum().item() == pytest.approx(len(counts), rel=1e-14)


@scheme
def test_weights_follow_counts_whatever_their_order(weights: Callable[..., Tensor]) -> None:
    torch.testing.assert_close(weights([37] * 5), torch.ones(5, dtype=torch.float64), rtol=1e-14, atol=0)
    order = [3, 0, 7, 1, 6, 2, 5, 4]
    permuted = weights([UNSORTED[index] for index in order])
    torch.testing.assert_close(permuted, weights(UNSORTED)[order], rtol=1e-14, atol=0)


@scheme
@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_takes_lists_arrays_and_tensors(weights: Callable[..., Tensor], kind: Callable) -> None:
    assert torch.equal(weights(kind(list(R100))), weights(R100))


@scheme
@pytest.mark.parametrize("counts", [[5, 0], [5, -1], [], [[1, 2]], 5, [1.0, float("nan")], [1.0, float("inf")]])
def test_refuses_counts_that_are_none(weights: Callable[..., Tensor], counts: object) -> None:
    with pytest.raises(ValueError):
        weights(counts)


@pytest.mark.parametrize("weights", [inverse_frequency_weights, square_root_weights, power_weights])
def test_depend_on_proportions_alone(weights: Callable[..., Tensor]) -> None:
    scaled = weights([1000 * count for count in R100])
    torch.testing.assert_close(scaled, weights(R100), rtol=1e-13, atol=0)


@pytest.mark.parametrize("counts", [R100, UNSORTED, (7, 1, 1)])
def test_known_values(counts: tuple[int, ...]) -> None:
    for weights, power in ((inverse_frequency_weights, -1), (square_root_weights, -0.5)):
        raw = [count**power for count in counts]
        np.testing.assert_allclose(weights(counts), [len(raw) * each / math.fsum(raw) for each in raw], rtol=1e-13)
    expected = torch.tensor([2 / 3, 1.0], dtype=torch.float64)  # (1 - b) / (1 - b ** n) of b = 1/2: 2/3 and 1
    torch.testing.assert_close(effective_number_weights([2, 1], 0.5), expected * 2 / expected.sum())
    assert torch.equal(effective_number_weights(R100, 0.0), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("beta", [1e-300, 0.5, 0.9, 0.9999, 0.9999999, 1 - 1e-9, 1 - 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("counts", [R100, (1, 2, 3), (100_000, 11)])
def test_effective_number_keeps_its_digits(counts: tuple[int, ...], beta: float) -> None:
    np.testing.assert_allclose(effective_number_weights(counts, beta), exact_effective(counts, beta), rtol=1e-13)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
def test_effective_number_refuses_beta(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        effective_number_weights(R100, beta)


def test_powers_contain_the_other_schemes() -> None:
    for rho, expected in ((0.0, torch.ones(8, dtype=torch.float64)), (1.0, inverse_frequency_weights(UNSORTED))):
        torch.testing.assert_close(power_weights(UNSORTED, rho), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(power_weights(UNSORTED, 0.5), square_root_weights(UNSORTED), rtol=1e-13, atol=0)
    raw = [(count / sum(UNSORTED)) ** -1.2 for count in UNSORTED]
    np.testing.assert_allclose(power_weights(UNSORTED), [8 * each / sum(raw) for each in raw], rtol=1e-12)
    assert (power_weights([1, 10**9], 40.0) >= 0).all()
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            power_weights(R100, wrong)


def test_logarithmic_weights_are_one_for_the_most_frequent_class() -> None:
    result = logarithmic_weights(UNSORTED)
    np.testing.assert_allclose(result, [1 - math.log(count / 5000) for count in UNSORTED], rtol=1e-13)
    assert result.dtype == torch.float64 and result[2] == 1 and (result >= 1).all()
    assert torch.equal(logarithmic_weights([37] * 5), torch.ones(5, dtype=torch.float64))
