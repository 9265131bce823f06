"""A trained network with its preprocessing inside, for programs without ltbench; and what they must know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import ltbench
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.training.stages.backbones import size_settings
from ltbench.datasets.images.transforms import KERNELS, crop_windows, margin_of, resampling_matrix

_FIVE_CROPS = "resized to {0} x {0} instead; mean logits of five crops of {1}: the centre and the corners"


class Portable(nn.Module):
    """RGB images in 0..1 at the stored size to logits and probabilities, in float32.

    Probabilities are calibrated by temperature alone, as those of `TrialModel.predict_proba`.

    Parameters
    ----------
    model : on the CPU
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: TrialModel) -> None:
        super().__init__()
        self.method, self.temperature = model.method, model.temperature
        stored, side, augmentation = model.stored_size, model.image_size, model.protocol.augmentation
        whole = [(0.0, 0.0, float(stored))]
        windows = whole if model.protocol.tta == "none" else crop_windows(stored, side)
        top, left, length = torch.tensor(windows).T
        kernel = KERNELS[augmentation.interpolation]
        for name, start in (("rows", top), ("columns", left)):
            self.register_buffer(name, resampling_matrix(start, length, stored, side, kernel=kernel))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(augmentation, name)).view(1, 3, 1, 1))

    def views(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the crops of images, resized and normalised: float [B, 3, S, S] in 0..1 to [B, 3, H, H]."""
        for rows, columns in zip(self.rows, self.columns, strict=True):
            yield (rows @ images @ columns.T - self.mean) / self.std

    def scores(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return logits [B, K] of images in 0..1, the mean of their crops', by a network of prepared images."""
        logits = [predict(view).float() for view in self.views(images)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, float32 [B, K], of images [B, 3, S, S]."""
        logits = self.scores(self.method.predict, images)
        return logits, (logits / self.temperature).softmax(dim=1)


def weights_licence(model: TrialModel) -> dict[str, str]:
    """Return the licence of the starting weights by its key, perhaps `unknown`; empty where they are random."""
    weights = model.record.result.weights
    if weights is None and model.protocol.weights == "none":
        return {}
    return {"weights_licence": (weights.licence if weights is not None else None) or "unknown"}


def description(model: TrialModel, *, inside: bool) -> dict[str, Any]:
    """Return what a program must know to use an exported network, as JSON keeps it.

    Parameters
    ----------
    inside : whether resizing, normalisation and temperature are part of the network
    """
    result, augmentation = model.record.result, model.protocol.augmentation
    stored, side = model.stored_size, model.image_size
    decoding = (
        "RGB, turned as EXIF says, transparent parts on white, resized to "
        f"{stored} x {stored} whatever the aspect, bicubic (Pillow, reducing_gap=2.0)"
    )
    return {
        "preprocessing_inside": inside,
        "input": {
            "name": "images",
            "shape": ["batch", 3, *([stored] * 2 if inside else [side] * 2)],
            "dtype": "float32",
            "range": "0 to 1" if inside else "normalised",
        },
        "decoding": decoding,
        "stored_size": stored,
        "image_size": side,
        "resize": f"{stored} to {side}: {augmentation.interpolation}, antialiased, as Pillow's",
        "crops": "the whole image"
        if model.protocol.tta == "none"
        else _FIVE_CROPS.format(side + margin_of(side), side),
        "mean": list(augmentation.mean),
        "std": list(augmentation.std),
        "outputs": {"logits": ["batch", len(model.class_names)], "probabilities": "softmax(logits / temperature)"},
        "class_names": list(model.class_names),
        "temperature": model.temperature,
        "method": result.method,
        "hyperparameters": dict(result.hyperparameters),
        "backbone": model.protocol.backbone,
        "model_args": size_settings(model.protocol),
        "data": result.data.title,
        "data_licence": result.data.licence,
        **weights_licence(model),
        "weights_sha256": result.files.get("model.pt"),
        "ltbench": ltbench.__version__,
    }
