"""The smallest backbone with timm's interface, and methods on it, for tests that need any weights and features."""

from typing import Any

import numpy as np
import torch
from torch import nn

from ltbench.methods import Method, Task, create


class MeanColour(nn.Module):
    """Mean colour, then a linear map to a few features."""

    def __init__(self, num_features: int = 4) -> None:
        super().__init__()
        self.num_features = num_features
        self.layer = nn.Linear(3, num_features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.mean((2, 3)))


def method_on_colour(name: str, counts: np.ndarray, *, num_features: int = 4, **options: Any) -> Method:
    """Return a method for these class counts, with the same initial weights at each call."""
    torch.manual_seed(0)
    return create(name, Task(len(counts), counts, 8), MeanColour(num_features), **options)
