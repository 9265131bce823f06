"""CB: the three forms of the loss, and the head bias of those with sigmoids."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import ClassBalancedLoss, effective_number_weights
from ltbench.methods import Batch, Progress

COUNTS = np.array([10, 40, 5], dtype=np.int64)
method_of = partial(method_on_colour, counts=COUNTS)
SIGMOIDS = ("sigmoid", "focal")


def test_default_is_the_weighted_sum_over_the_batch_size(batch: Batch) -> None:
    method = method_of("cb")
    each = functional.cross_entropy(method.predict(batch.images), batch.targets, reduction="none")
    expected = (effective_number_weights(COUNTS, 0.9999)[batch.targets] * each.double()).sum() / 6
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected.float())


@pytest.mark.parametrize("base", ["softmax", *SIGMOIDS])
def test_options_reach_the_loss(batch: Batch, base: str) -> None:
    method = method_of("cb", base=base, beta=0.99, gamma=0.5)
    expected = ClassBalancedLoss(COUNTS, 0.99, base, 0.5)(method.predict(batch.images), batch.targets)
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected)


@pytest.mark.parametrize("base", SIGMOIDS)
def test_the_bias_of_sigmoids_starts_at_one_in_k_and_does_not_decay(base: str) -> None:
    method = method_of("cb", base=base)
    torch.testing.assert_close(method.head.bias.detach(), torch.full((3,), -math.log(2)))
    torch.testing.assert_close(torch.sigmoid(method.head.bias.detach()), torch.full((3,), 1 / 3))
    assert torch.equal(method.head.weight, method_of("ce").head.weight)
    method = method_of("cb", base=base)
    decayed, free = method.param_groups(3e-4)
    assert [id(each) for each in free["params"]] == [id(method.head.bias)] and free["weight_decay"] == 0.0
    assert "weight_decay" not in decayed and decayed["lr"] == free["lr"] == 3e-4
    both = [id(each) for group in (decayed, free) for each in group["params"]]
    assert sorted(both) == sorted(id(each) for each in method.parameters())


def test_softmax_leaves_head_and_optimizer_alone() -> None:
    method, plain = method_of("cb"), method_of("ce")
    assert torch.equal(method.head.bias, plain.head.bias) and torch.equal(method.head.weight, plain.head.weight)
    (group,) = method.param_groups(3e-4)
    assert group.keys() == plain.param_groups(3e-4)[0].keys()
