"""`ltbench export`: what is written scores as the trained network, without ltbench; all else is one line."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import ltbench
from ltbench.benchmarks.analysis.records import StartingWeights
from ltbench.benchmarks.export import main
from ltbench.benchmarks.serving import exporting, formats
from ltbench.benchmarks.serving.card import model_card
from ltbench.benchmarks.serving.exporting import comparison_images, export
from ltbench.benchmarks.serving.formats import FORMATS, to_onnx
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.serving.portable import description
from ltbench.benchmarks.training.stages.backbones import size_settings
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError


@pytest.fixture
def at_hand(trained: Any, results: Path, tiny_dataset: SplitDataset) -> Path:
    """Return a trial whose images lie where a run puts them."""
    images = results / "cache" / "images"
    if not images.exists():
        shutil.copytree(tiny_dataset.store().folder.parent, images)
    return trained()


def read_back(kind: str, folder: Path) -> Any:
    """Return an export as a function of decoded images, uint8 [B, 3, S, S], by the package of its format alone."""
    about = json.loads((folder / "preprocessing.json").read_text())
    if kind == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(folder / "model.onnx")
        return lambda pixels: session.run(None, {"images": pixels.astype(np.float32) / 255})
    if kind == "torchscript":
        network = torch.jit.load(folder / "model.pt")
        return lambda pixels: [each.detach().numpy() for each in network(torch.from_numpy(pixels).float() / 255)]
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))

    def score(pixels: np.ndarray) -> list[np.ndarray]:
        size = (about["image_size"],) * 2
        images = torch.nn.functional.interpolate(
            torch.from_numpy(pixels).float() / 255, size, mode="bilinear", antialias=True
        )
        logits = network((images - mean) / std)
        return [logits.detach().numpy(), (logits / about["temperature"]).softmax(1).detach().numpy()]

    return score


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "timm-folder"])
def test_an_export_scores_test_images_without_ltbench(
    kind: str, at_hand: Path, tiny_dataset: SplitDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    out = tmp_path / "new" / kind
    assert main([str(at_hand), "--format", kind, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: on 32 validation images logits differ") and len(printed.splitlines()) == 1
    assert not list(out.parent.glob("*.tmp"))
    model, part = ltbench.load_model(at_hand), tiny_dataset.part("test")
    _, _, recorded = model.record.test_predictions()
    score = read_back(kind, out)
    for size in (1, 7, 40):
        logits, probabilities = score(part.gather(np.arange(size)).numpy())
        np.testing.assert_allclose(logits, recorded[:size], atol=1e-4)
        scaled = (torch.from_numpy(recorded[:size]).double() / model.temperature).softmax(1)
        np.testing.assert_allclose(probabilities, scaled, atol=1e-4)


def test_weights_as_safetensors(trained: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, out = ltbench.load_model(trained("gpaco")), tmp_path / "weights"
    export(model, "safetensors", out)
    weights, state = load_file(out / "model.safetensors"), model.method.state_dict()
    assert all(torch.equal(own, state[name]) for name, own in weights.items())
    about = json.loads((out / "preprocessing.json").read_text())
    backbone = timm.create_model(about["backbone"], num_classes=0, **about["model_args"])
    backbone.load_state_dict({name[9:]: own for name, own in weights.items() if name.startswith("backbone.")})
    assert about["preprocessing_inside"] is False and about["input"]["shape"] == ["batch", 3, 16, 16]


def test_the_card_s_code_builds_a_transformer_of_the_trained_size(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"backbone": "test_vit", "image_size": 32, "tune": "norm"}
    export(ltbench.load_model(trained("ce", changes=changes)), "safetensors", tmp_path / "vit")
    text = (tmp_path / "vit" / "README.md").read_text()
    (tmp_path / "vit" / "card.py").write_text(text[text.index("```python\n") + 10 : text.rindex("```")])
    monkeypatch.chdir(tmp_path / "vit")
    names = runpy.run_path("card.py")
    assert names["backbone"](torch.zeros(1, 3, 32, 32)).shape == (1, 64)


@pytest.mark.parametrize("name", ["tau_norm", "la_posthoc", "mislas"])
def test_heads_that_are_linear_in_the_end_fit_into_a_folder_for_timm(name: str, trained: Any, tmp_path: Path) -> None:
    assert export(ltbench.load_model(trained(name)), "timm-folder", tmp_path / "out").difference < 1e-4


@pytest.mark.parametrize("name", ["elf", "ncm", "ncl"])
def test_methods_that_score_in_their_own_way_are_exported_too(name: str, trained: Any, tmp_path: Path) -> None:
    model = ltbench.load_model(trained(name))
    assert export(model, "torchscript", tmp_path / "torchscript").difference < 1e-4
    with pytest.raises(UserError, match=rf"the network of {name} is not a timm backbone with a linear head alone"):
        export(model, "timm-folder", tmp_path / "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["torchscript"]


@pytest.mark.parametrize("name", ["elf", "oltr"])
def test_operators_that_onnx_lacks(name: str, trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert export(ltbench.load_model(trained(name)), "onnx", tmp_path / "onnx", opset=18).difference < 1e-4
    onnx = pytest.importorskip("onnx").load(tmp_path / "onnx" / "model.onnx")
    assert onnx.opset_import[0].version == 18
    properties = {each.key: each.value for each in onnx.metadata_props}
    assert properties["intended_use"] == "research only, not a medical device"
    assert json.loads(properties["class_names"])[0] == "reticular"


def test_the_card_says_what_the_record_says(at_hand: Path, tmp_path: Path) -> None:
    model = ltbench.load_model(at_hand)
    export(model, "torchscript", tmp_path / "out")
    _, header, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    card, test = yaml.safe_load(header), model.record.result.test
    assert card["license_name"] == "data-mit" and card["pipeline_tag"] == "image-classification"
    (measured,) = card["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in measured["metrics"]}["top1"] == pytest.approx(test["top1"])
    assert "Not a medical device" in body and "| pale-centred | 5 |" in body
    assert f"softmax(logits / {model.temperature:.6g})" in body and "- Licence of the data: MIT" in body
    assert "logits differ by at most" in body and "They are calibrated by temperature alone" in body


@pytest.mark.parametrize(
    ("weights", "own", "said"),
    [
        ("none", None, None),
        ("timm", None, "unknown"),  # a record of an earlier version
        ("file:a.pth", StartingWeights("file:a.pth", None, None, None, "unknown"), "unknown"),
        ("timm", StartingWeights("timm:a.b", None, "cc-by-nc-4.0", None, False), "cc-by-nc-4.0"),
    ],
)
def test_the_licence_of_the_starting_weights_travels(
    weights: str, own: StartingWeights | None, said: str | None, trained: Any
) -> None:
    model = ltbench.load_model(trained())
    model.protocol = replace(model.protocol, weights=weights)
    model.record = replace(model.record, result=replace(model.record.result, weights=own))
    _, header, body = model_card(model, "onnx", "images", 0.0).split("---\n", 2)
    for facts in (yaml.safe_load(header), formats._properties(model), description(model, inside=True)):
        assert facts.get("weights_licence") == said
    assert (f"Licence of the data: MIT; of the starting weights: {said}." in body) == (said is not None)


def test_the_code_of_the_card_runs(at_hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(ltbench.load_model(at_hand), "torchscript", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    code = text[text.index("```python\n") + 10 : text.rindex("```")]
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "out" / "image.jpg")
    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / "out" / "card.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "out" / "card.py"))
    model = ltbench.load_model(at_hand)
    expected = model.predict_proba([tmp_path / "out" / "image.jpg"])
    torch.testing.assert_close(names["probabilities"].double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_an_export_that_scores_otherwise_is_not_kept(
    wrong: float, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(model: TrialModel, folder: Path, opset: int | None) -> Any:
        scorer = FORMATS["torchscript"](model, folder, opset)
        return lambda images: scorer(images) + wrong

    monkeypatch.setattr(exporting, "FORMATS", {"shifted": shifted})
    with pytest.raises(UserError, match="otherwise than the trained one, by"):
        export(ltbench.load_model(trained()), "shifted", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_network_that_scores_otherwise_than_recorded_is_refused(at_hand: Path, tmp_path: Path) -> None:
    model = ltbench.load_model(at_hand)
    model.method.backbone.act1 = torch.nn.Tanh()
    with pytest.raises(UserError, match=r"scores 32 validation images otherwise than recorded, by .* use that version"):
        export(model, "torchscript", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_images_for_the_comparison(at_hand: Path, tiny_dataset: SplitDataset, tmp_path: Path) -> None:
    model = ltbench.load_model(at_hand)
    images, what, recorded = comparison_images(model)
    assert what == "32 validation images" and (images == tiny_dataset.part("val").gather(np.arange(32)).numpy()).all()
    assert recorded is not None and (recorded == model.validation[2]).all()
    model.protocol = replace(model.protocol, precision="bf16")
    assert comparison_images(model)[2] is None
    elsewhere = shutil.copytree(at_hand.parent, tmp_path / "row") / at_hand.name
    images, what, recorded = comparison_images(ltbench.load_model(elsewhere))
    assert recorded is None and what.startswith("64 random images") and images.shape == (64, 3, 19, 19)


def test_a_missing_package_is_one_line(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"needs the package onnx; pip install -e '.\[export\]'"):
        to_onnx(ltbench.load_model(trained()), tmp_path, None)


def test_published_input_sizes_are_kept(tiny_protocol: Any) -> None:
    assert size_settings(replace(tiny_protocol, backbone="vit_tiny_patch16_224")) == {"img_size": 16}


BAD = [
    (["nowhere", "--format", "onnx"], "nowhere is no folder of a finished trial"),
    (["{trial}", "--format", "onxx"], "unknown format 'onxx'; did you mean 'onnx'?"),
    (["{trial}", "--format", "timm-folder", "--opset", "18"], "--opset is of ONNX"),
    (["{trial}", "--format", "onnx", "--opset", "3"], "--opset must be 18 to 30, got 3"),
    (["{trial}", "--format", "onnx", "--plugin", "none.py"], "none.py does not exist"),
    (["{trial}", "--format", "torchscript", "--out", "there"], "--out there is there already"),
    (["{trial}", "--format", "torchscript", "--out", "there/file/new"], "no folder that is writable"),
    (["unvalidated/trial0", "--format", "torchscript"], "predictions.npz is not readable"),
    (["{trial}"], "the following arguments are required: --format"),
]


@pytest.mark.parametrize(("words", "reason"), BAD)
def test_bad_input_is_one_line(words: list[str], reason: str, trained: Any, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    shutil.copytree(trained().parent, tmp_path / "unvalidated")
    (tmp_path / "unvalidated" / "trial0" / "predictions.npz").unlink()
    out = [] if "--out" in words else ["--out", "new"]
    refuses(main, [word.format(trial=trained()) for word in words] + out, reason)
