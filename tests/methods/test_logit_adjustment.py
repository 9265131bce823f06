"""Balanced softmax and logit adjustment: adjusted in training, plain in prediction."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress

COUNTS = np.array([10, 400, 5], dtype=np.int64)
method_of = partial(method_on_colour, counts=COUNTS)


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
