"""Losses and predictions block by block are those of all logits at once."""

import numpy as np
import pytest

from ltbench.benchmarks.analysis.metrics import cross_entropy
from ltbench.benchmarks.training.validation import predictions_and_losses


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_change_nothing(size: int) -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 9, 50), (20 * rng.normal(size=(50, 9))).astype(np.float32)
    predicted, losses = predictions_and_losses(labels, np.split(logits, range(size, 50, size)))
    assert (predicted == logits.argmax(axis=1)).all()
    assert losses.mean() == cross_entropy(labels, logits)
