"""GCL: a first stage with mixed images and noise, a second with margin and balanced batches, plain predictions."""

from functools import partial

import numpy as np
import torch
from fake_run import FakeRun, walk
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import GCLLoss
from ltbench.methods import Batch, Progress
from ltbench.methods.stages import Pool, cosine_decay

COUNTS = np.array([10, 400, 5], dtype=np.int64)
LABELS = np.repeat(np.arange(3), COUNTS)
method_of = partial(method_on_colour, "gcl", counts=COUNTS)


def test_the_first_stage_mixes_and_the_second_has_balanced_batches_and_a_frozen_backbone(batch: Batch) -> None:
    method = method_of()
    first, second = walk(method, FakeRun(LABELS, epochs=40))
    assert (first.epochs, second.epochs) == (40, 6) and not first.select and second.select
    assert first.schedule is None and second.schedule is cosine_decay
    assert second.frozen == (method.backbone,) and method.most_steps(FakeRun(LABELS, epochs=40)) == 46 * 26
    mixed = first.transform(batch, np.random.default_rng(0))
    assert mixed.targets.shape == (6, 3) and not torch.equal(mixed.images, batch.images)
    cosines = functional.normalize(method.backbone(mixed.images), dim=1) @ functional.normalize(
        method.head.weight, dim=0
    )
    torch.manual_seed(0)
    found = first.loss(mixed, Progress(0, 1))["loss"]
    torch.manual_seed(0)
    expected = functional.cross_entropy(GCLLoss(COUNTS, 0.5).clouded(cosines), mixed.targets)
    torch.testing.assert_close(found, expected)
    drawn = LABELS[second.sampler(Pool(LABELS, COUNTS, 3000), Progress(0, 1), np.random.default_rng(0))]
    assert np.allclose(np.bincount(drawn) / 3000, 1 / 3, atol=0.04)


def test_the_second_loss_has_a_margin_and_predictions_neither_margin_nor_noise(batch: Batch) -> None:
    method = method_of(second_noise=0.0)
    logits = method.predict(batch.images)
    assert torch.equal(logits, method.predict(batch.images)) and logits.abs().max() <= 20
    lowered = logits - 20 * 0.1 * functional.one_hot(batch.targets, 3)
    each = functional.cross_entropy(lowered, batch.targets, reduction="none")
    expected = ((1 - (-each).exp()) * each).mean()
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected)
