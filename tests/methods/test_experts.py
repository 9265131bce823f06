"""Ensembles: what experts share, that parts of a network make the whole, losses by the experts' own logits."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from mean_colour import MeanColour

from ltbench.errors import UserError
from ltbench.losses import NestedCollaborativeLoss, RIDELoss, SADELoss
from ltbench.methods import Batch, Method, Plateau, Progress, Task, create
from ltbench.methods._branches import after, before, block_cut

COUNTS = np.array([9, 6, 40], dtype=np.int64)
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
BATCH = Batch((IMAGES, IMAGES.flip(3), -IMAGES), torch.tensor([0, 2, 2, 0]), np.arange(4))


class Run:
    """What `stages` asks of a run."""

    epochs, shared_encoder = 10, True

    def early_stopping(self, after: int = 0) -> Plateau:
        return Plateau(3, after)


def method(name: str, backbone: str = "test_resnet", **options: Any) -> Method:
    torch.manual_seed(0)
    network = MeanColour() if backbone == "colour" else timm.create_model(backbone, num_classes=0)
    task = Task(3, COUNTS, 32, new_backbone=lambda: timm.create_model(backbone, num_classes=0))
    return create(name, task, network, **options)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet", "resnet18"])
def test_experts_share_their_first_stages(backbone: str) -> None:
    ride = method("ride", backbone).eval()
    names = {name.split(".")[1] for name in ride.others[0].state_dict()}
    if "resnet" in backbone:
        assert {name.split(".")[0] for name in ride.others[0].state_dict()} == {"layer3", "layer4"}
    own = {id(parameter) for parameter in ride.others.parameters()}
    assert names and not own & {id(parameter) for parameter in ride.backbone.parameters()}
    features = ride.features(IMAGES)
    torch.testing.assert_close(features.chunk(3, dim=1)[0], ride.backbone(IMAGES))
    torch.testing.assert_close(ride.predict(IMAGES), ride.expert_logits(features).mean(0))
    for _ in ride.stages(Run()):  # all methods start from one encoder
        first, *others = ride.features(IMAGES).chunk(3, dim=1)
        assert all(torch.equal(first, other) for other in others)


def test_the_last_block_of_a_resnet_is_cut_off() -> None:
    assert block_cut(method("ce", "resnet18")) == "layer4.0" and block_cut(method("ce")) == "layer3"
    network = method("ce", "resnet18").backbone
    first, last = before(network, "layer4.0"), after(network, "layer4.0")
    assert {name.split(".")[1] for name in last.state_dict()} == {"1"}
    assert len(first.state_dict()) + len(last.state_dict()) == len(network.state_dict())


def test_what_cannot_be_cut_is_refused_but_for_whole_networks() -> None:
    for name in ("ride", "sade", "bbn"):
        for backbone in ("test_vit", "colour"):
            with pytest.raises(UserError):
                method(name, backbone)
    assert method("ride", "test_vit", own_stages=0).predict(IMAGES).shape == (4, 3)


@pytest.mark.parametrize("name", ["ride", "sade"])
def test_the_loss_is_that_of_the_experts(name: str) -> None:
    each = method(name).eval()
    logits = each.expert_logits(each.features(IMAGES))
    losses = {"ride": [RIDELoss(COUNTS), RIDELoss(COUNTS, reweight=True)], "sade": 2 * [SADELoss(COUNTS)]}[name]
    for epoch, loss in zip((7, 8), losses, strict=True):
        found = each.loss(BATCH, Progress(epoch, 10))["loss"]
        torch.testing.assert_close(found, loss(logits, BATCH.targets))
    (stage,) = each.stages(Run())
    assert stage.stop == Plateau(3, 8 if name == "ride" else 0)


def test_networks_of_ncl_see_views_of_their_own() -> None:
    ncl = method("ncl").eval()
    networks = (ncl.backbone, *ncl.others)
    logits = [head(network(view)) for head, network, view in zip(ncl.heads, networks, BATCH.views, strict=True)]
    expected = NestedCollaborativeLoss(COUNTS, 2)(torch.stack(logits), BATCH.targets)
    torch.testing.assert_close(ncl.loss(BATCH, Progress(0, 1))["loss"], expected)
    (stage,) = ncl.stages(Run())
    assert stage.views == 3
    assert sum(p.numel() for p in ncl.parameters()) == 3 * sum(p.numel() for p in method("ce").parameters())
