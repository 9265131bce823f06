"""CMO: boxes of rare images, and when they are used."""

from functools import partial

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.methods import Batch, Progress
from ltbench.methods.cmo import pasted_box
from ltbench.methods.stages import Pool

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
method = partial(method_on_colour, "cmo", counts=COUNTS)


def batch() -> Batch:
    images = torch.randn(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    partner = Batch((images[1],), torch.tensor([1, 1, 2, 3, 0, 2]), np.arange(6))
    return Batch((images[0],), torch.arange(6) % 4, np.arange(6), partner)


@pytest.mark.parametrize(
    ("share", "centre", "rows", "columns"),
    [
        (0.0, (4, 5), (0, 8), (0, 10)),
        (0.0, (0, 9), (0, 4), (4, 10)),
        (0.75, (4, 5), (2, 6), (3, 7)),
        (0.75, (1, 9), (0, 3), (7, 10)),
        (0.99, (4, 5), (4, 4), (5, 5)),
        (1.0, (4, 5), (4, 4), (5, 5)),
    ],
)
def test_boxes(share: float, centre: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    assert pasted_box(8, 10, share, *centre) == (slice(*rows), slice(*columns))


def test_a_box_is_pasted_into_a_copy_and_labels_follow_its_clipped_area() -> None:
    given, cmo, areas = batch(), method(probability=1.0), set()
    before, rng = given.images.clone(), np.random.default_rng(0)
    for _ in range(20):
        mixed = cmo.transform(given, rng)
        inside = (mixed.images != given.images).all(dim=1)
        place = inside.unsqueeze(1).expand_as(before)
        assert torch.equal(mixed.images[place], given.partner.images[place])
        assert mixed.share == 1 - inside[0].sum().item() / 64
        assert (inside == inside[0]).all() and torch.equal(given.images, before)
        areas.add(mixed.share)
    assert len(areas) > 5
    logits, log_counts = cmo.predict(mixed.images), torch.from_numpy(COUNTS).log().float()
    labels = given.targets, given.partner.targets
    losses = [functional.cross_entropy(logits + log_counts, each) for each in labels]
    wanted = mixed.share * losses[0] + (1 - mixed.share) * losses[1]
    torch.testing.assert_close(cmo.loss(mixed, Progress(50, 100))["loss"], wanted)


@pytest.mark.parametrize(("epochs", "first", "last"), [(200, 4, 196), (40, 3, 37), (6, 1, 5), (1, 1, 0)])
def test_boxes_are_left_out_in_the_first_and_last_epochs(epochs: int, first: int, last: int) -> None:
    given, cmo = batch(), method(probability=1.0)
    mixed = cmo.transform(given, np.random.default_rng(0))
    plain, pasted = (cmo.loss(each, Progress(1, 3))["loss"] for each in (given, mixed))
    used = [torch.equal(cmo.loss(mixed, Progress(epoch, epochs))["loss"], pasted) for epoch in range(epochs)]
    assert used == [first <= epoch <= last for epoch in range(epochs)] and not torch.equal(plain, pasted)


def test_probability_and_foregrounds() -> None:
    given, rng = batch(), np.random.default_rng(0)
    assert method(probability=0.0).transform(given, rng) is given
    cmo = method()
    assert 60 < sum(cmo.transform(given, rng) is given for _ in range(150)) < 90

    class Run:
        epochs = 1

        def early_stopping(self, after: int = 0) -> None: ...

    labels = np.repeat(np.arange(4), COUNTS)
    for power in (1.0, 0.5, 0.0):
        (stage,) = method(power=power).stages(Run())
        drawn = stage.partner(Pool(labels, COUNTS, 8000), Progress(0, 1), np.random.default_rng(0))
        shares = COUNTS ** (1 - power)
        assert np.bincount(labels[drawn]) / 8000 == pytest.approx(shares / shares.sum(), abs=0.02)
