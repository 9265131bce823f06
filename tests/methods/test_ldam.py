"""LDAM: the normalised head, margins in training alone, deferred weights and early stopping."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import MeanColour, method_on_colour
from torch import nn
from torch.nn import functional

from ltbench.losses import LDAMLoss, effective_number_weights
from ltbench.methods import Batch, Method, Plateau, Progress, Stage, Task
from ltbench.methods.ldam import LabelDistributionAwareMargin, NormedLinear

COUNTS = np.array([10, 400, 5], dtype=np.int64)
method_of = partial(method_on_colour, "ldam", counts=COUNTS)


@dataclass
class Protocol:
    """What `stages` asks of a run."""

    epochs: int
    patience: int = 3

    def early_stopping(self, after: int = 0, best: float = -np.inf) -> Plateau:
        return Plateau(self.patience, after, best)


def stage_of(method: Method, epochs: int) -> Stage:
    (stage,) = method.stages(Protocol(epochs))
    return stage


def cosines_of(method: Method, batch: Batch) -> torch.Tensor:
    features = functional.normalize(method.backbone(batch.images), dim=1)
    return features @ functional.normalize(method.head.weight, dim=0)


def test_head_starts_with_unit_class_vectors_and_has_no_bias() -> None:
    head = NormedLinear(20, 7)
    assert [tuple(parameter.shape) for parameter in head.parameters()] == [(20, 7)]
    torch.testing.assert_close(head.weight.detach().norm(dim=0), torch.ones(7))
    before = head.weight.detach().clone()
    head.reset_parameters()
    assert not torch.equal(head.weight, before) and (head.weight < 0).any() and (head.weight > 0).any()


def test_margins_are_in_training_and_weights_only_if_deferred(batch: Batch) -> None:
    method = method_of(drw=False, max_margin=0.3, scale=10.0)
    expected = LDAMLoss(COUNTS, 0.3, 10.0)(cosines_of(method, batch), batch.targets)
    loss = method.loss(batch, Progress(0, 1))["loss"]
    torch.testing.assert_close(loss, expected)
    assert loss > functional.cross_entropy(method.predict(batch.images), batch.targets)
    method = method_of(drw=False)
    assert len({method.loss(batch, Progress(epoch, 10))["loss"].item() for epoch in range(10)}) == 1
    assert stage_of(method, 10).stop == Plateau(3)


def test_computes_in_single_precision_under_autocast(batch: Batch) -> None:
    method = method_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, loss = method.features(batch.images), method.loss(batch, Progress(0, 10))["loss"]
        logits = method.classify(features)
    assert logits.dtype == loss.dtype == torch.float32
    assert torch.equal(logits, method.classify(features))
    assert torch.equal(loss, method.loss_function(method.head(features), batch.targets))


@pytest.mark.parametrize(
    ("epochs", "switch"),
    [(1, 0), (2, 1), (5, 4), (6, 4), (15, 12), (30, 24), (35, 28), (99, 79), (100, 80), (400, 320)],
)
def test_weights_begin_after_four_fifths_of_the_epochs(batch: Batch, epochs: int, switch: int) -> None:
    method = method_of()
    cosines = cosines_of(method, batch)
    plain = LDAMLoss(COUNTS)(cosines, batch.targets)
    weighted = LDAMLoss(COUNTS, weight=effective_number_weights(COUNTS, 0.9999))(cosines, batch.targets)
    assert not torch.allclose(plain, weighted)
    for epoch in range(epochs):
        loss = method.loss(batch, Progress(epoch, epochs))["loss"]
        torch.testing.assert_close(loss, weighted if epoch >= switch else plain)
    assert stage_of(method, epochs).stop == Plateau(3, after=switch)


@pytest.mark.parametrize(("start", "epochs", "switch"), [(0.29, 100, 29), (0.57, 100, 57), (0.0, 10, 0), (1.0, 10, 10)])
def test_the_switch_is_exact_where_the_product_is_not(batch: Batch, start: float, epochs: int, switch: int) -> None:
    """In binary, 0.29 * 100 lies just below 29."""
    method = method_of(drw_start=start)
    losses = [method.loss(batch, Progress(epoch, epochs))["loss"].item() for epoch in range(epochs)]
    assert losses[:switch] == [losses[0]] * switch and losses[switch:] == [losses[-1]] * (epochs - switch)
    assert stage_of(method, epochs).stop.after == switch
    assert 0 in (switch, epochs - switch) or losses[switch - 1] != losses[switch]


@pytest.mark.parametrize("head", [nn.Linear(4, 3), nn.Identity()])
def test_another_head_is_refused(head: nn.Module) -> None:
    class Unnormalised(LabelDistributionAwareMargin):
        def build(self) -> None:
            super().build()
            self.head = head

    with pytest.raises(TypeError, match=f"Unnormalised needs a NormedLinear head, got {type(head).__name__}"):
        Unnormalised(Unnormalised.Config(), Task(3, COUNTS, 8), MeanColour())


def test_a_head_of_a_subclass_is_taken() -> None:
    class Own(NormedLinear):
        pass

    class Variant(LabelDistributionAwareMargin):
        def build(self) -> None:
            super().build()
            self.head = Own(4, 3)

    Variant(Variant.Config(), Task(3, COUNTS, 8), MeanColour())
