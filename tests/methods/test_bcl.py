"""BCL: what is contrasted with what, and what moves the prototypes."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import BalancedContrastiveLoss, LogitAdjustedLoss
from ltbench.methods import Batch, Progress

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
method = partial(method_on_colour, "bcl", counts=COUNTS)


def batch(rows: int = 6) -> Batch:
    views = torch.randn(3, rows, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(views), torch.tensor([0, 3, 3, 0, 2, 0])[:rows], np.arange(rows))


@pytest.mark.parametrize("rows", [2, 6])
def test_the_first_view_is_classified_and_the_others_are_contrasted(rows: int) -> None:
    given, bcl = batch(rows), method(alpha=0.5, beta=0.25, temperature=0.2)
    terms = bcl.loss(given, Progress(0, 1))
    cosines = functional.normalize(bcl.features(given.views[0]), dim=1) @ functional.normalize(bcl.head.weight, dim=0)
    classification = LogitAdjustedLoss(COUNTS)(30 * cosines, given.targets)
    vectors = bcl.projector(torch.cat([bcl.features(view) for view in given.views[1:]]))
    prototypes = bcl.class_projector(bcl.head.weight.T)
    contrast = BalancedContrastiveLoss(0.2)(*vectors.chunk(2), given.targets, prototypes)
    torch.testing.assert_close(terms["loss"], 0.5 * classification + 0.25 * contrast)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2 * rows))
    contrast.backward()
    assert bcl.head.weight.grad.abs().sum() > 0  # through the prototypes


def test_predictions_know_nothing_of_the_projectors() -> None:
    given, bcl = batch(), method().eval()
    logits = bcl.predict(given.images)
    for parameter in (*bcl.projector.parameters(), *bcl.class_projector.parameters()):
        parameter.data.zero_()
    assert torch.equal(bcl.predict(given.images), logits) and logits.abs().max() <= 30


def test_without_contrast_it_is_logit_adjustment_of_cosines() -> None:
    given, bcl = batch(), method(beta=0.0)
    loss = bcl.loss(given, Progress(0, 1))["loss"]
    torch.testing.assert_close(loss, LogitAdjustedLoss(COUNTS)(bcl.predict(given.images), given.targets))
