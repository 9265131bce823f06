"""The smallest backbone with timm's interface, for tests that need weights and features of any kind."""

from __future__ import annotations

import torch
from torch import nn


class MeanColour(nn.Module):
    """Mean colour, then a linear map to 4 features."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.mean((2, 3)))
