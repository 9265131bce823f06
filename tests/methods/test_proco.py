"""ProCo: running means, the switch between their copies, and what is contrasted."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour

from ltbench.losses import LogitAdjustedLoss, ProbabilisticContrastiveLoss
from ltbench.methods import Batch, EpochReport, Plateau, Progress
from ltbench.methods.proco import RunningMeans

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
NOW, END = Progress(0, 1), EpochReport("train", 0, {}, 1, 1, 0.0)


def method(**options: object) -> object:
    proco = partial(method_on_colour, "proco", counts=COUNTS)(**options)
    run = SimpleNamespace(
        epochs=3, early_stopping=lambda: Plateau(3), rng=lambda name: np.random.default_rng(len(name))
    )
    next(proco.stages(run))
    return proco


def batch(seed: int) -> Batch:
    views = torch.randn(3, 6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(tuple(views), torch.tensor([0, 3, 3, 0, 2, 0]).roll(seed), np.arange(6))


def vectors_of(proco: object, given: Batch) -> torch.Tensor:
    return proco.projector(torch.cat([proco.features(view) for view in given.views[1:]]))


def test_a_batch_enters_the_means_before_its_own_logits() -> None:
    given, proco = batch(1), method(alpha=0.5, temperature=0.2)
    directions, found = proco.used.means.clone(), proco.loss(given, NOW)
    vectors, targets = vectors_of(proco, given), given.targets.repeat(2)
    means = [vectors[targets == label].mean(0) if (targets == label).any() else directions[label] for label in range(4)]
    torch.testing.assert_close(proco.used.means, torch.stack(means))
    assert proco.used.counts.tolist() == [6, 0, 2, 4]
    contrast = ProbabilisticContrastiveLoss(COUNTS, 0.2)(vectors, targets, torch.stack(means))
    classification = LogitAdjustedLoss(COUNTS)(proco.predict(given.images), given.targets)
    torch.testing.assert_close(found["loss"], classification + 0.5 * contrast)
    assert not proco.used.means.requires_grad


def test_means_are_of_all_that_was_seen_until_the_epochs_end() -> None:
    proco, every = method(), [batch(1), batch(2)]
    for given in every:
        proco.loss(given, NOW)
    vectors = torch.cat([vectors_of(proco, given) for given in every])
    targets = torch.cat([given.targets.repeat(2) for given in every])
    for label in (0, 2, 3):
        torch.testing.assert_close(proco.used.means[label], vectors[targets == label].mean(0), rtol=1e-5, atol=1e-6)
    proco.on_epoch_end(END)
    torch.testing.assert_close(proco.used.means[0], vectors[targets == 0].mean(0), rtol=1e-5, atol=1e-6)
    assert proco.next.counts.sum() == 0 and proco.used.counts.sum() == 24
    torch.testing.assert_close(proco.next.means.norm(dim=1), torch.full((4,), 0.9))
    proco.loss(every[0], NOW)
    assert proco.used.counts.sum() == 36 and proco.next.counts.sum() == 12
    absent = proco.next.means[1].clone()
    proco.on_epoch_end(END)
    assert torch.equal(proco.used.means[1], absent) and proco.used.counts.sum() == 12
    assert proco.loss(every[1], NOW)["loss"].isfinite()


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_without_contrast_it_is_logit_adjustment(head: str) -> None:
    given, proco = batch(1), method(alpha=0.0, head=head)
    expected = LogitAdjustedLoss(COUNTS)(proco.predict(given.images), given.targets)
    torch.testing.assert_close(proco.loss(given, NOW)["loss"], expected)


def test_means_of_a_tight_class_are_exact_under_autocast() -> None:
    vectors = torch.nn.functional.normalize(torch.ones(64, 128) + 0.1 * torch.randn(64, 128), dim=1)
    plain = RunningMeans(2, 128)
    half = copy.deepcopy(plain)
    plain.add(vectors, torch.zeros(64, dtype=torch.int64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half.add(vectors, torch.zeros(64, dtype=torch.int64))
    assert torch.equal(half.means, plain.means)
