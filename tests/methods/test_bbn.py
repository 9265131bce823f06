"""BBN: two branches, two streams, and how they are mixed."""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from ltbench.methods import Batch, Method, Plateau, Progress, Task, create
from ltbench.methods.stages import Pool

COUNTS = np.array([40, 10, 5, 20], dtype=np.int64)
IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
PARTNER = Batch((IMAGES[4:],), torch.tensor([2, 2, 1, 3]), np.arange(4))
BATCH = Batch((IMAGES[:4],), torch.tensor([0, 0, 1, 0]), np.arange(4), PARTNER)


def network() -> torch.nn.Module:
    return timm.create_model("test_resnet", num_classes=0)


def method() -> Method:
    torch.manual_seed(0)
    return create("bbn", Task(4, COUNTS, 32, new_backbone=network), network())


class Run:
    """What `stages` asks of a run."""

    epochs, shared_encoder = 10, False

    def early_stopping(self, after: int = 0) -> Plateau:
        return Plateau(3, after)


@pytest.mark.parametrize(("epoch", "share"), [(0, 1.0), (5, 0.75), (9, 0.19)])
def test_the_mix_moves_to_the_balancing_branch(epoch: int, share: float) -> None:
    bbn = method().eval()
    conventional, balancing = bbn.features(IMAGES).chunk(2, dim=1)
    torch.testing.assert_close(conventional, bbn.backbone(IMAGES))
    assert not torch.allclose(conventional, balancing)
    logits = bbn.head(2 * torch.cat([share * conventional[:4], (1 - share) * balancing[4:]], dim=1))
    parts = [functional.cross_entropy(logits, each.targets) for each in (BATCH, PARTNER)]
    loss = bbn.loss(BATCH, Progress(epoch, 10))["loss"]
    torch.testing.assert_close(loss, share * parts[0] + (1 - share) * parts[1])


def test_each_stream_passes_its_own_branch() -> None:
    bbn = method()
    bbn.loss(BATCH, Progress(0, 10))["loss"].backward()  # only the first stream counts
    own, other = (
        [float(each.grad.abs().max()) for each in part.parameters() if each.grad is not None]
        for part in (bbn.backbone.layer4, bbn.branch)
    )
    assert max(own) > 0 and not any(other)


def test_early_stopping_waits_until_the_second_stream_weighs_half() -> None:
    (stage,) = method().stages(Run())
    weights = [Progress(epoch, Run.epochs).fraction ** 2 for epoch in range(Run.epochs)]
    assert stage.stop == Plateau(3, sum(weight < 0.5 for weight in weights))


def test_the_second_stream_is_reverse() -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    (stage,) = method().stages(Run())
    drawn = stage.partner(Pool(labels, COUNTS, 20_000), Progress(0, 2), np.random.default_rng(0))
    shares = np.bincount(labels[drawn]) / 20_000
    np.testing.assert_allclose(shares, (1 / COUNTS) / (1 / COUNTS).sum(), atol=0.015)
