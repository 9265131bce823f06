"""Projections to the sphere, which contrastive methods train beside the classifier and drop in predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.methods.base import full_precision


class Projector(nn.Module):
    """Features to unit vectors: [B, D] to [B, d], float32 at least, also under autocast.

    Parameters
    ----------
    width, dimension : D, d
    normalised : Linear(D, D), BatchNorm, ReLU, Linear(D, d); false: two layers Linear(D, D), ReLU, then Linear(D, d)
    """

    def __init__(self, width: int, dimension: int, *, normalised: bool = True) -> None:
        super().__init__()
        batched = [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
        plain = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        hidden = batched if normalised else plain
        self.layers = nn.Sequential(*hidden, nn.Linear(width, dimension))

    def forward(self, features: Tensor) -> Tensor:
        """Return unit vectors."""
        with torch.autocast(features.device.type, enabled=False):
            return functional.normalize(self.layers(full_precision(features)), dim=1)
