"""GPaCo and PaCo: anchors, the queue, and the averaged copies."""

from functools import partial

import numpy as np
import torch
from mean_colour import method_on_colour

from ltbench.losses import BalancedSoftmaxLoss, ParametricContrastiveLoss
from ltbench.methods import Batch, Progress

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
method = partial(method_on_colour, "gpaco", counts=COUNTS)
NOW = Progress(0, 1)


def batch(seed: int = 1) -> Batch:
    views = torch.randn(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(tuple(views), torch.tensor([0, 3, 3, 0, 2, 0]).roll(seed), np.arange(6))


def test_both_views_are_anchors_and_are_contrasted_with_earlier_batches() -> None:
    earlier, given, gpaco = batch(1), batch(2), method(alpha=0.3, temperature=0.5)
    features = [gpaco.features(view) for view in given.views]
    logits, anchors = gpaco.classify(torch.cat(features)), gpaco.projector(torch.cat(features))
    twice = given.targets.repeat(2)
    loss = ParametricContrastiveLoss(COUNTS, 0.3, 1.0, 1.0, 0.5)
    empty = torch.zeros(0, dtype=torch.int64)
    torch.testing.assert_close(
        method(alpha=0.3, temperature=0.5).loss(given, NOW)["loss"],
        loss(logits, anchors, twice, anchors.detach()[:0], empty),
    )
    gpaco.loss(earlier, NOW)
    keys = gpaco.projector(gpaco.features(earlier.views[1])).detach()
    found = gpaco.loss(given, NOW)["loss"]
    torch.testing.assert_close(found, loss(logits, anchors, twice, keys, earlier.targets))
    found.backward()
    assert gpaco.backbone.layer.weight.grad.abs().sum() > 0 and not gpaco.queue.requires_grad


def test_the_queue_is_a_ring() -> None:
    gpaco, batches = method(queue=8), [batch(seed) for seed in (1, 2, 3)]
    for given in batches:
        gpaco.loss(given, NOW)
    keys, labels = torch.zeros(8, 128), torch.full((8,), -1)
    written = [(view, label) for given in batches for view, label in zip(given.views[1], given.targets, strict=True)]
    for place, (view, label) in enumerate(written):
        keys[place % 8] = gpaco.projector(gpaco.features(view[None]))[0].detach()
        labels[place % 8] = label
    torch.testing.assert_close(gpaco.queue, keys)
    assert gpaco.queue_targets.tolist() == labels.tolist()
    small = method(queue=4)
    small.loss(batches[0], NOW)
    assert small.queue_targets.tolist() == batches[0].targets[-4:].tolist()


def test_without_contrast_it_is_balanced_softmax_of_both_views() -> None:
    given, gpaco = batch(), method(alpha=0.0, gamma=0.0)
    logits = gpaco.predict(torch.cat(given.views))
    expected = BalancedSoftmaxLoss(COUNTS)(logits, given.targets.repeat(2))
    torch.testing.assert_close(gpaco.loss(given, NOW)["loss"], expected)


def test_keys_of_paco_come_from_a_moving_average_without_gradient() -> None:
    given, paco = batch(), method(momentum=0.75, queue=16)
    start = paco.backbone.layer.weight.detach().clone()
    with torch.no_grad():
        paco.backbone.layer.weight.add_(1)
    paco.loss(given, NOW)["loss"].backward()
    torch.testing.assert_close(paco.key_backbone.layer.weight, start + 0.25)
    assert not any(each.requires_grad for each in (*paco.key_backbone.parameters(), *paco.key_projector.parameters()))
    keys = paco.key_projector(paco.key_backbone(given.views[1]))
    torch.testing.assert_close(paco.queue[:6], keys)
    features = paco.features(given.views[0])
    others = torch.cat([keys, paco.queue[:6]]), given.targets.repeat(2)
    wanted = paco.contrast(paco.classify(features), paco.projector(features), given.targets, *others)
    online, key = paco.backbone.layer.weight, paco.key_backbone.layer.weight
    with torch.no_grad():  # so that the next step takes it to where it is
        key.copy_(online + (key - online) / 0.75)
    torch.testing.assert_close(paco.loss(given, NOW)["loss"], wanted)
    paco._follow(0.0)
    assert torch.equal(paco.key_backbone.layer.weight, paco.backbone.layer.weight)
