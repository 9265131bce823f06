"""Losses of logits and class ids against loops: values, gradients, limits, and what they all have in common."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses import (
    BalancedSoftmaxLoss,
    ClassBalancedLoss,
    FocalLoss,
    LADELoss,
    LDAMLoss,
    LogitAdjustedLoss,
    VSLoss,
)

COUNTS = {
    "sorted8": (5000, 2590, 1342, 695, 360, 187, 97, 51),
    "unsorted8": (360, 51, 5000, 97, 1342, 187, 2590, 695),
    "ten": (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50),
    "fourteen": (9000, 3200, 1500, 12, 800, 450, 9, 300, 70, 1100, 30, 55, 15, 21),
    "single": (60, 1, 7, 1, 1, 20),
}
BATCHES = ("every class", "absent classes", "one image")

# Per image: its loss and the gradient of it, both without reduction.
Image = tuple[float, list[float]]


def softmax(row: Sequence[float], target: int) -> tuple[list[float], float, float]:
    """Return the probabilities, 1 - p of the target (no difference that cancels) and -log p of it."""
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    total = math.fsum(powers)
    missed = math.fsum(power for index, power in enumerate(powers) if index != target) / total
    return [power / total for power in powers], missed, math.log(total) + largest - row[target]


def cross_entropy(row: Sequence[float], target: int, slope: float = 1.0) -> Image:
    probabilities, _, value = softmax(row, target)
    return value, [slope * (p - (index == target)) for index, p in enumerate(probabilities)]


def focal(row: Sequence[float], target: int, gamma: float, detach: bool) -> Image:
    probabilities, missed, value = softmax(row, target)
    slope = missed**gamma
    if not detach:
        slope += gamma * missed ** (gamma - 1) * probabilities[target] * value
    return missed**gamma * value, cross_entropy(row, target, slope)[1]


def sigmoids(row: Sequence[float], target: int, gamma: float) -> Image:
    total, gradient = 0.0, []
    for index, value in enumerate(row):
        sign = 1 if index == target else -1
        right, wrong = 1 / (1 + math.exp(-sign * value)), 1 / (1 + math.exp(sign * value))
        total += wrong**gamma * -math.log(right)
        gradient.append(sign * (gamma * wrong**gamma * right * math.log(right) - wrong ** (gamma + 1)))
    return total, gradient


def effective(counts: Sequence[int], beta: float) -> list[float]:
    raw = [(1 - beta) / (1 - beta**count) for count in counts]
    return [value * len(counts) / math.fsum(raw) for value in raw]


def margin(row: Sequence[float], target: int, margins: Sequence[float], scale: float) -> Image:
    lowered = [scale * (value - (margins[target] if index == target else 0)) for index, value in enumerate(row)]
    return cross_entropy(lowered, target, scale)


def margins_of(counts: Sequence[int], largest: float) -> list[float]:
    return [largest * count**-0.25 / max(other**-0.25 for other in counts) for count in counts]


def shifted(row: Sequence[float], target: int, shifts: Sequence[float]) -> Image:
    return cross_entropy([value + shift for value, shift in zip(row, shifts, strict=True)], target)


def scaled(row: Sequence[float], target: int, scales: Sequence[float], shifts: Sequence[float]) -> Image:
    moved = [value * scale + shift for value, scale, shift in zip(row, scales, shifts, strict=True)]
    value, gradient = cross_entropy(moved, target)
    return value, [scale * slope for scale, slope in zip(scales, gradient, strict=True)]


@dataclass(frozen=True)
class Case:
    """A loss of class counts, and what it should be: each image's loss, weights, whether they are divided by."""

    loss: Callable[[Sequence[int]], nn.Module]
    image: Callable[[Sequence[int]], Callable[..., Image]]
    weights: Callable[[Sequence[int]], Sequence[float]] = lambda counts: [1.0] * len(counts)
    mean_of_weights: bool = False

    def expected(self, logits: np.ndarray, targets: np.ndarray, counts: Sequence[int]) -> tuple[float, np.ndarray]:
        image, weights = self.image(counts), self.weights(counts)
        images = [image(row.tolist(), int(y)) for row, y in zip(logits, targets, strict=True)]
        own = [weights[y] for y in targets]
        total = math.fsum(own) if self.mean_of_weights else len(targets)
        value = math.fsum(weight * each for weight, (each, _) in zip(own, images, strict=True)) / total
        return value, np.array([gradient for _, gradient in images]) * np.array(own)[:, None] / total


def _focal(gamma: float, detach: bool = False, weighted: bool = False) -> Case:
    weights = partial(effective, beta=0.999)
    return Case(
        lambda counts: FocalLoss(gamma, weights(counts) if weighted else None, detach=detach),
        lambda counts: partial(focal, gamma=gamma, detach=detach),
        **({"weights": weights} if weighted else {}),
    )


def _balanced(base: str, beta: float, gamma: float = 2.0) -> Case:
    image = {"softmax": cross_entropy, "sigmoid": partial(sigmoids, gamma=0), "focal": partial(sigmoids, gamma=gamma)}
    return Case(
        lambda counts: ClassBalancedLoss(counts, beta, base, gamma),
        lambda counts: image[base],
        partial(effective, beta=beta),
    )


def _margin(largest: float, scale: float, weighted: bool = False) -> Case:
    weights = partial(effective, beta=0.9999)
    return Case(
        lambda counts: LDAMLoss(counts, largest, scale, weights(counts) if weighted else None),
        lambda counts: partial(margin, margins=margins_of(counts, largest), scale=scale),
        **({"weights": weights, "mean_of_weights": True} if weighted else {}),
    )


def _adjusted(tau: float) -> Case:
    return Case(
        lambda counts: LogitAdjustedLoss(counts, tau),
        lambda counts: partial(shifted, shifts=[tau * math.log(count / sum(counts)) for count in counts]),
    )


def _vector_scaled(gamma: float, tau: float) -> Case:
    def image(counts: Sequence[int]) -> Callable[..., Image]:
        scales = [(count / max(counts)) ** gamma for count in counts]
        return partial(scaled, scales=scales, shifts=[tau * math.log(count / sum(counts)) for count in counts])

    return Case(lambda counts: VSLoss(counts, gamma, tau), image)


def _prior(counts: Sequence[int]) -> Callable[..., Image]:
    return partial(shifted, shifts=[math.log(count / sum(counts) + 1e-9) for count in counts])


CASES = {
    **{f"focal {gamma}": _focal(gamma) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)},
    "focal detached": _focal(2.0, detach=True),
    "focal weighted": _focal(2.0, weighted=True),
    **{
        f"cb {base} {beta}": _balanced(base, beta) for base in ("softmax", "sigmoid", "focal") for beta in (0.9, 0.9999)
    },
    "cb focal gamma 0.5": _balanced("focal", 0.999, 0.5),
    "ldam": _margin(0.5, 30.0),
    "ldam weighted": _margin(0.5, 30.0, weighted=True),
    "ldam other": _margin(0.3, 10.0),
    "balanced softmax": Case(BalancedSoftmaxLoss, lambda counts: partial(shifted, shifts=np.log(counts).tolist())),
    **{f"logit adjusted {tau}": _adjusted(tau) for tau in (0.0, 0.5, 1.0, 2.0)},
    **{f"vs {gamma} {tau}": _vector_scaled(gamma, tau) for gamma in (0.0, 0.3, 1.0) for tau in (0.0, 1.25)},
    "vs": replace(_vector_scaled(0.3, 1.0), loss=VSLoss),
    "lade without regulariser": Case(lambda counts: LADELoss(counts, 0.0), _prior),
    "logit adjusted": replace(_adjusted(1.0), loss=LogitAdjustedLoss),
    "focal": replace(_focal(2.0), loss=lambda counts: FocalLoss()),
}
COUNTED = (ClassBalancedLoss, LDAMLoss, BalancedSoftmaxLoss, LADELoss, LogitAdjustedLoss, VSLoss)
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def batch_of(counts: Sequence[int], kind: str = "every class", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return cosines, which every loss can take, float64 [B, K], and targets."""
    generator, size = torch.Generator().manual_seed(seed), len(counts)
    targets = {
        "every class": torch.arange(2 * size) % size,
        "absent classes": torch.tensor([size - 1, 1, 1, size - 1, 1]),
        "one image": torch.tensor([size - 2]),
    }[kind]
    logits = torch.rand(len(targets), size, dtype=torch.float64, generator=generator) * 2 - 1
    return logits, targets


def gradient_of(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    leaf = logits.detach().clone().requires_grad_()
    loss(leaf, targets).backward()
    return leaf.grad


@every
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_value_and_gradient(case: Case, counts: tuple[int, ...], kind: str) -> None:
    loss = case.loss(counts)
    for seed, width in ((1, 1.0), (2, 8.0)):
        logits, targets = batch_of(counts, kind, seed)
        logits = logits * (1.0 if isinstance(loss, LDAMLoss) else width)
        value, gradient = case.expected(logits.numpy(), targets.numpy(), counts)
        before = logits.clone(), targets.clone()
        result = loss(logits, targets)
        assert torch.equal(logits, before[0]) and torch.equal(targets, before[1])
        assert result.dtype == torch.float64 and result.shape == ()
        assert result.item() == pytest.approx(value, rel=1e-11, abs=1e-12)
        np.testing.assert_allclose(gradient_of(loss, logits, targets).numpy(), gradient, rtol=1e-9, atol=1e-12)


@every
def test_saturated_logits_stay_finite_and_odd_batches_are_refused(case: Case) -> None:
    counts = COUNTS["unsorted8"]
    targets = torch.arange(8)
    for own, others in ((100.0, -100.0), (-100.0, 100.0), (100.0, 100.0), (100.0, 0.0), (16.0, -1.0)):
        logits = torch.where(functional.one_hot(targets, 8).bool(), own, others)
        assert torch.isfinite(case.loss(counts)(logits, targets))
        assert torch.isfinite(gradient_of(case.loss(counts), logits, targets)).all()
    loss = case.loss(COUNTS["sorted8"])
    for logits, targets in (
        (torch.zeros(4, 8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(4, 8), torch.zeros(4, 8)),
        (torch.zeros(8), torch.zeros(8, dtype=torch.int64)),
        (torch.zeros(2, 8, 3), torch.zeros(2, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match=r"\[B, K\]"):
            loss(logits, targets)


@every
def test_constants_are_exact_and_part_of_the_state(case: Case) -> None:
    counts = COUNTS["fourteen"]
    logits, targets = batch_of(counts)
    loss = case.loss(counts)
    before = loss(logits, targets)
    for convert in (nn.Module.float, nn.Module.half, lambda network: network.to("cpu", torch.float32)):
        assert torch.equal(convert(nn.Sequential(loss))[0](logits, targets), before)
    source, other = COUNTS["sorted8"], COUNTS["unsorted8"]
    loss, restored = case.loss(source), case.loss(other)
    assert not list(loss.parameters())
    assert all(value.dtype == torch.float64 for value in loss.state_dict().values())
    restored.load_state_dict(loss.state_dict())
    logits, targets = batch_of(source)
    assert torch.equal(restored(logits, targets), loss(logits, targets))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_single_precision(case: Case, dtype: torch.dtype) -> None:
    loss, (logits, targets) = case.loss(COUNTS["ten"]), batch_of(COUNTS["ten"])
    logits = logits.to(dtype)
    plain = loss(logits.float(), targets)
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain, loss(logits.double(), targets).float())
    assert torch.equal(loss(logits, targets), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(logits, targets), plain)


@every
@pytest.mark.parametrize("wrong", [-1, -100, 8, 255])
def test_refuses_ids_that_are_no_class(case: Case, wrong: int) -> None:
    loss = case.loss(COUNTS["sorted8"])
    with pytest.raises(ValueError, match="targets must be class ids from 0 to 7"):
        loss(torch.zeros(3, 8), torch.tensor([0, wrong, 7]))


@every
@pytest.mark.parametrize("wrong", [-1, -100, 8])
def test_kernels_refuse_them_too(case: Case, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU nothing looks at the ids before; there the kernel must stop, and not leave images out."""
    monkeypatch.setattr("ltbench.losses._class_loss.check_class_ids", lambda *_: None)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        case.loss(COUNTS["sorted8"])(torch.zeros(3, 8), torch.tensor([0, wrong, 7]))


@pytest.mark.parametrize(
    "loss",
    [
        FocalLoss(weight=[1.0] * 8),
        ClassBalancedLoss(COUNTS["sorted8"]),
        LDAMLoss(COUNTS["sorted8"]),
        BalancedSoftmaxLoss(COUNTS["sorted8"]),
        LogitAdjustedLoss(COUNTS["sorted8"]),
        LADELoss(COUNTS["sorted8"]),
        VSLoss(COUNTS["sorted8"]),
    ],
)
def test_refuses_logits_of_another_number_of_classes(loss: nn.Module) -> None:
    for size in (1, 7, 9):
        with pytest.raises(ValueError, match=f"8 classes, got logits of {size}"):
            loss(torch.zeros(2, size), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("tau", [-1.0, -1e-9, math.nan, math.inf])
def test_adjustments_refuse_numbers_below_0_and_not_finite(tau: float) -> None:
    for loss in (LogitAdjustedLoss, VSLoss, LADELoss):
        with pytest.raises(ValueError):
            loss(COUNTS["ten"], tau)
    for loss in (VSLoss, LADELoss):
        with pytest.raises(ValueError):
            loss(COUNTS["ten"], 0.1, tau)


def test_cross_entropy_with_prior_is_balanced_softmax() -> None:
    """Up to what its code adds to shares, 1e-9, which is 1e-9 / share of a logit."""
    for counts in COUNTS.values():
        logits, targets = batch_of(counts)
        plain = BalancedSoftmaxLoss(counts)(logits, targets).item()
        shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        assert functional.cross_entropy(logits + shares.log(), targets).item() == pytest.approx(plain, abs=1e-9)
        assert LADELoss(counts, 0.0)(logits, targets).item() == pytest.approx(plain, abs=1e-9 / shares.min().item())


@pytest.mark.parametrize("loss", COUNTED)
@pytest.mark.parametrize("counts", [[5, 0], [5, -1], [], [[1, 2]], 5, [1.0, math.nan], [1.0, math.inf]])
def test_refuses_counts(loss: Callable[..., nn.Module], counts: object) -> None:
    with pytest.raises(ValueError):
        loss(counts)


@pytest.mark.parametrize("loss", COUNTED)
@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_takes_lists_arrays_and_tensors(loss: Callable[..., nn.Module], kind: Callable) -> None:
    counts = COUNTS["sorted8"]
    logits, targets = batch_of(counts)
    assert torch.equal(loss(kind(list(counts)))(logits, targets), loss(counts)(logits, targets))
