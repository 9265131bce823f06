"""Centroid loss: features near the centroid of their class, and not too near the others (OLTR, Liu et al., 2019)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LARGEST_REPULSION = 1e6  # the released code's upper clamp; the margin never reaches it


class CentroidLoss(nn.Module):
    """Attract + repel on features v [B, D] and class centroids M [K, D], called DiscCentroidsLoss in OLTR's code.

        (1 / 2B) sum_i |v_i - M_{y_i}|^2
            + repel_weight * clamp(margin - (1 / BK) sum_i sum_{k != y_i} |v_i - M_k|^2, 0, 1e6)

    The second term is off while the mean squared distance is above the margin, which is usual at the start.

    With `own_gradient_rule` the first term moves centroids as the released code does: by

        (1 / B) sum_{i: y_i = k} (M_k - v_i) / (1 + n_k),    n_k images of class k in the batch,

    whatever factor the loss gets outside: centroids follow the features at a pace of their own, even at weight 0.
    Features, and the second term, have the true gradient.

    Parameters
    ----------
    repel_weight : of the second term, at least 0
    margin : at least 0; a mean *squared* distance, where the own class counts as 0
    own_gradient_rule : false: the true gradient for centroids too

    Raises
    ------
    ValueError : a weight or margin below 0 or not finite

    Source: Liu et al., CVPR 2019, and its code (f50e375f), whose 0.01 and 10 are the defaults.
    """

    def __init__(self, repel_weight: float = 0.01, margin: float = 10.0, *, own_gradient_rule: bool = True) -> None:
        super().__init__()
        for name, value in (("repel_weight", repel_weight), ("margin", margin)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        self.repel_weight, self.margin, self.own_gradient_rule = repel_weight, margin, own_gradient_rule

    def forward(self, features: Tensor, targets: Tensor, centroids: Tensor) -> Tensor:
        """Return the loss: a scalar, in float32 under autocast and for half precision, in float64 for float64.

        Parameters
        ----------
        features : float [B, D], B at least 1
        targets : int64 [B], in [0, K)
        centroids : float [K, D]

        Raises
        ------
        ValueError : shapes that do not fit, or targets that are not class ids
        """
        _check(features, targets, centroids)
        dtype = torch.promote_types(torch.promote_types(features.dtype, centroids.dtype), torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            features, centroids = features.to(dtype), centroids.to(dtype)
            # Products with the 0/1 matrix, not indexing: their gradient sums in a fixed order on every device.
            membership = functional.one_hot(targets, len(centroids)).to(dtype)
            rule = _Attraction.apply if self.own_gradient_rule else _attraction
            attraction = rule(features, membership, centroids)
            repulsion = (self.margin - _other_distance(features, membership, centroids)).clamp(0, _LARGEST_REPULSION)
            return attraction + self.repel_weight * repulsion


class _Attraction(torch.autograd.Function):
    """The first term with the released code's gradient of centroids."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, membership: Tensor, centroids: Tensor) -> Tensor:
        ctx.save_for_backward(features, membership, centroids)
        return _attraction(features, membership, centroids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, Tensor]:
        features, membership, centroids = ctx.saved_tensors
        offsets = (features - membership @ centroids) / len(features)
        # Not times `outer`: the rule stands beside the chain rule.
        pull = -(membership.T @ offsets) / (1 + membership.sum(dim=0)).unsqueeze(1)
        return offsets * outer, None, pull


def _attraction(features: Tensor, membership: Tensor, centroids: Tensor) -> Tensor:
    return (features - membership @ centroids).square().sum() / (2 * len(features))


def _other_distance(features: Tensor, membership: Tensor, centroids: Tensor) -> Tensor:
    """Return (1 / BK) sum_i sum_{k != y_i} |v_i - M_k|^2 without the [B, K, D] differences.

    Around the mean m of the centroids, sum_i sum_k |v_i - M_k|^2 = K sum_i |v_i - m|^2 + B sum_k |M_k - m|^2: sums
    of squares, in which nothing cancels as it would in |v|^2 + |M|^2 - 2 v.M.
    """
    batch, classes = membership.shape
    middle = centroids.mean(dim=0)
    spread = (features - middle).square().sum() / batch + (centroids - middle).square().sum() / classes
    own = (features - membership @ centroids).square().sum() / (batch * classes)
    return spread - own


def _check(features: Tensor, targets: Tensor, centroids: Tensor) -> None:
    shapes = f"features {tuple(features.shape)}, targets {tuple(targets.shape)}, centroids {tuple(centroids.shape)}"
    if features.ndim != 2 or centroids.ndim != 2 or features.shape[1] != centroids.shape[1] or not len(centroids):
        raise ValueError(f"features must be [B, D] and centroids [K, D], got {shapes}")
    if targets.shape != features.shape[:1] or not len(targets):
        raise ValueError(f"targets must be [B] with B at least 1, got {shapes}")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be class ids (int64), got {targets.dtype}")
