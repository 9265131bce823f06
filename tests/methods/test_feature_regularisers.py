"""Center and range: when the second loss acts, and where centres begin."""

from functools import partial

import numpy as np
import pytest
import torch
from fake_run import FakeRun, walk
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import RangeLoss
from ltbench.methods import Batch, EpochReport, Plateau, Progress

COUNTS = np.array([10, 400, 5], dtype=np.int64)
method_of = partial(method_on_colour, "center", counts=COUNTS)
REPORT = EpochReport("train", 0, {}, 1, 6, 0.0)


@pytest.mark.parametrize(
    ("epochs", "start", "late"), [(5, 3, 4), (6, 4, 5), (7, 5, 6), (8, 5, 7), (10, 6, 8), (20, 12, 16), (100, 60, 80)]
)
def test_weights_by_share_of_the_epochs(batch: Batch, epochs: int, start: int, late: int) -> None:
    method = method_of()
    features = method.features(batch.images)
    plain = functional.cross_entropy(method.classify(features), batch.targets)
    distances = (features - method.center_loss.centers[batch.targets]).square().sum(1).mean()
    for epoch in range(epochs):
        weight = 0.005 if epoch >= late else 0.001 if epoch >= start else 0.0
        loss = method.loss(batch, Progress(epoch, epochs))["loss"]
        torch.testing.assert_close(loss, plain + weight * distances)
    (stage,) = walk(method, FakeRun([0, 1, 2], epochs=epochs, patience=3))
    assert stage.stop == Plateau(3, after=start)
    (stage,) = walk(method_of(middle_weight=0.0, late_weight=0.0), FakeRun([0, 1, 2], epochs=epochs, patience=3))
    assert stage.stop == Plateau(3)


def test_the_center_loss_never_acts_before_its_centres_are_class_means(batch: Batch) -> None:
    for method, progress in ((method_of(), Progress(0, 1)), (method_of(start=0.0, late_start=0.0), Progress(0, 10))):
        plain = functional.cross_entropy(method.classify(method.features(batch.images)), batch.targets)
        assert torch.equal(method.loss(batch, progress)["loss"], plain)
    assert "center" in method.loss(batch, Progress(1, 10))
    (stage,) = walk(method, FakeRun([0, 1, 2], epochs=10, patience=3))
    assert stage.stop == Plateau(3, after=1)


def test_a_late_part_before_the_middle_one_is_refused() -> None:
    kind = type(method_of())
    kind.check(kind.Config(start=0.9, late_start=0.9), COUNTS)
    with pytest.raises(ValueError, match="late_start"):
        kind.check(kind.Config(start=0.9), COUNTS)


def test_centres_begin_at_the_class_means_of_the_epoch_before(batch: Batch) -> None:
    method = method_of()
    drawn = method.center_loss.centers.detach().clone()
    kept = batch.targets != 2
    part = Batch((batch.images[kept],), batch.targets[kept], batch.indices[kept.numpy()])
    for seen in (batch, part):
        method.loss(seen, Progress(0, 10))
        method.on_epoch_end(REPORT)
    features = method.features(batch.images).detach()
    means = torch.stack([features[batch.targets == c].mean(0) for c in range(3)])
    torch.testing.assert_close(method.center_loss.centers.detach(), means)  # class 2 was absent: as it was
    assert not torch.allclose(drawn, means)
    method.loss(batch, Progress(7, 10))["loss"].backward()
    method.on_epoch_end(REPORT)
    torch.testing.assert_close(method.center_loss.centers.detach(), means)
    decayed, free = method.param_groups(0.1)
    assert free["params"] == [method.center_loss.centers] and free["weight_decay"] == 0
    assert len(decayed["params"]) + 1 == len(list(method.parameters()))


def test_range_is_of_features_beside_cross_entropy(batch: Batch) -> None:
    method = method_on_colour("range", COUNTS, weight=0.1, margin=3.0)
    features = method.features(batch.images)
    expected = functional.cross_entropy(method.classify(features), batch.targets)
    expected = expected + 0.1 * RangeLoss(2, 3.0)(features, batch.targets)
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected)
