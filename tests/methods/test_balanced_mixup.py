"""Balanced-MixUp: pairs of two streams, one of which is balanced."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress
from ltbench.methods.stages import Pool

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
method = partial(method_on_colour, "balanced_mixup", counts=COUNTS)


def batch() -> Batch:
    images = torch.randn(2, 12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    partner = Batch((images[1],), (torch.arange(12) * 3 + 1) % 4, np.arange(12))
    return Batch((images[0],), torch.arange(12) % 4, np.arange(12), partner)


def test_images_and_labels_of_two_streams_by_the_same_share() -> None:
    given, balanced = batch(), method(alpha=2.0)
    mixed = balanced.transform(given, np.random.default_rng(3))
    share = np.random.default_rng(3).beta(2.0, 1.0)
    images = (1 - share) * given.images + share * given.partner.images
    torch.testing.assert_close(mixed.images, images)
    logits = balanced.predict(images)
    labels = [functional.one_hot(each.targets, 4).float() for each in (given, given.partner)]
    expected = functional.cross_entropy(logits, (1 - share) * labels[0] + share * labels[1])
    torch.testing.assert_close(balanced.loss(mixed, Progress(0, 1))["loss"], expected)


def test_the_share_follows_its_distribution_and_its_limits() -> None:
    given, rng, balanced = batch(), np.random.default_rng(0), method(alpha=0.2)
    shares = [1 - balanced.transform(given, rng).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.2 / 1.2, abs=0.02)
    assert method(alpha=0.0).transform(given, rng) is given
    assert method(alpha=1e-9).transform(given, rng) is given  # the draw underflows to 0
    torch.testing.assert_close(method(alpha=1e9).transform(given, rng).images, given.partner.images)


def test_the_partners_classes_come_equally_often() -> None:
    class Run:
        epochs = 1

        def early_stopping(self, after: int = 0) -> None: ...

    (stage,) = method().stages(Run())
    labels = np.repeat(np.arange(4), COUNTS)
    drawn = stage.partner(Pool(labels, COUNTS, 8000), Progress(0, 1), np.random.default_rng(0))
    assert np.bincount(labels[drawn]) / 8000 == pytest.approx(np.full(4, 0.25), abs=0.02)
