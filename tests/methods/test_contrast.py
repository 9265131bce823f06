"""Momentum contrast: the queue, the moving average, what learns and what is kept."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltbench.losses import InfoNCELoss
from ltbench.methods import Batch, Progress
from ltbench.methods._contrast import MomentumContrast

DIMENSION = 3


class Tiny(nn.Module):
    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def contrast(queue_size: int = 8, momentum: float = 0.9) -> tuple[Tiny, MomentumContrast]:
    torch.manual_seed(0)
    backbone = Tiny()
    built = MomentumContrast(backbone, queue_size=queue_size, momentum=momentum, temperature=0.2, dimension=DIMENSION)
    return backbone, built


def batch(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(size, 3, 2, 2, generator=generator) for _ in range(2))
    return Batch(views, torch.zeros(size, dtype=torch.long), 100 * seed + np.arange(size))


def keys_of(built: MomentumContrast, images: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.normalize(built.key_projector(built.key_backbone(images)), dim=1)


def step(built: MomentumContrast, backbone: Tiny, seed: int, size: int = 3) -> dict[str, Any]:
    return dict(built.loss_on(backbone)(batch(size, seed), Progress(0, 1)))


def test_queue_fills_and_wraps() -> None:
    backbone, built = contrast(queue_size=8, momentum=0.0)
    written = []
    for seed in range(4):
        step(built, backbone, seed)
        written.append(keys_of(built, batch(3, seed).views[1]))
        kept = torch.cat(written)
        expected = torch.zeros(8, DIMENSION)
        for index, key in enumerate(kept):
            expected[index % 8] = key
        torch.testing.assert_close(built.queue, expected)
    backbone, built = contrast(queue_size=2)
    step(built, backbone, seed=0, size=5)
    rows = {tuple(row) for row in built.queue.numpy().round(5).tolist()}
    expected = keys_of(built, batch(5, 0).views[1])[-2:]
    assert rows == {tuple(row) for row in expected.numpy().round(5).tolist()}


def test_empty_places_and_keys_of_the_same_image_are_no_negatives() -> None:
    backbone, built = contrast(queue_size=8)
    for seed, known in ((0, 0), (1, 3), (2, 6), (3, 8)):
        queue = built.queue[:known].clone()
        value = step(built, backbone, seed)["loss"]
        first, second = batch(3, seed).views
        weight = (8 + 2) / (known + 2)  # the keys that are there stand for a full queue
        queries, keys = built.projector(backbone(first)), keys_of(built, second)
        expected = InfoNCELoss(0.2)(queries, keys, queue, negative_weight=weight)
        torch.testing.assert_close(value, expected)
    backbone, built = contrast(queue_size=6)
    step(built, backbone, seed=0)
    shown = built.shown.tolist()
    assert shown[:3] == batch(3, 0).indices.tolist() and shown[3:] == [-1, -1, -1]
    first, second = batch(3, 0).views
    queue, others = built.queue[:3].clone(), ~torch.eye(3, dtype=torch.bool)
    queries, keys = built.projector(backbone(first)), keys_of(built, second)
    keyed = InfoNCELoss(0.2)(queries, keys, queue, negative_weight=8 / 5, excluded=~others)
    torch.testing.assert_close(step(built, backbone, seed=0)["loss"], keyed)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_keys_follow_as_a_moving_average(momentum: float) -> None:
    backbone, built = contrast(momentum=momentum)
    before = {name: value.clone() for name, value in built.named_parameters() if name.startswith("key_")}
    with torch.no_grad():
        for parameter in [*backbone.parameters(), *built.projector.parameters()]:
            parameter.add_(torch.randn(parameter.shape))
    step(built, backbone, seed=0)
    online = {f"key_backbone.{name}": value for name, value in backbone.named_parameters()}
    online |= {f"key_projector.{name}": value for name, value in built.projector.named_parameters()}
    assert before.keys() == online.keys()
    for name, value in built.named_parameters():
        if name in before:
            torch.testing.assert_close(value, momentum * before[name] + (1 - momentum) * online[name])


def test_only_the_query_side_learns() -> None:
    backbone, built = contrast()
    step(built, backbone, seed=0)
    step(built, backbone, seed=1)["loss"].backward()
    learning = [*backbone.parameters(), *built.projector.parameters()]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learning)
    following = [*built.key_backbone.parameters(), *built.key_projector.parameters()]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in following)
    assert not built.queue.requires_grad
    backbone, built = contrast()
    assert not {id(parameter) for parameter in backbone.parameters()} & {id(each) for each in built.parameters()}
    for mine, copied in zip(backbone.parameters(), built.key_backbone.parameters(), strict=True):
        assert torch.equal(mine, copied)
    backbone, built = contrast()
    alignment = step(built, backbone, seed=0)["alignment"]
    assert not alignment.requires_grad and -1 <= alignment.item() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_checkpoint_goes_on_where_it_stopped(steps: int) -> None:
    backbone, built = contrast(queue_size=7)
    for seed in range(steps):
        step(built, backbone, seed)
    buffer = io.BytesIO()
    torch.save(built.state_dict(), buffer)
    buffer.seek(0)
    other_backbone, restored = contrast(queue_size=7)
    other_backbone.load_state_dict(backbone.state_dict())
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    for seed in range(10, 14):
        value, again = (step(*pair, seed)["loss"] for pair in ((built, backbone), (restored, other_backbone)))
        assert torch.equal(value, again)
    assert torch.equal(built.queue, restored.queue)
