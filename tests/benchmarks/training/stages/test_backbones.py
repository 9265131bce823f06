"""Networks of a trial: what cannot be used is refused before anything is decoded, and passes are counted."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.protocol import protocol_for
from ltbench.benchmarks.training.stages.backbones import Backbones, check_backbone
from ltbench.benchmarks.training.trial import build_method
from ltbench.errors import UserError
from ltbench.methods.base import Method, feature_width


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("test_vit", 40, "patches of 16 pixels, which do not fill 40; use --image-size 32 or 48"),
        ("test_convnext", 16, "takes no images of 16 pixels"),
        ("resnet81", 40, "unknown backbone 'resnet81'"),
    ],
)
def test_networks_that_cannot_be_used(backbone: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_backbone(protocol_for("quick", backbone=backbone, image_size=size))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_every_pass_of_every_network_is_counted(name: str) -> None:
    backbones = Backbones(protocol_for("quick", backbone=name, image_size=32), seed=3)
    state = torch.random.get_rng_state()
    first, second = (backbones.new().eval() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights: list[Any] = [next(network.parameters()) for network in (first, second)]
    assert not torch.equal(*weights)
    images = torch.zeros(3, 3, 32, 32)
    with torch.no_grad():
        first(images), second(images), copy.deepcopy(first)(images), first.forward_intermediates(images)
    assert backbones.counter.images == 12


class Replaces(Method):
    def build(self) -> None:
        super().build()
        self.backbone.conv1 = nn.Conv2d(3, self.backbone.conv1[-1].out_channels, 3, stride=2, padding=1)


class Copies(Method):
    def build(self) -> None:
        super().build()
        self.teacher = copy.deepcopy(self.backbone)
        self.own = nn.Sequential(nn.Flatten(), nn.LazyLinear(feature_width(self.backbone)))

    def features(self, images: Tensor) -> Tensor:
        taught = self.teacher.forward_head(self.teacher.forward_features(images))
        return self.backbone(images) + taught + self.own(images)


@pytest.mark.parametrize(("method", "passes"), [(Replaces, 1), (Copies, 3)])
def test_passes_through_what_a_method_makes_of_its_networks_are_counted(method: type[Method], passes: int) -> None:
    protocol = protocol_for("quick", backbone="test_resnet", image_size=32)
    method.name, backbones = "made", Backbones(protocol, seed=3)
    built = build_method(method, method.Config(), protocol, np.array([5, 4, 3]), 0, backbones=backbones).eval()
    with torch.no_grad():
        built.predict(torch.zeros(3, 3, 32, 32))
    assert backbones.counter.images == 3 * passes
