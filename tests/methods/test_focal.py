"""Focal: the loss reaches training with the configured modulator."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Method, Progress

COUNTS = np.array([40, 10, 5], dtype=np.int64)
method_of = partial(method_on_colour, "focal", counts=COUNTS)


def loss_of(method: Method, batch: Batch) -> torch.Tensor:
    return method.loss(batch, Progress(0, 1))["loss"]


@pytest.mark.parametrize("options", [{}, {"gamma": 0.5}, {"gamma": 0.0}])
def test_loss_is_the_modulated_cross_entropy(batch: Batch, options: dict[str, float]) -> None:
    method = method_of(**options)
    each = functional.cross_entropy(method.predict(batch.images).double(), batch.targets, reduction="none")
    expected = ((1 - torch.exp(-each)) ** options.get("gamma", 2.0) * each).mean()
    torch.testing.assert_close(loss_of(method, batch), expected.float())


def test_detaching_reaches_the_gradient(batch: Batch) -> None:
    values, gradients = [], []
    for detach in (False, True):
        method = method_of(detach=detach)
        values.append(loss_of(method, batch))
        values[-1].backward()
        gradients.append(method.head.weight.grad)
    assert torch.equal(*values) and not torch.allclose(*gradients)


def test_starts_where_cross_entropy_starts() -> None:
    plain = method_on_colour("ce", COUNTS).state_dict()
    state = method_of().state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.items())
