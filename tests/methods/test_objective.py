"""The base objective: each is the method of its name to the bit, and mixed batches mix losses."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
from mean_colour import MeanColour, method_on_colour
from torch.nn import functional

from ltbench.losses import LDAMLoss, effective_number_weights
from ltbench.methods import Batch, Plateau, Progress, Task, hp
from ltbench.methods._objective import OBJECTIVES, MixedBatch, ObjectiveMethod

COUNTS = np.array([10, 400, 5], dtype=np.int64)
BASES = {"ce": "ce", "balanced_softmax": "balanced_softmax", "ldam_drw": "ldam"}


class Bare(ObjectiveMethod):
    name = "bare"

    @dataclass(frozen=True)
    class Config:
        objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp("ce", sweep=OBJECTIVES, source="test")


def bare(objective: Any) -> Bare:
    torch.manual_seed(0)
    return Bare(Bare.Config(objective), Task(3, COUNTS, 8), MeanColour())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("epoch", [7, 8])
def test_a_plain_batch_costs_what_it_costs_the_method_of_that_name(objective: str, epoch: int, batch: Batch) -> None:
    method, base = bare(objective), method_on_colour(BASES[objective], counts=COUNTS)
    progress = Progress(epoch, 10)
    losses = [each.loss(batch, progress)["loss"] for each in (method, base)]
    assert torch.equal(*losses) and torch.equal(method.predict(batch.images), base.predict(batch.images))
    losses[0].backward()
    losses[1].backward()
    assert torch.equal(method.backbone.layer.weight.grad, base.backbone.layer.weight.grad)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("epoch", [7, 8])
def test_one_share_mixes_two_losses(objective: str, epoch: int, batch: Batch) -> None:
    method, progress = bare(objective), Progress(epoch, 10)
    scores, others = method.scores(method.features(batch.images)), batch.targets.flip(0)
    one, two = (method.objective_loss(scores, targets, progress) for targets in (batch.targets, others))
    mixed = batch.extended(MixedBatch, others=others, share=0.3)
    torch.testing.assert_close(method.loss(mixed, progress)["loss"], 0.3 * one + 0.7 * two)
    each = batch.extended(MixedBatch, others=others, share=torch.full((6,), 0.3))
    torch.testing.assert_close(method.loss(each, progress)["loss"], 0.3 * one + 0.7 * two)


def test_a_share_of_each_image_is_inside_the_weighted_mean(batch: Batch) -> None:
    method, share = bare("ldam_drw"), torch.rand(6, generator=torch.Generator().manual_seed(0))
    scores = method.scores(method.features(batch.images))
    weights = effective_number_weights(COUNTS, 0.9999).float()[batch.targets]
    alone = LDAMLoss(COUNTS)
    each = [alone(scores[row : row + 1], batch.targets[row : row + 1]) for row in range(6)]
    expected = sum(v * w * loss for v, w, loss in zip(share, weights, each, strict=True)) / weights.sum()
    torch.testing.assert_close(method.objective_loss(scores, batch.targets, Progress(9, 10), share), expected)
    expected = sum(v * loss for v, loss in zip(share, each, strict=True)) / 6
    torch.testing.assert_close(method.objective_loss(scores, batch.targets, Progress(0, 10), share), expected)


def test_soft_labels_are_mixed_losses_of_cross_entropy(batch: Batch) -> None:
    method, others = bare("ce"), batch.targets.flip(0)
    soft = 0.25 * functional.one_hot(batch.targets, 3) + 0.75 * functional.one_hot(others, 3)
    loss = method.loss(batch.extended(MixedBatch, others=others, share=0.25), Progress(0, 1))["loss"]
    torch.testing.assert_close(loss, functional.cross_entropy(method.predict(batch.images), soft))


@pytest.mark.parametrize(("objective", "after"), [("ce", 0), ("balanced_softmax", 0), ("ldam_drw", 8)])
def test_early_stopping_counts_from_the_class_weights_on(objective: str, after: int) -> None:
    class Run:
        epochs = 10

        def early_stopping(self, after: int = 0) -> Plateau:
            return Plateau(3, after)

    (stage,) = bare(objective).stages(Run())
    assert stage.stop == Plateau(3, after=after) and (stage.name, stage.epochs) == ("train", 10)
