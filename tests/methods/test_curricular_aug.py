"""CUDA: strengths by the levels of classes, and how levels move."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, EpochReport, Progress
from ltbench.methods.curricular_aug import _OPERATIONS, Draws, augmented

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
method = partial(method_on_colour, "curricular_aug", counts=COUNTS)
NOW, END = Progress(0, 1), EpochReport("train", 0, {}, 1, 1, 0.0)


def batch(rows: int = 12) -> Batch:
    images = torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.tensor([0, 3, 0, 2]).repeat(rows // 4), np.arange(rows))  # without class 1


def one(operation: str, strength: int, sign: float = 1.0) -> torch.Tensor:
    images = batch().images
    drawn = torch.full((12, 10), _OPERATIONS.index(operation))
    return augmented(images, torch.full((12,), strength), Draws(drawn, torch.full((12, 10), sign)))


def test_operations() -> None:
    images = batch().images
    for name in _OPERATIONS:
        assert torch.equal(one(name, 0), images)
        assert not torch.allclose(one(name, 3), images) and one(name, 10).isfinite().all()
    torch.testing.assert_close(one("mirror", 1), images.flip(3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one("flip", 2), images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one("brightness", 2, -1.0), images - 2 * 0.9 * 2 / 30, rtol=1e-4, atol=1e-4)
    middle = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(one("contrast", 1), middle + (1 + 0.9 / 30) * (images - middle), rtol=1e-4, atol=1e-4)
    assert (one("shear_x", 10) - images).abs().mean() > (one("shear_x", 1) - images).abs().mean()


def test_half_of_the_images_are_augmented_up_to_the_level_of_their_class() -> None:
    given, cuda = batch(400), method()
    cuda.levels.copy_(torch.tensor([3, 0, 1, 10]))
    mixed = cuda.transform(given, np.random.default_rng(0))
    for label, level in ((0, 3), (2, 1), (3, 10)):
        shares = torch.bincount(mixed.strengths[given.targets == label], minlength=11) / (given.targets == label).sum()
        wanted = torch.zeros(11)
        wanted[: level + 1] = 0.5 / (level + 1)
        wanted[0] += 0.5
        torch.testing.assert_close(shares, wanted, rtol=0, atol=0.12)
    same = (mixed.images == given.images).flatten(1).all(dim=1)
    assert torch.equal(same, mixed.strengths == 0) and mixed.targets is given.targets


@pytest.mark.parametrize(("options", "levels"), [({"threshold": -1.0}, [10, 0, 10, 10]), ({"threshold": 1.0}, [0] * 4)])
def test_limits_of_the_threshold(options: dict[str, Any], levels: list[int]) -> None:
    cuda, rng = method(**options), np.random.default_rng(0)
    for epoch in range(12):
        cuda.loss(cuda.transform(batch(), rng), NOW)
        cuda.on_epoch_end(END)
        assert epoch >= 10 or cuda.levels.max() == min(epoch + 1, max(levels))
    assert cuda.levels.tolist() == levels


def test_a_level_rises_where_all_its_strengths_are_learned() -> None:
    cuda = method()
    cuda.levels.copy_(torch.tensor([2, 2, 2, 2]))
    cuda.seen[:, :3] = torch.tensor([[10, 10, 10], [0, 0, 0], [10, 10, 10], [5, 0, 5]])
    cuda.right[:, :3] = torch.tensor([[7, 7, 7], [0, 0, 0], [7, 6, 7], [4, 0, 4]])
    cuda.on_epoch_end(END)
    assert cuda.levels.tolist() == [3, 2, 1, 3] and cuda.seen.sum() == 0


def test_right_answers_are_counted_and_the_loss_is_the_objective() -> None:
    given, cuda = batch(), method()
    mixed = cuda.transform(given, np.random.default_rng(0))
    logits = cuda.predict(mixed.images)
    torch.testing.assert_close(cuda.loss(mixed, NOW)["loss"], functional.cross_entropy(logits, given.targets))
    right = logits.argmax(1) == given.targets
    assert cuda.seen[:, 0].tolist() == [6, 0, 3, 3] and cuda.right.sum() == right.sum()
    assert method(probability=0.0).transform(given, np.random.default_rng(0)) is given
