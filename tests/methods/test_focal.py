"""Focal: the loss reaches training with the configured modulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mean_colour import MeanColour
from torch.nn import functional

from ltbench.errors import UserError
from ltbench.methods import Batch, Method, Progress, Task, create

COUNTS = np.array([40, 10, 5], dtype=np.int64)


def method_of(**options: object) -> Method:
    torch.manual_seed(0)
    return create("focal", Task(3, COUNTS, 8), MeanColour(), **options)


@pytest.fixture
def batch() -> Batch:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.tensor([0, 1, 2, 0, 0, 1]), np.arange(6))


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
    torch.manual_seed(0)
    plain = create("ce", Task(3, COUNTS, 8), MeanColour()).state_dict()
    state = method_of().state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.items())


def test_refuses_a_negative_gamma() -> None:
    with pytest.raises(UserError, match="focal: gamma must be at least 0"):
        method_of(gamma=-1.0)
