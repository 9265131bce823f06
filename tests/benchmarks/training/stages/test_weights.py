"""Starting weights: every layout loads through timm to the same network, and a wrong file is one line."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ltbench.benchmarks.analysis.records import Record, StartingWeights
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.tables import tables_of
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.stages.backbones import Backbones, check_backbone
from ltbench.benchmarks.training.stages.provenance import described_weights
from ltbench.benchmarks.training.stages.weights import LocalWeights
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.files import file_hash

SIZES = {"test_vit": 48, "test_resnet": 32, "test_convnext": 64}
State = dict[str, Tensor]
_COMMIT = "0123456789" * 4


def trained(name: str) -> Any:
    """Return a network of five classes whose tensors are all other than initial ones."""
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=5)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.2)
    return network.eval()


def under(name: str, weights: str | Path, **others: Any) -> Protocol:
    given = weights if isinstance(weights, str) else f"file:{weights}"
    return protocol_for("quick", backbone=name, image_size=SIZES[name], weights=given, **others)


def hub_folder(network: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    timm.models.save_for_hf(network, folder, model_config={"pretrained_cfg": {**network.pretrained_cfg}})
    return folder


def nested(name: str, prefix: str = "", **beside: Any) -> Callable[[State], Any]:
    def pack(state: State) -> Any:
        held = {f"{prefix}{key}": value for key, value in state.items()} | beside
        return {name: held, "epoch": 3} if name else held

    return pack


LAYOUTS: dict[str, Callable[[State], Any]] = {
    "plain.pth": nested(""),
    "lightning.pth": nested("state_dict", "module."),
    "mae.pth": nested("model", **{"decoder.weight": torch.zeros(3)}),
    "foreign.pth": nested("", "backbone.", **{"head.classes": torch.zeros(2)}),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_layout_gives_the_same_network(name: str, tmp_path: Path) -> None:
    network = trained(name)
    state = network.state_dict()
    for file, pack in LAYOUTS.items():
        torch.save(pack(state), tmp_path / file)
    save_file(state, tmp_path / "safe.safetensors")
    hub_folder(network, tmp_path / "folder")
    if name == "test_vit":  # position embeddings of 160 pixels are resized
        network.set_input_size(SIZES[name])
        network.pos_embed.data = timm.layers.resample_abs_pos_embed(state["pos_embed"], [3, 3])
    network.reset_classifier(0)
    images, digests = torch.randn(2, 3, SIZES[name], SIZES[name]), set()
    for file in (*LAYOUTS, "safe.safetensors", "folder"):
        protocol = check_backbone(under(name, tmp_path / file))
        with torch.no_grad():
            loaded = Backbones(protocol, seed=3).new().eval()(images)
            torch.testing.assert_close(loaded, network(images), msg=file)
        digests.add(protocol.digest())
        assert protocol.augmentation.mean == (0.5, 0.5, 0.5)
    assert len(digests) == len(LAYOUTS) + 2


def lacking(state: State) -> Any:
    return {key: value for number, (key, value) in enumerate(state.items()) if number % 3}


def doubled(state: State) -> Any:
    return {key: torch.cat([value, value]) if key.endswith("fc1.bias") else value for key, value in state.items()}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lacking, "26 of 78 tensors are missing (first cls_token, patch_embed.proj.bias, blocks.0.attn.qkv.weight)"),
        (doubled, "6 sizes differ, first blocks.0.mlp.fc1.bias [384] in the file, [192] in the network"),
        (lambda state: {"a": torch.zeros(2)}, "78 of 78 tensors are missing"),
        (
            lambda state: {**lacking(state), "pos_embed": torch.zeros(1, 8, 64), "norm.bias": torch.zeros(3)},
            "tensors are missing (first cls_token, patch_embed.proj.bias, blocks.0.attn.qkv.weight), 2 sizes differ",
        ),
        (
            lambda state: {f"{name}.{key}": value for name in ("student", "teacher") for key, value in state.items()},
            "it holds several networks (student., teacher.); save one of them by itself",
        ),
        (lambda state: [1, 2], "it holds no tensors by name"),
        (lambda state: nn.Linear(2, 2), "it is no file of tensors, or one with Python objects beside"),
    ],
)
def test_a_wrong_file_is_one_line(make: Callable[[State], Any], message: str, tmp_path: Path) -> None:
    torch.save(make(trained("test_vit").state_dict()), tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        check_backbone(under("test_vit", tmp_path / "wrong.pth"))
    assert "\n" not in str(raised.value) and "give the weights of this --backbone" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "deeper", "message"),
    [
        ("test_vit", "blocks.6.mlp.fc1.bias", "1 tensor of the file left over in blocks (first blocks.6."),
        ("test_resnet", "layer3.5.conv1.weight", "1 tensor of the file left over in blocks (first layer3.5."),
        ("test_convnext", "stages.2.blocks.9.gamma", "1 tensor of the file left over in blocks (first stages"),
    ],
)
def test_weights_of_a_deeper_network_are_refused(name: str, deeper: str, message: str, tmp_path: Path) -> None:
    network = trained(name)
    beside = {f"{head}.0.weight": torch.zeros(2) for head in ("decoder_blocks", "decoder.blocks", "head.mlp", "fc")}
    state = network.state_dict() | beside
    torch.save(state, tmp_path / "own.pth")
    check_backbone(under(name, tmp_path / "own.pth"))
    folder = hub_folder(network, tmp_path / "folder")
    state[deeper] = torch.zeros(2)
    torch.save(state, tmp_path / "deeper.pth")
    torch.save(nested("state_dict", "backbone.")(state), tmp_path / "lightning.pth")
    save_file(network.state_dict() | {deeper: torch.zeros(2)}, folder / "model.safetensors")
    for file in ("deeper.pth", "lightning.pth", "folder"):
        with pytest.raises(UserError, match=re.escape(message)):
            check_backbone(under(name, tmp_path / file))


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("test_vit", "blocks.2.ls1.gamma"),
        ("test_vit", "blocks.5.adapter.down.weight"),
        ("test_resnet", "layer1.0.se.fc1.weight"),
    ],
)
def test_weights_with_layers_that_the_blocks_lack_are_refused(name: str, beside: str, tmp_path: Path) -> None:
    state = trained(name).state_dict()
    tables = {f"{beside.rpartition('.')[0]}.relative_position_index": torch.zeros(2)}
    torch.save(state | tables, tmp_path / "own.pth")
    check_backbone(under(name, tmp_path / "own.pth"))
    torch.save(state | {beside: torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=re.escape(f"1 tensor of the file left over in blocks (first {beside})")):
        check_backbone(under(name, tmp_path / "other.pth"))


def test_flex_leaves_out_its_pre_training_where_weights_are_given(make_spec: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    protocol = check_backbone(under("test_resnet", file, precision="fp32", epochs=1))
    with pytest.raises(UserError, match="ssl_lr of flex would have no effect with --weights file:"):
        make_spec("flex", protocol=protocol, ssl_lr=0.1)
    spec = make_spec("flex", protocol=protocol)
    run_trial(spec)
    names = [stage["name"] for stage in json.loads((spec.folder / "result.json").read_text())["cost"]["stages"]]
    assert names[0] == "anchors" and "pretrain" not in names


def test_what_is_no_file_of_safetensors(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"8" * 100)
    with pytest.raises(UserError, match="it is no whole file of safetensors") as raised:
        check_backbone(under("test_vit", tmp_path / "cut.safetensors"))
    assert "\n" not in str(raised.value)


def test_what_is_no_file_or_no_folder_of_weights(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = hub_folder(trained("test_vit"), tmp_path / "vit")
    for name, weights, message in (
        ("test_vit", tmp_path / "nowhere.pth", "there is no such file or folder"),
        ("test_vit", tmp_path / "empty", "needs config.json and one of model.safetensors"),
        ("test_resnet", folder, "are of test_vit, not of --backbone test_resnet"),
        ("test_vit", "timm:foo", "unknown weights of test_vit 'timm:foo'"),
    ):
        with pytest.raises(UserError, match=message):
            check_backbone(under(name, weights))


def test_a_folder_of_a_changed_backbone_is_refused(tmp_path: Path) -> None:
    folder = hub_folder(trained("test_resnet"), tmp_path / "weights")
    config, under_folder = json.loads((folder / "config.json").read_text()), under("test_resnet", folder)
    for arguments in ({}, {"img_size": 64, "num_classes": 5, "in_chans": 3, "global_pool": "avg"}):
        (folder / "config.json").write_text(json.dumps({**config, "model_args": arguments}))
        assert LocalWeights.of(under_folder).config is not None
    (folder / "config.json").write_text(json.dumps({**config, "model_args": {"global_pool": "max", "num_classes": 5}}))
    with pytest.raises(UserError, match=r"model_args: global_pool\), .* give the weights file itself") as raised:
        check_backbone(under_folder)
    assert "\n" not in str(raised.value)
    (file,) = (path for path in folder.iterdir() if path.suffix != ".json")
    check_backbone(under("test_resnet", file))


def test_a_trial_refuses_a_file_that_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(trained("test_resnet").state_dict(), file)
    protocol = check_backbone(under("test_resnet", file))
    Backbones(protocol, seed=0).new()
    torch.save(lacking(trained("test_resnet").state_dict()), file)
    with pytest.raises(UserError, match="have changed since the trial was planned"):
        Backbones(protocol, seed=0).new()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Return what makes a cache of the hub, without a network, that holds a model at random weights."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def add(repository: str, name: str) -> Path:
        model = tmp_path / f"models--{repository.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(_COMMIT)
        return hub_folder(trained(name), model / "snapshots" / _COMMIT)

    return add


def test_the_hub_without_a_network(hub_cache: Callable[[str, str], Path]) -> None:
    hub_cache("some/vit_panderm", "test_vit")
    protocol = check_backbone(under("test_vit", "hub:some/vit_panderm"))
    assert len(protocol.weights_sha256) == 64 and protocol.augmentation.interpolation == "bicubic"
    described = described_weights(protocol)
    assert described is not None and described.may_have_seen_test is True
    with pytest.raises(UserError, match="--weights hub:some/other cannot be had"):
        check_backbone(under("test_vit", "hub:some/other"))


def test_weights_of_timm_are_fetched_and_known_by_their_file(hub_cache: Callable[[str, str], Path]) -> None:
    folder = hub_cache("timm/test_vit.r160_in1k", "test_vit")
    (file,) = (path for path in folder.iterdir() if path.suffix != ".json")
    protocol = check_backbone(under("test_vit", "timm"))
    assert (protocol.weights, protocol.weights_sha256) == ("timm:r160_in1k", file_hash(file))
    assert protocol == check_backbone(under("test_vit", "timm:r160_in1k"))
    described = described_weights(protocol)
    assert described is not None
    assert (described.source, described.sha256) == ("timm:test_vit.r160_in1k", protocol.weights_sha256)
    state = Backbones(protocol, seed=0).new().state_dict()
    held = timm.models.load_state_dict(file, weights_only=True)
    torch.testing.assert_close(state["blocks.0.attn.qkv.weight"], held["blocks.0.attn.qkv.weight"])
    with pytest.raises(UserError, match="--weights timm:r160_in1k cannot be had") as raised:
        check_backbone(under("test_resnet", "timm"))
    assert "\n" not in str(raised.value)


def test_normalisation_is_that_of_the_starting_weights(hub_cache: Callable[[str, str], Path]) -> None:
    for name in ("test_resnet", "test_vit"):
        hub_cache(f"timm/{name}.r160_in1k", name)
    plain, published = (under("test_resnet", given) for given in ("none", "timm"))
    assert check_backbone(plain) == plain
    assert check_backbone(published).augmentation.mean == (0.5, 0.5, 0.5) != plain.augmentation.mean
    cubic = check_backbone(under("test_vit", "timm:r160_in1k"))
    assert check_backbone(published).augmentation.interpolation == "bilinear" != cubic.augmentation.interpolation


def test_a_record_names_the_weights_and_tables_say_what_they_may_have_seen(make_spec: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(trained("test_resnet").state_dict(), file)
    protocol = replace(check_backbone(under("test_resnet", file, precision="fp32", epochs=1)), image_size=16)
    spec = make_spec(protocol=protocol)
    run_trial(spec)
    record = Record.read(spec.folder)
    assert record.result.weights == StartingWeights("file:weights.pth", protocol.weights_sha256, None, None, "unknown")
    assert record.result.protocol_digest == protocol.digest()
    assert str(tmp_path) not in (spec.folder / "result.json").read_text()
    (table,) = tables_of("overview", settings_of([record]))
    assert ", weights file:weights.pth" in table.title
    assert any(
        "file:weights.pth (what they were trained on is not known) may have seen" in note for note in table.notes
    )
    config = json.loads((spec.folder / "config.json").read_text())
    assert config["request"]["protocol"]["weights"] == f"file:{file}" and "weights_sha256" in config["protocol"]


@pytest.mark.parametrize(
    ("backbone", "weights", "source", "data", "seen"),
    [
        ("resnet18", "timm:a1_in1k", "timm:resnet18.a1_in1k", "ImageNet", False),
        (
            "vit_small_patch14_reg4_dinov2",
            "timm",
            "timm:vit_small_patch14_reg4_dinov2.lvd142m",
            "images of the web",
            True,
        ),
        ("vit_small_patch16_224.dino", "timm", "timm:vit_small_patch16_224.dino", "ImageNet", False),
        ("regnety_160", "timm:swag_ft_in1k", "timm:regnety_160.swag_ft_in1k", "images of the web", True),
        ("regnety_320", "timm:seer_ft_in1k", "timm:regnety_320.seer_ft_in1k", "images of the web", True),
        ("resnet18", "file:in1k.pth", "file:in1k.pth", None, "unknown"),
        ("resnet18", "file:panderm.pth", "file:panderm.pth", "medical images, public sets among them", True),
    ],
)
def test_what_weights_were_trained_on(
    backbone: str,
    weights: str,
    source: str,
    data: str | None,
    seen: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(weights.removeprefix("file:")).touch()
    described = described_weights(protocol_for("quick", backbone=backbone, weights=weights, weights_sha256="1"))
    assert described is not None
    assert (described.source, described.training_data, described.may_have_seen_test) == (source, data, seen)


@pytest.mark.parametrize(
    ("weights", "tag", "seen"),
    [
        ("folder", "a1_in1k", "unknown"),
        ("folder", "swag_ft_in1k", True),
        ("hub:some/resnet_in1k", "a1_in1k", "unknown"),
        ("hub:timm/resnet", "a1_in1k", False),
        ("hub:timm/resnet", "seer_ft_in1k", True),
    ],
)
def test_a_tag_of_others_never_says_that_test_images_are_unseen(
    weights: str, tag: str, seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained("test_resnet")
    network.pretrained_cfg = {**network.pretrained_cfg, "tag": tag}
    folder = hub_folder(network, tmp_path / "folder")
    monkeypatch.setattr("ltbench.benchmarks.training.stages.weights._hub_folder", lambda name: folder)
    described = described_weights(under("test_resnet", folder if weights == "folder" else weights))
    assert described is not None and described.may_have_seen_test == seen


def test_no_weights_of_the_web_count_as_those_of_imagenet() -> None:
    words = "swag seer ig1b yfcc laion clip siglip merged datacomp openai dfn webli lvd142m lvd1689m m30m m38m jft"
    names = [name for name in timm.list_pretrained() if any(word in name for word in words.split())]
    assert len(names) > 100
    for name in names:
        described = described_weights(protocol_for("quick", backbone=name, weights="timm"))
        assert described is not None and described.may_have_seen_test is True, name
