"""The model card of an exported network, in the form of the Hugging Face hub, written from the trial's record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from ltbench.benchmarks.analysis.metrics import METRICS, cross_entropy
from ltbench.benchmarks.analysis.reliability.calibration import AT_BOUND, at_bound, scaled_calibration_error
from ltbench.benchmarks.analysis.rendering import markdown_escaped
from ltbench.benchmarks.serving.decisions import Proportion
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.serving.portable import weights_licence

USE = {
    "onnx": """```python
import json, numpy as np, onnxruntime
from PIL import Image, ImageOps

about = json.load(open("preprocessing.json"))
size, image = about["stored_size"], Image.open("image.jpg")
image.draft("RGB", (2 * size, 2 * size))
image = ImageOps.exif_transpose(image).convert("RGB").resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255
logits, probabilities = onnxruntime.InferenceSession("model.onnx").run(None, {"images": pixels})
print(dict(zip(about["class_names"], probabilities[0].tolist())))
```""",
    "torchscript": """```python
import json, numpy as np, torch
from PIL import Image, ImageOps

about = json.load(open("preprocessing.json"))
size, image = about["stored_size"], Image.open("image.jpg")
image.draft("RGB", (2 * size, 2 * size))
image = ImageOps.exif_transpose(image).convert("RGB").resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255)
logits, probabilities = torch.jit.load("model.pt")(pixels)
print(dict(zip(about["class_names"], probabilities[0].tolist())))
```""",
    "timm-folder": """```python
import timm

network = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
```

timm's transform resizes once, the network was trained and tested on images that were resized twice
(`preprocessing.json`): probabilities differ a little. They are `softmax(logits / temperature)`.""",
    "safetensors": """Weights are named as the modules of the method in ltbench; those of the timm backbone begin with
`backbone.`.

```python
import json, timm
from safetensors.torch import load_file

about = json.load(open("preprocessing.json"))
backbone = timm.create_model(about["backbone"], num_classes=0, **about["model_args"])
weights = load_file("model.safetensors")
backbone.load_state_dict({name[9:]: own for name, own in weights.items() if name.startswith("backbone.")})
```""",
}
"""How each format is used, by its name."""

_USE_ADAPTED = """Weights are named as the modules of the method in ltbench; those of the timm backbone begin with
`backbone.`. Layers were added to the backbone, so that timm alone cannot build the network: use ltbench
(`ltbench.load_model` of the trial), or the formats onnx and torchscript."""

_HEADLINE = ("mean_class_accuracy", "top1", "macro_f1", "macro_auroc")


def model_card(model: TrialModel, kind: str, compared_on: str, difference: float) -> str:
    """Return the card as Markdown with its header of metadata.

    Parameters
    ----------
    kind : format of the export
    compared_on, difference : images on which the export was compared with the trained network, and what was found
    """
    name = f"{model.record.result.method}-{model.record.result.data.dataset}-r{model.record.result.data.ratio:g}"
    header = yaml.safe_dump(_metadata(model, name), sort_keys=False, allow_unicode=True)
    checked = f"Compared with the trained network on {compared_on}: logits differ by at most {difference:.2g}."
    use = _USE_ADAPTED if kind == "safetensors" and model.protocol.has_adapters else USE[kind]
    sections = [*_sections(model), ("Use", f"{use}\n\n{checked}")]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"---\n{header}---\n\n# {markdown_escaped(name)}\n\n{_summary(model)}\n\n{body}\n"


def _metadata(model: TrialModel, name: str) -> dict[str, Any]:
    data, test = model.record.result.data, model.record.result.test
    metrics = [
        {"type": metric, "name": METRICS[metric], "value": round(float(test[metric]), 6)}  # type: ignore[literal-required]
        for metric in _HEADLINE
        if test.get(metric) is not None
    ]
    return {
        "license": "other",
        "license_name": f"data-{re.sub(r'[^a-z0-9.]+', '-', data.licence.lower()).strip('-') or 'unknown'}",
        **weights_licence(model),
        "library_name": "ltbench",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "long-tailed", "ltbench", model.record.result.method],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": data.title, "type": data.dataset, "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def _summary(model: TrialModel) -> str:
    result, weights = model.record.result, weights_licence(model)
    started = "".join(f"; of the starting weights: {markdown_escaped(licence)}" for licence in weights.values())
    return (
        f"A {markdown_escaped(model.protocol.backbone)} for {len(model.class_names)} classes, trained by the method "
        f"{markdown_escaped(result.method)} of ltbench on {markdown_escaped(result.data.title)}. "
        f"Licence of the data: {markdown_escaped(result.data.licence)}{started}.\n\n"
        "**For research only. Not a medical device; not for diagnosis or treatment.**"
    )


def _sections(model: TrialModel) -> Iterator[tuple[str, str]]:
    yield "Data", "\n".join(_listed(_data(model)))
    yield "Training", "\n".join(_listed(_training(model)))
    yield "Test results", _results(model)
    yield "Calibration", _calibration(model)
    yield "Limits", "\n".join(f"- {line}" for line in _limits(model))


def _data(model: TrialModel) -> Mapping[str, str]:
    data = model.record.result.data
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, data.class_counts, strict=True))
    shared = [
        f"{pair}: {own.images} images"
        + (
            ""
            if own.lesion_images is None
            else f", {own.lesion_images} of {own.total} show a {data.group_name} of both"
        )
        for pair, own in data.overlap.items()
    ]
    return {
        "Dataset": data.title,
        "Citation": data.citation,
        "Licence of the data": data.licence,
        "Split": f"{data.split}, ratio {data.ratio:g}; SHA-256 {model.record.result.split_digest[:16]}",
        "Training images": counts,
        "Shared between parts": "; ".join(shared),
        "Notes": " ".join(data.notes),
    }


def _training(model: TrialModel) -> Mapping[str, str]:
    result, cost, protocol = model.record.result, model.record.result.cost, model.protocol
    values = ", ".join(f"{name}={value}" for name, value in result.hyperparameters.items())
    return {
        "Method": f"{result.method}{f' ({values})' if values else ''}",
        "Protocol": f"{protocol.preset}, {protocol.image_size} pixels, at most {protocol.epochs} epochs of batches of "
        f"{protocol.batch_size}, {protocol.optimizer} {protocol.lr:g}; SHA-256 {result.protocol_digest[:16]}",
        "Starting weights": _starting_weights(model),
        "Selected": f"epoch {result.selection.epoch + 1} of stage {result.selection.stage}, {result.selection.metric} "
        f"{result.selection.score:.4f} on validation; trial {result.trial}",
        "Cost": f"{cost.train_seconds:.0f} s on {result.device}, {cost.images_seen} images seen, "
        f"{cost.parameters} parameters",
        "Code": f"ltbench {result.code_version}",
    }


def _starting_weights(model: TrialModel) -> str:
    weights = model.record.result.weights
    if weights is None:
        return "random" if model.protocol.weights == "none" else "published ones of the backbone"
    licence, data = weights.licence or "unknown", weights.training_data or "unknown"
    seen: Mapping[object, str] = {True: "may include", False: "do not include", "unknown": "may include (not known)"}
    said = seen[weights.may_have_seen_test]
    return f"{weights.source}, licence {licence}, trained on {data}, which {said} the test images here"


def _results(model: TrialModel) -> str:
    """Return metrics of the test images, and those of each class with Wilson's 95 % intervals."""
    test = model.record.result.test
    ids, labels, logits = model.record.test_predictions()
    predicted, lesions = logits.argmax(axis=1), model.record.lesions(ids)
    overall = [f"{METRICS[metric]} {100 * test[metric]:.2f} %" for metric in _HEADLINE if test.get(metric) is not None]  # type: ignore[literal-required]
    rows = []
    for label, name in enumerate(model.class_names):
        own, called = labels == label, predicted == label
        shares = (
            Proportion.of((own & called)[among], None if lesions is None else lesions[among]).text()
            for among in (own, called)
        )
        rows.append([name, str(own.sum()), *shares])
    headers = ["class", "test images", "accuracy (sensitivity)", "precision"]
    grouped = lesions is not None and len(np.unique(lesions)) < len(lesions)
    group = model.record.result.data.group_name
    counted_as = f"; images of one {group} are taken to be called alike" if grouped else ""
    about = f"{'; '.join(overall)}. In brackets: 95 % intervals of these test images{counted_as}."
    return f"{about}\n\n{_table(headers, rows)}"


def _calibration(model: TrialModel) -> str:
    _, labels, logits = model.record.test_predictions()
    before, after = (100 * scaled_calibration_error(labels, logits, each) for each in (1.0, model.temperature))
    fitted = cross_entropy(*model.validation[1:], model.temperature)
    bound = f" {AT_BOUND.capitalize()}." if at_bound(model.temperature, fitted) else ""
    return (
        f"Probabilities are `softmax(logits / {model.temperature:.6g})`, the temperature fitted on validation images. "
        f"Expected calibration error on test images: {before:.2f} points without it, {after:.2f} with it. They are "
        "calibrated by temperature alone; scores of plain training stand for the training set's shares of the classes; "
        f"`ltbench predict --prior` corrects.{bound}"
    )


def _limits(model: TrialModel) -> Iterator[str]:
    data = model.record.result.data
    _, labels, _ = model.record.test_predictions()
    few = int(np.bincount(labels, minlength=len(model.class_names)).min())
    yield "Research only; not a medical device. No clinical validation, no approval by any authority."
    yield f"It knows {len(model.class_names)} classes and gives every image to one of them, also one of none."
    yield "Images of other devices, sites or groups of people than those of the data were not tested."
    yield f"The smallest class has {min(data.class_counts)} training images; a class has {few} test images or more."
    if any(own.images or own.lesion_images for own in data.overlap.values()):
        yield f"Parts of the split share images or {data.group_name}s (above), so that test results are too good."
    if data.dataset == "synthetic":
        yield "The data are drawn: nothing here says anything about skin."


def _listed(facts: Mapping[str, str]) -> list[str]:
    return [f"- {name}: {markdown_escaped(text)}" for name, text in facts.items() if text]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *([markdown_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
