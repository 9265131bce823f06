"""RW: which class weights reach the loss, at unequal counts."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import (
    effective_number_weights,
    inverse_frequency_weights,
    logarithmic_weights,
    power_weights,
    square_root_weights,
)
from ltbench.methods import Batch, Progress

COUNTS = np.array([300, 4000, 5], dtype=np.int64)
method_of = partial(method_on_colour, "rw", counts=COUNTS)


@pytest.mark.parametrize(
    ("options", "raw", "function"),
    [
        ({}, [1 / count for count in COUNTS], inverse_frequency_weights(COUNTS)),
        ({"scheme": "sqrt"}, [count**-0.5 for count in COUNTS], square_root_weights(COUNTS)),
        (
            {"scheme": "effective"},
            [1e-4 / (1 - 0.9999**count) for count in COUNTS],
            effective_number_weights(COUNTS, 0.9999),
        ),
        (
            {"scheme": "effective", "beta": 0.9},
            [0.1 / (1 - 0.9**count) for count in COUNTS],
            effective_number_weights(COUNTS, 0.9),
        ),
        ({"scheme": "power"}, [(count / 4305) ** -1.2 for count in COUNTS], power_weights(COUNTS)),
    ],
    ids=["inverse", "sqrt", "effective", "beta", "power"],
)
def test_weights_reach_the_loss(options: dict[str, Any], raw: list[float], function: torch.Tensor) -> None:
    method = method_of(**options)
    weights = torch.tensor(raw, dtype=torch.float64) * (3 / sum(raw))
    torch.testing.assert_close(method.class_weights, weights, rtol=1e-9, atol=0)
    assert torch.equal(method.class_weights, function)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 1, 2, 0, 0, 1])
    each = functional.cross_entropy(method.predict(images).double(), targets, reduction="none")
    expected = (weights[targets] * each).sum() / weights[targets].sum()
    loss = method.loss(Batch((images,), targets, np.arange(6)), Progress(0, 1))["loss"]
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_scale_of_logarithmic_weights_does_not_matter() -> None:
    method = method_of(scheme="log")
    assert torch.equal(method.class_weights, logarithmic_weights(COUNTS))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = Batch((images,), torch.tensor([0, 1, 2, 1]), np.arange(4))
    loss = method.loss(batch, Progress(0, 1))["loss"]
    method.class_weights *= 3 / method.class_weights.sum()
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], loss)
