"""ELF: exits of any timm backbone with stages, early exit in evaluation, exits of each class in the record."""

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.methods import Batch, Method, Progress, Task, create

COUNTS = np.array([9, 6, 4, 3, 2, 1, 5, 8], dtype=np.int64)


def method(backbone: str = "test_resnet", **options: Any) -> Method:
    torch.manual_seed(0)
    return create("elf", Task(8, COUNTS, 64), timm.create_model(backbone, num_classes=0), **options)


@pytest.mark.parametrize(
    ("backbone", "widths"),
    [
        ("test_resnet", [32, 48, 192]),
        ("test_convnext", [24, 32, 48]),
        ("test_efficientnet", None),
        ("resnet18", [64, 128, 256]),
    ],
)
def test_an_exit_after_every_stage(backbone: str, widths: list[int] | None) -> None:
    elf = method(backbone)
    images = torch.randn(2, 3, 64, 64)
    logits = elf.exit_logits(images)
    assert logits.shape == (4, 2, 8) and logits.dtype == torch.float32
    if widths:
        assert [head.in_features for head in elf.exits] == widths
    elf.eval()
    with torch.no_grad():
        torch.testing.assert_close(elf.exit_logits(images)[-1], elf.classify(elf.features(images)))


def test_a_resnet_exits_after_its_layers() -> None:
    elf = method("test_resnet").eval()
    maps = {}
    for name in ("layer1", "layer2", "layer3"):
        layer = getattr(elf.backbone, name)
        layer.register_forward_hook(lambda module, inputs, output, name=name: maps.__setitem__(name, output))
    logits = elf.exit_logits(torch.randn(3, 3, 64, 64))
    for number, name in enumerate(maps):
        torch.testing.assert_close(logits[number], elf.exits[number](maps[name].mean((2, 3))))


def test_more_exits_than_stages_are_refused() -> None:
    with pytest.raises(UserError, match="at least 8 stages, this one has 5"):
        method(exits=8)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 2.0])
def test_prediction_takes_the_first_sure_exit(threshold: float) -> None:
    elf = method(threshold=threshold).eval()
    with torch.no_grad():
        images = torch.randn(32, 3, 64, 64)
        logits, details = elf.inspect(images)
        every = elf.exit_logits(images)
        sure = every.softmax(2).amax(2) >= threshold
        for image, taken in enumerate(details["exit"].tolist()):
            assert taken == next((exit_ for exit_ in range(3) if sure[exit_, image]), 3)
            torch.testing.assert_close(logits[image], every[taken, image])
        torch.testing.assert_close(elf.predict(images), logits)
        assert details["last_exit_class"].tolist() == every[-1].argmax(1).tolist()


def test_above_one_every_exit_is_supervised() -> None:
    elf = method(threshold=1.5)
    batch = Batch((torch.randn(6, 3, 64, 64),), torch.tensor([0, 1, 2, 7, 7, 3]), np.arange(6))
    terms = elf.loss(batch, Progress(0, 1))
    every = sum(functional.cross_entropy(logits, batch.targets) for logits in elf.exit_logits(batch.images))
    torch.testing.assert_close(terms["loss"], every)
    assert terms["mean_exit"] == 3


def test_the_record_counts_the_exits_of_each_class(make_spec: Any) -> None:
    spec = make_spec("elf", threshold=0.3)
    run_trial(spec)
    arrays = read_predictions(spec.folder / "predictions.npz")
    told = json.loads((spec.folder / "result.json").read_text())["inspected"]
    for part in ("val", "test"):
        labels, taken, counted = arrays[f"{part}_labels"], arrays[f"{part}_exit"], told[part]["exit"]
        assert taken.shape == labels.shape and set(taken.tolist()) <= {0, 1, 2, 3}
        assert [sum(row) for row in counted["counts"]] == np.bincount(labels, minlength=8).tolist()
        for label, row in enumerate(counted["counts"]):
            assert row == [int((taken[labels == label] == value).sum()) for value in counted["values"]]
        said, last = told[part]["last_exit_class"], arrays[f"{part}_last_exit_class"]
        for label, row in enumerate(said["counts"]):
            right = dict(zip(said["values"], row, strict=True)).get(label, 0)
            assert right / sum(row) == pytest.approx((last[labels == label] == label).mean())
        stayed = taken == 3
        assert (arrays[f"{part}_logits"].argmax(1) == last)[stayed].all()


@pytest.mark.parametrize("backbone", ["hiera_tiny_224", "sam2_hiera_tiny"])
def test_a_backbone_that_runs_no_further_than_it_is_asked_to(backbone: str) -> None:
    size = {"img_size": (64, 64)} if backbone == "hiera_tiny_224" else {}
    network = timm.create_model(backbone, num_classes=0, embed_dim=8, num_heads=1, **size)
    elf, images = create("elf", Task(8, COUNTS, 64), network).eval(), torch.randn(2, 3, 64, 64)
    assert [head.in_features for head in elf.exits] == [8, 16, 32]
    with torch.no_grad():
        logits = elf.exit_logits(images)
        assert logits.shape == (4, 2, 8)
        torch.testing.assert_close(logits[-1], elf.classify(elf.features(images)))
