"""Networks of a trial: what cannot be used is refused before anything is decoded, and passes are counted."""

import copy
from typing import Any

import pytest
import torch

from ltbench.benchmarks.training.protocol import protocol_for
from ltbench.benchmarks.training.stages.backbones import Backbones, check_backbone
from ltbench.errors import UserError


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


def test_normalisation_is_that_of_the_starting_weights() -> None:
    plain, published = (protocol_for("quick", backbone="test_resnet", pretrained=given) for given in (False, True))
    assert check_backbone(plain) == plain
    assert check_backbone(published).augmentation.mean == (0.5, 0.5, 0.5) != plain.augmentation.mean


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
