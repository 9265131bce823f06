"""What is tuned of a network: nothing changes at the start, the named parameters alone move, and trials resume."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import ConvNeXt, VisionTransformer
from torch import Tensor, nn

from ltbench.benchmarks.training.protocol import TUNINGS, Protocol, protocol_for
from ltbench.benchmarks.training.stages.backbones import Backbones, check_backbone
from ltbench.benchmarks.training.stages.states import TrainedState
from ltbench.benchmarks.training.stages.tuning import adapt, frozen_tensors, keep_frozen
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.files import read_tensors
from ltbench.methods.stages import EpochReport

SIZES = {"test_vit": 32, "test_vit2": 32, "test_convnext": 32, "test_convnext2": 32, "test_resnet": 32}
WIDTHS = {"test_vit": [64] * 6, "test_convnext": [24, 32, 32, 48, 48, 48, 48, 64, 64]}
COMBINED = [
    *((name, tune) for name in ("test_vit", "test_vit2") for tune in TUNINGS[1:]),
    *((name, tune) for name in ("test_convnext", "test_convnext2") for tune in TUNINGS[1:] if tune != "lora"),
    *(("test_resnet", tune) for tune in ("head", "bias", "norm")),
]


def under(name: str, tune: str, **others: Any) -> Protocol:
    return protocol_for("quick", **{"backbone": name, "image_size": SIZES.get(name, 32), "tune": tune, **others})


def network_of(name: str, tune: str, **others: Any) -> Any:
    return Backbones(under(name, tune, **others), seed=3).new()


def images_of(name: str) -> Tensor:
    return torch.randn(3, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(0))


def trained_of(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(("name", "tune"), COMBINED)
def test_an_adapted_network_is_the_bare_one_until_it_is_trained(name: str, tune: str) -> None:
    bare, adapted = network_of(name, "full").eval(), network_of(name, tune).eval()
    images = images_of(name)
    with torch.no_grad():
        expected = bare(images)
        assert torch.equal(adapted(images), expected)
        assert torch.equal(copy.deepcopy(adapted)(images), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(adapted(images.bfloat16()), bare(images.bfloat16()))


@pytest.mark.parametrize(("name", "tune"), COMBINED)
def test_the_named_parameters_alone_move(name: str, tune: str) -> None:
    network, head = network_of(name, tune), nn.LazyLinear(2)
    keep_frozen(nn.ModuleList([network]).train())
    trained = trained_of(network)
    assert bool(trained) == (tune != "head")
    assert trained.keys() | frozen_tensors(network) == network.state_dict().keys()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    head(network(images_of(name)))
    optimizer = torch.optim.SGD([*trained.values(), *head.parameters()], lr=0.5)
    for _ in range(2):  # the gradients of what stands before zeros are 0 in the first step
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(network(images_of(name))), torch.tensor([0, 1, 1])).backward()
        optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved <= trained.keys() and bool(moved) == bool(trained)
    still = {key for key, value in trained.items() if value.grad is None or not value.grad.any()}
    assert all(key.endswith("bias") for key in still)  # those of keys, which softmax leaves out


def test_the_number_of_trained_parameters_is_that_of_the_formulas() -> None:
    for name, widths in WIDTHS.items():
        for rank in (4, 8):
            count = sum(value.numel() for value in trained_of(network_of(name, "adaptformer", tune_rank=rank)).values())
            assert count == sum(2 * width * rank + rank + 3 * width + 1 for width in widths)
    count = sum(value.numel() for value in trained_of(network_of("test_vit", "lora", tune_rank=4)).values())
    assert count == 4 * 6 * 64 * 4
    biases, norms = (trained_of(network_of("test_vit", tune)) for tune in ("bias", "norm"))
    assert len(biases) == 6 * 6 and all(key.startswith("blocks.") and key.endswith(".bias") for key in biases)
    assert {key.split(".")[2] for key in norms} == {"norm1", "norm2"} and len(norms) == 6 * 4


def test_low_rank_changes_are_of_queries_and_values_alone() -> None:
    network = network_of("test_vit", "lora", tune_rank=2)
    change, qkv = network.blocks[0].attn.qkv.parametrizations.weight[0], network.blocks[0].attn.qkv
    for up in change.up:
        nn.init.normal_(up)
    delta = (qkv.weight - qkv.parametrizations.weight.original).detach()
    assert not delta[64:128].any()
    given = torch.randn(5, 64)
    for rows, up, down in (
        (slice(0, 64), change.up[0], change.down[0]),
        (slice(128, 192), change.up[1], change.down[1]),
    ):
        torch.testing.assert_close(given @ delta[rows].T, (given @ down.T @ up.T / 2).detach())


@pytest.mark.parametrize(
    ("name", "tune", "message"),
    [
        ("test_resnet", "lora", "--tune lora needs a ViT whose queries, keys and values are one layer"),
        ("test_convnext", "lora", "--tune lora needs a ViT"),
        ("test_resnet", "adaptformer", "--tune adaptformer needs a ViT or ConvNeXt, not test_resnet"),
        ("test_efficientnet", "bias", "--tune bias needs a ViT, ConvNeXt or ResNet"),
    ],
)
def test_what_cannot_be_tuned_so_is_refused(name: str, tune: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_backbone(under(name, tune))
    check_backbone(under(name, "head"))


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("norm", ["layernorm", "simplenorm", "rmsnorm"])
def test_normalisation_layers_of_every_kind_are_tuned(norm: str, convolutional: bool) -> None:
    dims = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "num_classes": 0}
    network = ConvNeXt(**dims, norm_layer=norm, conv_mlp=convolutional)
    adapt(network, under("test_convnext", "norm"))
    own = {f"stages.{stage}.blocks.0.norm.weight" for stage in range(4)}
    assert trained_of(network).keys() - {name.replace("weight", "bias") for name in own} == own


def test_a_tuning_that_trains_nothing_is_refused() -> None:
    network = VisionTransformer(img_size=32, embed_dim=8, depth=1, num_heads=1, norm_layer=nn.Identity, num_classes=0)
    with pytest.raises(UserError, match="--tune norm needs a network whose blocks have such parameters, not test_vit;"):
        adapt(network, under("test_vit", "norm"))
    adapt(network, under("test_vit", "head"))


@pytest.mark.parametrize("tune", ["adaptformer", "lora"])
def test_networks_without_a_layer_call_for_queries_have_adapters_too(tune: str) -> None:
    name, size = "eva02_tiny_patch14_224", 28
    bare, adapted = (Backbones(under(name, each, image_size=size), seed=0).new().eval() for each in ("full", tune))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        before = bare(images)
        assert torch.equal(adapted(images), before)
        for value in trained_of(adapted).values():
            nn.init.normal_(value)
        assert not torch.equal(adapted(images), before)


@pytest.mark.parametrize("name", ["elf", "oltr", "bbn", "ride", "sade", "ncl"])
def test_methods_that_look_inside_or_have_further_encoders_are_refused(
    name: str, make_spec: Any, tiny_protocol: Protocol
) -> None:
    with pytest.raises(UserError, match=f"--tune head freezes the backbone, of which .* needed by {name};"):
        make_spec(name, protocol=replace(tiny_protocol, tune="head"))


class _Killed(BaseException):
    pass


class _Killing:
    """Shows nothing, and ends the process after an epoch."""

    def __init__(self) -> None:
        self.epochs = 0

    def stage(self, name: str, epochs: int, done: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        self.epochs += 1
        raise _Killed


TRIALS = [("ce", "test_vit", "adaptformer"), ("crt", "test_vit", "lora"), ("ce", "test_convnext", "adaptformer")]
TRIALS += [
    ("gpaco", "test_vit", "adaptformer"),
    ("gpaco", "test_vit", "lora"),
    ("flex", "test_resnet", "bias"),
    ("weight_balancing", "test_resnet", "head"),
]


@pytest.mark.parametrize(("method", "name", "tune"), TRIALS)
def test_trials_resume_to_the_bit_and_keep_no_frozen_part(
    method: str,
    name: str,
    tune: str,
    make_spec: Any,
    tiny_protocol: Protocol,
    numbers_of: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    protocol = replace(tiny_protocol, backbone=name, image_size=32, tune=tune, epochs=2)
    given = {"momentum": 0.999} if (method, tune) == ("gpaco", "lora") else {}
    whole, killed = (make_spec(method, out=tmp_path / out, protocol=protocol, **given) for out in ("whole", "killed"))
    run_trial(whole)
    killing, frozen = _Killing(), {f"backbone.{key}" for key in frozen_tensors(network_of(name, tune))}
    for _ in range(100):
        try:
            run_trial(killed, display=killing)
            break
        except _Killed:
            held = read_tensors(killed.folder / "journal" / "checkpoint.pt")["tensors"]
            held_names = {key.replace("key_backbone.", "backbone.") for key in held["method"]}
            assert frozen and not held_names & frozen and held_names
            assert len(held["optimizer"]["param_groups"][0]["params"]) < len(frozen)
    assert killing.epochs >= 2 and numbers_of(killed) == numbers_of(whole)
    one, other = (read_tensors(spec.folder / "model.pt") for spec in (whole, killed))
    assert one.keys() == other.keys() >= frozen and all(torch.equal(one[key], other[key]) for key in one)
    shared = [read_tensors(path) for path in whole.cache.glob("*.pt")]
    assert bool(shared) == (method in ("ce", "crt")) and not any(entry.keys() & frozen for entry in shared)
    kept = Backbones(protocol, protocol.seed).new().state_dict()
    assert all(torch.equal(one[key], kept[key.removeprefix("backbone.")]) for key in frozen)
    cost = json.loads((whole.folder / "result.json").read_text())["cost"]
    assert 0 < cost["trained_parameters"] < cost["parameters"]


def test_copies_are_kept_without_what_is_frozen_but_with_what_a_method_trains_of_them() -> None:
    backbone = network_of("test_vit", "bias")
    follower, trained = copy.deepcopy(backbone).requires_grad_(False), copy.deepcopy(backbone).requires_grad_(True)
    method = nn.ModuleDict({"backbone": backbone, "follower": follower, "trained": trained})
    kept = TrainedState(method).get().keys()
    names = backbone.state_dict().keys()
    for part in ("backbone", "follower"):
        assert {name for name in names if f"{part}.{name}" in kept} == names - frozen_tensors(backbone)
    assert all(f"trained.{name}" in kept for name in names)
