"""Formats of exported networks: each is written into a folder and read back as a function, for comparison."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.serving.portable import Portable, weights_licence
from ltbench.benchmarks.serving.trials import trained_method
from ltbench.benchmarks.training.stages.backbones import size_settings
from ltbench.errors import UserError
from ltbench.files import write_bytes, write_json
from ltbench.methods.base import Method, feature_width

Scorer = Callable[[Tensor], Tensor]
"""What was exported, read back: images in 0..1, float [B, 3, S, S], to logits [B, K]."""

_DISTANCES = (torch.ops.aten.cdist.default, torch.ops.aten._cdist_forward.default)
_EXAMPLES = 2  # a batch of 1 would be taken for a size that never changes
_EMBEDDED_PARAMETERS = 4 * 10**8  # of which the file stays below the 2 GB of protocol buffers


def to_torchscript(model: TrialModel, folder: Path, opset: int | None) -> Scorer:
    """Write `model.pt`, a traced module."""
    path, portable = folder / "model.pt", Portable(model).eval()
    with _refused(model, "torchscript"):
        torch.jit.trace(portable, (_example(model),), check_trace=False).save(str(path))
        loaded = torch.jit.load(str(path))
    return lambda images: loaded(images)[0]


def to_onnx(model: TrialModel, folder: Path, opset: int | None) -> Scorer:
    """Write `model.onnx`, of any batch size, with class names, temperature and licence in its metadata."""
    onnx, runtime = _module("onnx"), _module("onnxruntime")
    _module("onnxscript")
    path, portable = folder / "model.onnx", Portable(model).eval()
    parameters = sum(each.numel() for each in portable.parameters())
    with _refused(model, "onnx"):
        shapes = {"images": {0: torch.export.Dim("batch")}}
        program = torch.export.export(portable, (_example(model),), dynamic_shapes=shapes)
        torch.onnx.export(
            program.run_decompositions(dict.fromkeys(_DISTANCES, _distances)),
            (),
            str(path),
            dynamo=True,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            opset_version=opset,
            external_data=parameters > _EMBEDDED_PARAMETERS,
            verbose=False,
        )
        written = onnx.load(str(path), load_external_data=False)
        onnx.helper.set_model_props(written, _properties(model))
        onnx.save(written, str(path))
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def to_safetensors(model: TrialModel, folder: Path, opset: int | None) -> Scorer:
    """Write `model.safetensors`, all weights by the names of the method's modules."""
    safetensors = _module("safetensors.torch")
    write_bytes(folder / "model.safetensors", safetensors.save(_tensors(model.method), _properties(model)))
    again, _ = trained_method(model.record, torch.device("cpu"))
    for tensor in _tensors(again, copied=False).values():
        tensor.zero_()  # so that whatever the file lacks is noticed
    again.load_state_dict(safetensors.load_file(folder / "model.safetensors"), strict=False)
    portable = Portable(model)
    return lambda images: portable.scores(again.eval().predict, images)


def to_timm_folder(model: TrialModel, folder: Path, opset: int | None) -> Scorer:
    """Write `config.json` and `model.safetensors` as `timm.create_model("local-dir:FOLDER")` reads them."""
    safetensors = _module("safetensors.torch")
    network, portable = _timm_network(model), Portable(model)
    write_bytes(folder / "model.safetensors", safetensors.save(_tensors(network), _properties(model)))
    write_json(folder / "config.json", _timm_config(model, network))
    loaded = _classifying(model)
    loaded.load_state_dict(safetensors.load_file(folder / "model.safetensors"))
    return lambda images: portable.scores(loaded, images)


FORMATS: Mapping[str, Callable[[TrialModel, Path, int | None], Scorer]] = {
    "safetensors": to_safetensors,
    "onnx": to_onnx,
    "torchscript": to_torchscript,
    "timm-folder": to_timm_folder,
}
"""What writes each format and returns it, read back."""

INSIDE = ("onnx", "torchscript")
"""Formats that hold the preprocessing."""


def _distances(first: Tensor, second: Tensor, norm: float, mode: int | None) -> Tensor:
    """Return what `torch.cdist` does, which ONNX lacks, of [..., n, D] and [..., m, D]."""
    return torch.linalg.vector_norm(first.unsqueeze(-2) - second.unsqueeze(-3), norm, dim=-1)


def _timm_network(model: TrialModel) -> Any:
    """Return timm's network with its own classifier, in place of backbone and head."""
    linear, network = _linear(model.method), _classifying(model)
    classifier = network.get_classifier()
    fits = linear is not None and isinstance(classifier, nn.Linear) and classifier.weight.shape == linear.weight.shape
    if linear is not None and fits:
        missing, unexpected = network.load_state_dict(model.method.backbone.state_dict(), strict=False)
        own = {name for name, value in network.named_parameters() if value in set(classifier.parameters())}
        fits = not unexpected and set(missing) == own
        classifier.load_state_dict(linear.state_dict())
    if not fits:
        added = f" ({model.protocol.tune} added layers to it)" if model.protocol.has_adapters else ""
        raise UserError(
            f"the network of {model.record.result.method} is not a timm backbone with a linear head alone"
            f"{added}, which timm-folder is for; use --format onnx, torchscript or safetensors"
        )
    return network


@torch.no_grad()
def _linear(method: Method) -> nn.Linear | None:
    """Return what `classify` is as one linear layer; None where it is none, or where scores come otherwise."""
    if any(getattr(type(method), hook) is not getattr(Method, hook) for hook in ("features", "predict")):
        return None
    width = feature_width(method.backbone)
    linear = nn.Linear(width, method.task.num_classes)
    bias = method.classify(torch.zeros(1, width))
    linear.load_state_dict({"weight": (method.classify(torch.eye(width)) - bias).T, "bias": bias[0]})
    drawn = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    tried = torch.cat([scale * drawn for scale in (0.1, 1.0, 10.0)])
    return linear if torch.allclose(linear(tried), method.classify(tried), atol=1e-4, rtol=1e-4) else None


def _classifying(model: TrialModel) -> Any:
    """Return timm's network with a classifier, at weights of no meaning."""
    import timm

    return timm.create_model(
        model.protocol.backbone, num_classes=len(model.class_names), **size_settings(model.protocol)
    ).eval()


def _timm_config(model: TrialModel, network: Any) -> dict[str, Any]:
    classifier = next(name for name, own in network.named_modules() if own is network.get_classifier())
    return {
        "architecture": model.protocol.backbone.partition(".")[0],
        "num_classes": len(model.class_names),
        "num_features": network.num_features,
        "label_names": list(model.class_names),
        "model_args": size_settings(model.protocol),
        "pretrained_cfg": {
            "input_size": [3, model.image_size, model.image_size],
            "num_classes": len(model.class_names),
            "mean": list(model.protocol.augmentation.mean),
            "std": list(model.protocol.augmentation.std),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "fixed_input_size": bool(size_settings(model.protocol)),
            "classifier": classifier,
        },
    }


def _tensors(module: nn.Module, *, copied: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a state, each with memory of its own; what a method keeps beside them is for training."""
    state = {name: own for name, own in module.state_dict().items() if isinstance(own, Tensor)}
    return {name: own.detach().clone().contiguous() for name, own in state.items()} if copied else state


def _properties(model: TrialModel) -> dict[str, str]:
    """Return what travels in the file itself, as text."""
    data = model.record.result.data
    return {
        "format": "pt",
        "class_names": json.dumps(list(model.class_names)),
        "temperature": repr(model.temperature),
        "data": data.title,
        "data_licence": data.licence,
        **weights_licence(model),
        "intended_use": "research only, not a medical device",
    }


def _example(model: TrialModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(_EXAMPLES, 3, model.stored_size, model.stored_size, generator=generator)


def _module(name: str) -> Any:
    """Return a package of the extra `export`.

    Raises
    ------
    UserError : it is not installed
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"this format needs the package {package}; pip install -e '.[export]' in the clone") from error


@contextmanager
def _refused(model: TrialModel, kind: str) -> Iterator[None]:
    """Let an error of an exporter, of whatever kind, be one line; its warnings are about the exporter's own code."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        reason = " ".join(str(first).split())[:200] or type(first).__name__
        name = model.record.result.method
        raise UserError(f"the network of {name} cannot be written as {kind}: {reason}; try another --format") from error
    finally:
        logging.disable(logging.NOTSET)
