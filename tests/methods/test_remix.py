"""Remix and UniMix: which label a mixed image gets."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress
from ltbench.methods.remix import remix_shares, unimix_shares

COUNTS = np.array([40, 1, 13, 14], dtype=np.int64)
method = partial(method_on_colour, "remix", counts=COUNTS)


@pytest.fixture
def batch() -> Batch:
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.arange(12) % 4, np.arange(12))


def by_the_rule(own: float, other: float, share: float, kappa: float, tau: float) -> float:
    if own / other >= kappa and share < tau:
        return 0.0
    if own / other <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (40.0, 0.4), (1e9, 0.5), (3.0, 0.0), (1.0, 0.8)])
def test_labels_go_to_the_rarer_class(share: float, kappa: float, tau: float) -> None:
    first, second = (torch.tensor(each, dtype=torch.float64) for each in np.meshgrid(COUNTS, COUNTS))
    found = remix_shares(first, second, share, kappa, tau)
    wanted = [by_the_rule(*pair, share, kappa, tau) for pair in zip(first.view(-1), second.view(-1), strict=True)]
    torch.testing.assert_close(found.view(-1), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)
    assert not ((found == 1) & (first > second)).any() or share == 1
    if kappa > 1e6 or tau == 0:
        assert (found == share).all()  # as in mixup


@pytest.mark.parametrize("options", [{}, {"kappa": 1e9}, {"objective": "balanced_softmax"}])
def test_images_are_mixed_as_by_mixup_and_losses_by_the_rule(options: dict[str, Any], batch: Batch) -> None:
    remix = method(**options)
    mixed = remix.transform(batch, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    share, other = rng.beta(1.0, 1.0), torch.from_numpy(rng.permutation(12))
    torch.testing.assert_close(mixed.images, share * batch.images + (1 - share) * batch.images[other])
    logits = remix.predict(mixed.images)
    if "objective" in options:
        logits = logits + torch.from_numpy(COUNTS).log().float()
    labels, total = batch.targets.tolist(), 0.0
    for row, place in enumerate(other.tolist()):
        v = by_the_rule(COUNTS[labels[row]], COUNTS[labels[place]], share, options.get("kappa", 3.0), 0.5)
        own, its = (-functional.log_softmax(logits[row], 0)[labels[each]] for each in (row, place))
        total += (v * own + (1 - v) * its) / 12
    torch.testing.assert_close(remix.loss(mixed, Progress(0, 1))["loss"], total)


def test_unimix_shares() -> None:
    counts, others, draws, wanted = torch.tensor(
        [[40, 1, 5], [1, 40, 5], [0.98, 0.5, 0.25], [0.98 + 1 / 41 - 1, 0.5 + 40 / 41 - 1, 0.75]], dtype=torch.float64
    )
    torch.testing.assert_close(unimix_shares(counts, others, draws), wanted, rtol=0, atol=1e-12)
    uniform, equal = torch.linspace(0, 1, 1001).double(), torch.ones(1001).double()
    assert unimix_shares(equal, equal, uniform).histc(10, 0, 1).sub(100).abs().max() <= 2


def test_unimix_partners_and_loss(batch: Batch) -> None:
    unimix, rng, drawn = method(rule="unimix"), np.random.default_rng(0), torch.zeros(4)
    for _ in range(300):
        mixed = unimix.transform(batch, rng)
        drawn += torch.bincount(mixed.others, minlength=4)
    expected = torch.from_numpy(COUNTS).double() ** -0.5
    torch.testing.assert_close((drawn / drawn.sum()).double(), expected / expected.sum(), rtol=0, atol=0.03)
    logits = unimix.predict(mixed.images) + torch.from_numpy(COUNTS).log().float()
    each, other = (
        functional.cross_entropy(logits, labels, reduction="none") for labels in (mixed.targets, mixed.others)
    )
    wanted = (mixed.share * each + (1 - mixed.share) * other).mean()
    torch.testing.assert_close(unimix.loss(mixed, Progress(0, 1))["loss"], wanted)
