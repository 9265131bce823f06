"""Center loss: features near the centre of their class, centres learned with them (Wen et al., ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST, _LARGEST = 1e-12, 1e12  # squared distances, as released


class CenterLoss(nn.Module):
    """Mean over the batch of |f_i - c_{y_i}|^2, each squared distance clamped to [1e-12, 1e12].

    The gradient is 2 (f_i - c_{y_i}) / B for features, and its negative, summed over the images of a class, for
    centres; the centre of a class that is absent from the batch gets none.

    Parameters
    ----------
    num_classes, dimension : K, D; `centers` is a parameter [K, D] that starts normal with mean 0 and variance 1

    Raises
    ------
    ValueError : a number below 1

    Source: Wen et al., ECCV 2016, and MONICA's code (9dc5c21f), without the factor 1/2 of the paper.
    """

    def __init__(self, num_classes: int, dimension: int) -> None:
        super().__init__()
        if num_classes < 1 or dimension < 1:
            raise ValueError(f"num_classes and dimension must be at least 1, got {num_classes} and {dimension}")
        self.centers = nn.Parameter(torch.randn(num_classes, dimension))

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the loss: a scalar, in float32 under autocast and for half precision, in float64 for float64.

        Parameters
        ----------
        features : float [B, D], B at least 1
        targets : int64 [B], class ids in [0, K)

        Raises
        ------
        ValueError : shapes that do not fit
        """
        classes, dimension = self.centers.shape
        if features.ndim != 2 or features.shape[1] != dimension or targets.shape != features.shape[:1]:
            shapes = f"got {tuple(features.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"features must be [B, {dimension}] and targets [B], {shapes}")
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            # A product with the 0/1 matrix, not indexing: its gradient sums in a fixed order on every device.
            own = functional.one_hot(targets, classes).to(features.dtype) @ self.centers.to(features.dtype)
            return (features - own).square().sum(dim=1).clamp(_SMALLEST, _LARGEST).mean()
