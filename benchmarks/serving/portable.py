"""A trained network with its preprocessing inside, for programs without ltbench; and what they must know of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import ltbench
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.datasets.images.transforms import resampling_matrix


class Portable(nn.Module):
    """RGB images in 0..1 at the stored size to logits and calibrated probabilities, in float32.

    Parameters
    ----------
    model : on the CPU
    """

    rows: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: TrialModel) -> None:
        super().__init__()
        self.method, self.temperature = model.method, model.temperature
        side = torch.tensor([float(model.stored_size)])
        matrices = resampling_matrix(torch.zeros(1), side, model.stored_size, model.image_size)
        self.register_buffer("rows", matrices[0])
        for name in ("mean", "std"):
            values = getattr(model.protocol.augmentation, name)
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def prepare(self, images: Tensor) -> Tensor:
        """Return images resized and normalised: float [B, 3, S, S] in 0..1 to [B, 3, H, H]."""
        return (self.rows @ images @ self.rows.T - self.mean) / self.std

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, float32 [B, K], of images [B, 3, S, S]."""
        logits = self.method.predict(self.prepare(images)).float()
        return logits, (logits / self.temperature).softmax(dim=1)


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
        "resize": f"{stored} to {side}: triangle filter, antialiased (Pillow's BILINEAR)",
        "mean": list(augmentation.mean),
        "std": list(augmentation.std),
        "outputs": {"logits": ["batch", len(model.class_names)], "probabilities": "softmax(logits / temperature)"},
        "class_names": list(model.class_names),
        "temperature": model.temperature,
        "method": result.method,
        "hyperparameters": dict(result.hyperparameters),
        "backbone": model.protocol.backbone,
        "data": result.data.title,
        "data_licence": result.data.licence,
        "weights_sha256": result.files.get("model.pt"),
        "ltbench": ltbench.__version__,
    }
