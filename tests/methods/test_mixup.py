"""MixUp: images and labels by the same share and the same partner."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress

method = partial(method_on_colour, "mixup", counts=np.array([40, 10, 5, 9], dtype=np.int64))


@pytest.fixture
def batch() -> Batch:
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.arange(12) % 4, np.arange(12))


def test_images_labels_and_losses_are_mixed_alike(batch: Batch) -> None:
    mixed = method().transform(batch, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    share, other = rng.beta(1.0, 1.0), torch.from_numpy(rng.permutation(12))
    assert 0 < share < 1 and not torch.equal(other, torch.arange(12))
    torch.testing.assert_close(mixed.images, share * batch.images + (1 - share) * batch.images[other])
    labels = functional.one_hot(batch.targets, 4).float()
    torch.testing.assert_close(mixed.targets, share * labels + (1 - share) * labels[other])
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(12))
    assert mixed.indices is batch.indices
    mixup = method()
    mixed = mixup.transform(batch, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    share, other = rng.beta(1.0, 1.0), torch.from_numpy(rng.permutation(12))
    logits = mixup.predict(mixed.images)
    both = share * functional.cross_entropy(logits, batch.targets)
    both += (1 - share) * functional.cross_entropy(logits, batch.targets[other])
    torch.testing.assert_close(mixup.loss(mixed, Progress(0, 1))["loss"], both)


def test_shares_and_batches_of_one(batch: Batch) -> None:
    mixup = method(alpha=0.0)
    mixed = mixup.transform(batch, np.random.default_rng(3))
    assert torch.equal(mixed.images, batch.images)
    expected = functional.cross_entropy(mixup.predict(batch.images), batch.targets)
    torch.testing.assert_close(mixup.loss(mixed, Progress(0, 1))["loss"], expected)
    one = Batch((batch.images[:1],), batch.targets[:1], batch.indices[:1])
    torch.testing.assert_close(method().transform(one, np.random.default_rng(0)).images, one.images)


def test_shares_follow_the_beta_distribution(batch: Batch) -> None:
    one = Batch((torch.zeros(2, 3, 8, 8),), torch.tensor([0, 1]), np.arange(2))
    rng, shares = np.random.default_rng(0), []
    mixup = method(alpha=0.4)
    while len(shares) < 2000:
        targets = mixup.transform(one, rng).targets
        if targets[0, 1] > 0 or targets[0, 0] < 1:  # else each image was mixed with itself
            shares.append(targets[0, 0].item())
    variance = 1 / (4 * (2 * 0.4 + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03) and np.var(shares) == pytest.approx(variance, abs=0.01)
