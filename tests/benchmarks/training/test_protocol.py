"""The protocol: presets, ranges, and a digest of every field."""

import re
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from ltbench.benchmarks.cli.plan_text import protocol_text
from ltbench.benchmarks.training.protocol import PRESET_SUMMARIES, PRESETS, Protocol, protocol_for
from ltbench.datasets.images.augmentation import Augmentation
from ltbench.errors import UserError
from ltbench.files import json_digest

OTHER: dict[str, Any] = {
    "preset": "quick",
    "backbone": "resnet50",
    "image_size": 225,
    "batch_size": 255,
    "lr": 3.0000001e-4,
    "epochs": 99,
    "patience": 21,
    "epoch_length": "steps",
    "precision": "fp32",
    "weights": "file:weights.pth",
    "weights_sha256": "0" * 64,
    "tta": "five_crop",
    "frozen_features": True,
    "tune": "lora",
    "tune_rank": 4,
    "optimizer": "sgd",
    "weight_decay": 1e-9,
    "schedule": "cosine",
    "lr_warmup": 0.1,
    "selection_metric": "top1",
    "budget": "total",
    "init": "ssl",
    "vary_split": True,
    "folds": 5,
    "seed": 1,
    "augmentation": Augmentation(hue=0.0),
}


def test_presets_follow_the_paper() -> None:
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.image_size, paper.batch_size, paper.lr) == ("resnet18", 224, 256, 3e-4)
    assert (paper.optimizer, paper.epochs, paper.patience, paper.weights) == ("adam", 100, 20, "none")
    board = PRESETS["board64"]
    assert (board.backbone, board.image_size, board.batch_size, board.lr) == ("resnet18", 64, 64, 3e-4)
    assert (board.epochs, board.patience, board.epoch_length, board.weights) == (30, 10, "steps", "none")
    assert PRESETS.keys() == PRESET_SUMMARIES.keys() and all(PRESETS[name].preset == name for name in PRESETS)
    changed = protocol_for("paper", epochs=3, lr=None, seed=0)
    assert changed == replace(PRESETS["paper"], epochs=3)
    assert protocol_for("quick") == PRESETS["quick"]
    protocol_for("quick", image_size=16, batch_size=2, epochs=1, patience=1, lr=1e-12, precision="fp32")
    with pytest.raises(FrozenInstanceError):
        PRESETS["paper"].lr = 1.0


def test_digests_are_of_all_fields_and_of_no_order() -> None:
    assert OTHER.keys() == {field.name for field in fields(Protocol)}
    assert PRESETS["paper"].digest().startswith("f47ca730763b")
    assert json_digest({"a": 1, "b": [2]}) == json_digest({"b": [2], "a": 1}) != json_digest({"a": 1, "b": [3]})


def test_a_run_prints_the_fields_that_differ_from_the_preset() -> None:
    changed = replace(PRESETS["paper"], weight_decay=0.1, augmentation=Augmentation(hue=0.0))
    usual = protocol_text(PRESETS["paper"])
    assert protocol_text(changed) == f"{usual}, weight decay 0.1, augmentation hue 0.0"


def test_digests_of_earlier_versions_stay() -> None:
    paper = PRESETS["paper"]
    earlier = paper.as_recorded()
    del earlier["weights"], earlier["weights_sha256"], earlier["augmentation"]["interpolation"]
    for pretrained, weights in ((False, "none"), (True, "timm")):
        read = Protocol.from_json({**earlier, "pretrained": pretrained})
        assert read == replace(paper, weights=weights)
    assert replace(paper, weights="timm").digest().startswith("d421b0a53da2")


def test_a_file_of_weights_is_known_by_its_content() -> None:
    here, there = (replace(PRESETS["paper"], weights=f"file:/{folder}/x.pth", weights_sha256="1") for folder in "ab")
    hub = replace(here, weights="hub:some/model")
    assert here.digest() == there.digest() == hub.digest() != replace(here, weights_sha256="2").digest()
    assert here.as_recorded()["weights"] == "file:x.pth" and hub.as_recorded()["weights"] == "hub:some/model"
    assert Protocol.from_json(here.as_recorded()).digest() == here.digest()
    assert here.without_weights() == PRESETS["paper"]


@pytest.mark.parametrize("name", OTHER)
def test_digest_changes_with_each_field(name: str) -> None:
    paper = PRESETS["paper"]
    if name == "frozen_features":
        paper = replace(paper, tune="head", augmentation=paper.augmentation.without_changes())
    if name == "tune_rank":
        paper = replace(paper, tune="lora")
    assert replace(paper, **{name: OTHER[name]}).digest() != paper.digest()


@pytest.mark.parametrize("field", [field.name for field in fields(Augmentation)])
def test_digest_changes_with_each_field_of_the_augmentation(field: str) -> None:
    value = getattr(Augmentation(), field)
    changed = (*value[:-1], value[-1] + 0.01) if isinstance(value, tuple) else "bicubic"
    changed = value + 0.01 if isinstance(value, float) else changed
    paper = PRESETS["paper"]
    other = replace(paper, augmentation=replace(paper.augmentation, **{field: changed}))
    assert other.digest() != paper.digest()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", -1.0, "--lr must be a number above 0"),
        ("lr", float("inf"), "--lr must be at most 1000.0"),
        ("tune_rank", 0, "--tune-rank must be at least 1"),
        ("tune_rank", 4, "--tune-rank is of --tune lora and adaptformer, not of full"),
        ("tune", "adapter", "unknown tune 'adapter'; did you mean 'adaptformer'"),
        ("lr_warmup", 1.0, "--lr-warmup must be a share of a stage"),
        ("weight_decay", -1.0, "--weight-decay must be a number of at least 0"),
        ("weights", "imagenet", "--weights must be none, timm, timm:TAG, file:PATH or hub:ID, got 'imagenet'"),
        ("weights", "file:", "--weights must be none"),
        ("optimizer", "adan", "unknown optimizer 'adan'; did you mean 'adam'"),
    ],
)
def test_values_out_of_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        protocol_for("paper", **{name: value})


@pytest.mark.parametrize("init", ["ce", "ssl"])
def test_an_encoder_that_is_frozen_is_not_trained_first(init: str) -> None:
    for tune in ("head", "lora"):
        with pytest.raises(UserError, match=f"--init {init}.*--tune {tune}"):
            protocol_for("quick", init=init, tune=tune)
