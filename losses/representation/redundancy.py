"""Barlow Twins: two views agree in each dimension, and dimensions tell different things (Zbontar et al., ICML 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltbench.losses._class_loss import checked_number
from ltbench.losses.precision import full_precision

_SMALLEST_VARIANCE = 1e-12


class BarlowTwinsLoss(nn.Module):
    """sum_i (1 - C_ii)^2 + lam sum_{i != j} C_ij^2, C = U^T U' / B the cross-correlation of two views.

    Columns of U and U' are standardised over the batch (the variance divides by B and is at least 1e-12).

    Parameters
    ----------
    lam : weight of the second sum, at least 0

    Raises
    ------
    ValueError : `lam` negative or not finite
    """

    def __init__(self, lam: float = 5e-3) -> None:
        super().__init__()
        self.lam = checked_number("lam", lam)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss: a scalar, in float32 under autocast and for half precision, in float64 for float64.

        Parameters
        ----------
        first, second : float [B, d], two views of the same images, row by row

        Raises
        ------
        ValueError : shapes that do not fit
        """
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(f"views must be two equal [B, d], got {tuple(first.shape)} and {tuple(second.shape)}")
        with torch.autocast(first.device.type, enabled=False):
            one, other = (_standardised(full_precision(each)) for each in (first, second))
            correlation = one.T @ other / len(one)
            own = correlation.diagonal()
            off = correlation.square().sum() - own.square().sum()
            return (1 - own).square().sum() + self.lam * off


def _standardised(values: Tensor) -> Tensor:
    variance = values.var(dim=0, correction=0).clamp_min(_SMALLEST_VARIANCE)
    return (values - values.mean(dim=0)) / variance.sqrt()
