"""Losses of distances between features: center loss (Wen et al., 2016) and range loss (Zhang et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses._class_loss import checked_number
from ltbench.losses.precision import full_precision

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
            features = full_precision(features)
            # A product with the 0/1 matrix, not indexing: its gradient sums in a fixed order on every device.
            own = functional.one_hot(targets, classes).to(features.dtype) @ self.centers.to(features.dtype)
            return (features - own).square().sum(dim=1).clamp(_SMALLEST, _LARGEST).mean()


class RangeLoss(nn.Module):
    """alpha sum_c k / sum_{top} 1 / d + beta relu(margin - D): Zhang et al., ICCV 2017, as in MONICA's code.

    d are distances of features of class c, each at least 1e-6; `top` are the last 2k entries of their full matrix in
    ascending order, diagonal and both triangles, every other one of them from the first on: the k widest pairs, the
    fraction being their harmonic mean. Where fewer than 2k off-diagonal entries exist, those of the diagonal are among
    them and count as 1e-6: with k = 2 classes of one or two images give next to nothing. D is the smallest distance of
    two class means of the batch; the second term is 0 where the batch has one class only.

    Parameters
    ----------
    k : pairs of a class, at least 1
    margin, alpha, beta : at least 0

    Raises
    ------
    ValueError : `k` below 1; a number negative or not finite
    """

    def __init__(self, k: int = 2, margin: float = 0.1, alpha: float = 0.5, beta: float = 0.5) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k, self.margin = k, checked_number("margin", margin)
        self.alpha, self.beta = checked_number("alpha", alpha), checked_number("beta", beta)

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the loss: a scalar, in float32 under autocast and for half precision, in float64 for float64.

        Parameters
        ----------
        features : float [B, D], B at least 1
        targets : int64 [B], class ids

        Raises
        ------
        ValueError : shapes that do not fit
        """
        if features.ndim != 2 or targets.shape != features.shape[:1] or not len(targets):
            shapes = f"got {tuple(features.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"features must be [B, D] and targets [B], B at least 1, {shapes}")
        with torch.autocast(features.device.type, enabled=False):
            features = full_precision(features)
            same = targets.unsqueeze(1) == targets
            return self.alpha * self._within(features, same) + self.beta * self._between(features, same)

    def _within(self, features: Tensor, same: Tensor) -> Tensor:
        """Return the sum over classes of harmonic means; a class is computed in the row of its first image."""
        rows, columns, chosen = _widest(features.detach(), same, 2 * self.k)
        inverse = torch.where(chosen, 1 / _distances(features[rows], features[columns]), 0.0).sum(dim=1)
        first = same.long().argmax(dim=1) == torch.arange(len(same), device=same.device)
        return torch.where(first, self.k / inverse, 0.0).sum()

    def _between(self, features: Tensor, same: Tensor) -> Tensor:
        membership = same.to(features.dtype)
        means = (membership @ features) / membership.sum(dim=1, keepdim=True)
        nearest = _matrix(means.detach()).masked_fill(same, torch.inf).argmin().view(1)
        one, other = nearest // len(same), nearest % len(same)
        gap = (self.margin - _distances(means[one], means[other])).relu().sum()
        return torch.where(same.all(), 0.0, gap)


def _widest(features: Tensor, same: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs that count for the class of each image: rows and columns int64 [B, T], and which, bool [B, T].

    Of a class's matrix the `size` largest entries are among the `size` largest of each of its rows.
    """
    count = len(same)
    by_row = _matrix(features).masked_fill(~same, -torch.inf).topk(min(size, count), dim=1)
    entries = by_row.values.flatten().expand(count, -1)
    outside = ~same.unsqueeze(2).expand(-1, -1, by_row.values.shape[1]).flatten(1)
    top = entries.masked_fill(outside, -torch.inf).topk(min(size, entries.shape[1]), dim=1).indices
    rows, columns = top // by_row.values.shape[1], by_row.indices.flatten()[top]
    available = same.sum(dim=1, keepdim=True).square().clamp(max=size)
    place = torch.arange(top.shape[1], device=same.device)
    return rows, columns, (place < available) & ((available - 1 - place) % 2 == 0)


def _matrix(points: Tensor) -> Tensor:
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _distances(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=-1).clamp_min(_SMALLEST).sqrt()
