"""Balanced softmax and logit adjustment: adjusted in training, plain in prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mean_colour import MeanColour
from torch.nn import functional

from ltbench.methods import Batch, Method, Progress, Task, create

COUNTS = np.array([10, 400, 5], dtype=np.int64)


def method_of(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    return create(name, Task(3, COUNTS, 8), MeanColour(), **options)


@pytest.fixture
def batch() -> Batch:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.tensor([0, 1, 2, 0, 0, 1]), np.arange(6))


@pytest.mark.parametrize(
    ("name", "options", "tau"),
    [
        ("balanced_softmax", {}, 1.0),
        ("logit_adjust", {}, 1.0),
        ("logit_adjust", {"tau": 0.0}, 0.0),
        ("logit_adjust", {"tau": 2.0}, 2.0),
    ],
)
def test_training_adds_and_prediction_does_not(batch: Batch, name: str, options: dict[str, float], tau: float) -> None:
    method, plain = method_of(name, **options), method_of("ce")
    logits = plain.predict(batch.images)
    assert torch.equal(method.predict(batch.images), logits)
    shares = torch.from_numpy(COUNTS / COUNTS.sum()).log()
    expected = functional.cross_entropy(logits.double() + tau * shares, batch.targets)
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected.float())


def test_the_two_are_one_at_tau_one(batch: Batch) -> None:
    first, second = (
        method_of(name).loss(batch, Progress(0, 1))["loss"] for name in ("balanced_softmax", "logit_adjust")
    )
    torch.testing.assert_close(first, second)
