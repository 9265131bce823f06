"""SEQL: which classes are rare, relative to the mean share."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress

method_of = partial(method_on_colour, "seql")


@pytest.mark.parametrize(
    ("counts", "rare"),
    [((360, 51, 5000, 97, 1342, 187, 2590, 695), [0, 1, 3, 5]), ((7, 7, 7), []), ((1, 100, 60), [0])],
)
def test_rare_is_relative_to_the_number_of_classes(counts: tuple[int, ...], rare: list[int]) -> None:
    method = method_of(np.array(counts))
    assert method.loss_function.rare.nonzero().flatten().tolist() == rare


def test_rare_classes_do_not_push_and_predictions_are_plain(batch: Batch) -> None:
    counts = np.array([10, 400, 5])
    method, plain = method_of(counts, gamma=1.0), method_on_colour("ce", counts)
    logits = plain.predict(batch.images)
    assert torch.equal(method.predict(batch.images), logits)
    own = functional.one_hot(batch.targets, 3).bool()
    kept = logits.masked_fill(torch.tensor([True, False, True]) & ~own, -torch.inf)
    torch.testing.assert_close(
        method.loss(batch, Progress(0, 1))["loss"], functional.cross_entropy(kept, batch.targets)
    )
