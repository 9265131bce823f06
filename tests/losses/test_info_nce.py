"""InfoNCE against its formula written as loops."""

import pytest
import torch
from torch import Tensor

from ltbench.losses import InfoNCELoss


def vectors(rows: int, dimension: int, seed: int) -> Tensor:
    return torch.randn(rows, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_query(query: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float) -> Tensor:
    """Return -log(e^{q.k+ / T} / (e^{q.k+ / T} + sum e^{q.k- / T})) of unit vectors."""
    right = (query @ positive / temperature).exp()
    return -(right / (right + sum((query @ other / temperature).exp() for other in negatives))).log()


def unit(rows: Tensor) -> list[Tensor]:
    return [row / (row @ row).sqrt() for row in rows]


def in_batch(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    views, count = unit(first) + unit(second), len(first)
    losses = []
    for index, query in enumerate(views):
        other = (index + count) % (2 * count)
        negatives = [view for place, view in enumerate(views) if place not in (index, other)]
        losses.append(one_query(query, views[other], negatives, temperature))
    return sum(losses) / len(losses)


def queued(first: Tensor, second: Tensor, queue: Tensor, temperature: float) -> Tensor:
    queries, keys, losses = unit(first), unit(second), []
    for index, query in enumerate(queries):
        negatives = keys[:index] + keys[index + 1 :] + unit(queue)
        losses.append(one_query(query, keys[index], negatives, temperature))
    return sum(losses) / len(losses)


def same_with_gradients(found: Tensor, wanted: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(each, inputs, retain_graph=True) for each in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_views_of_a_batch(batch: int, temperature: float) -> None:
    first, second = vectors(batch, 6, seed=1).requires_grad_(), vectors(batch, 6, seed=2).requires_grad_()
    found, wanted = InfoNCELoss(temperature)(first, second), in_batch(first, second, temperature)
    same_with_gradients(found, wanted, [first, second])


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize(("batch", "length"), [(1, 3), (4, 1), (4, 0), (5, 9)])
def test_keys_and_queue(batch: int, length: int, temperature: float) -> None:
    first, second, queue = vectors(batch, 6, seed=1), vectors(batch, 6, seed=2), vectors(length, 6, seed=3)
    first.requires_grad_()
    found, wanted = InfoNCELoss(temperature)(first, second, queue), queued(first, second, queue, temperature)
    same_with_gradients(found, wanted, [first])


def test_temperature_defaults_to_the_usual_one() -> None:
    first, second = vectors(4, 3, seed=1), vectors(4, 3, seed=2)
    assert torch.equal(InfoNCELoss()(first, second), InfoNCELoss(0.07)(first, second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_type(dtype: torch.dtype) -> None:
    first, second = vectors(4, 3, seed=1).to(dtype), vectors(4, 3, seed=2).to(dtype)
    for value in (InfoNCELoss()(first, second), InfoNCELoss()(first, second, second)):
        assert value.dtype == dtype and value.shape == ()


def test_keys_of_a_queue_do_not_learn_and_views_of_a_batch_do() -> None:
    first, second, queue = (vectors(4, 4, seed=seed).requires_grad_() for seed in (1, 2, 3))
    InfoNCELoss()(first, second, queue).backward()
    assert first.grad is not None and first.grad.abs().sum() > 0
    assert second.grad is None and queue.grad is None
    first, second = vectors(4, 4, seed=1).requires_grad_(), vectors(4, 4, seed=2).requires_grad_()
    InfoNCELoss()(first, second).backward()
    assert first.grad.abs().sum() > 0 and second.grad.abs().sum() > 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_refuses_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        InfoNCELoss(temperature)


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((4,), (4,)), ((2, 3, 4), (2, 3, 4))])
def test_refuses_views_that_do_not_match(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="views"):
        InfoNCELoss()(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_weighted_and_excluded_negatives() -> None:
    generator = torch.Generator().manual_seed(7)
    first, second = torch.randn(1, 6, generator=generator), torch.randn(1, 6, generator=generator)
    negatives = torch.randn(5, 6, generator=generator)
    weighted = InfoNCELoss()(first, second, negatives, negative_weight=3.0)
    torch.testing.assert_close(weighted, InfoNCELoss()(first, second, negatives.repeat(3, 1)))
    generator = torch.Generator().manual_seed(8)
    first, second, negatives = (torch.randn(count, 6, generator=generator) for count in (1, 1, 5))
    excluded = torch.tensor([[False, True, False, True, True]])
    value = InfoNCELoss()(first, second, negatives, excluded=excluded)
    torch.testing.assert_close(value, InfoNCELoss()(first, second, negatives[~excluded[0]]))


def test_similarities_keep_their_digits_under_autocast() -> None:
    generator = torch.Generator().manual_seed(9)
    first, second, negatives = (torch.randn(count, 32, generator=generator) for count in (8, 8, 20))
    for queue in (None, negatives):
        plain = InfoNCELoss()(first, second, queue)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(InfoNCELoss()(first, second, queue), plain, rtol=0, atol=0)
