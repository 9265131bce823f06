"""Classifiers for long-tailed training, and what is done to those of plain training: heads and scores."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses._class_loss import checked_number
from ltbench.losses.precision import full_precision

FeatureType = Literal["un", "l2n", "cl2n"]
Metric = Literal["l2", "cos"]
_SMALLEST_LENGTH = 1e-12  # 0 / 0 is no number


class DisAlignHead(nn.Module):
    """Adjusts the logits of a frozen classifier, as far as the image asks for it: Zhang et al., CVPR 2021, section 3.3.

    z'_c = (1 + g s_c) z_c + g t_c,   g = sigmoid(v . f + b)

    Parameters `logit_scale` s [K] starts at 1, `logit_bias` t [K] at 0, `confidence` is Linear(D, 1) with v at 0.1 and
    b at 0: at the start the logits are already (1 + g) z. No decision of plain training changes by that.

    Parameters
    ----------
    in_features, num_classes : D, K
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.ones(num_classes))
        self.logit_bias = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(in_features, 1)
        nn.init.constant_(self.confidence.weight, 0.1)
        nn.init.zeros_(self.confidence.bias)

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return aligned logits [B, K], at least float32.

        Parameters
        ----------
        logits : float [B, K], of the frozen classifier
        features : float [B, D], that it was given
        """
        with torch.autocast(logits.device.type, enabled=False):
            confidence = self.confidence(full_precision(features)).sigmoid()
            logits = full_precision(logits)
            return (1 + confidence * self.logit_scale) * logits + confidence * self.logit_bias


class CausalNormClassifier(nn.Module):
    """De-confounded classifier: Tang et al., NeurIPS 2020, eq. 8 and 9 (multi-head normalisation, total direct effect).

    Features, class vectors and the moving mean are cut into H chunks of D / H numbers; u^h is a chunk of unit length.

    training:    z_c = (tau / H) sum_h x^h . w_c^h / (|w_c^h| + gamma),   x^h = f^h / |f^h|
    evaluation:  the same with x^h - alpha cos(x^h, m^h) m^h in place of x^h

    `mean` m [D] is a decaying sum of the batches' mean features, m <- momentum m + mean(f), which `update` adds to;
    only its direction counts. As long as it is 0 nothing is taken off. There is no bias.

    Parameters
    ----------
    in_features, num_classes : D, K; `weight` is [K, D]
    num_heads : H, a divisor of D
    tau : scale, above 0
    gamma : added to the length of class vectors, at least 0
    alpha : strength in evaluation, at least 0; buffer `alpha`, float64 scalar
    momentum : in [0, 1)

    Raises
    ------
    ValueError : H that does not divide D, or a number out of its range
    """

    mean: Tensor
    alpha: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_heads: int = 2,
        tau: float = 16.0,
        gamma: float = 1 / 32,
        alpha: float = 1.5,
        momentum: float = 0.9,
    ) -> None:
        if num_heads < 1 or in_features % num_heads:
            raise ValueError(f"num_heads must divide the {in_features} features, got {num_heads}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        super().__init__()
        self.num_heads, self.momentum = num_heads, momentum
        self.tau = checked_number("tau", tau, positive=True)
        self.gamma = checked_number("gamma", gamma)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.uniform_(self.weight, -(in_features**-0.5), in_features**-0.5)
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("alpha", torch.tensor(checked_number("alpha", alpha), dtype=torch.float64))

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add the mean of a training batch, float [B, D], to the decaying sum."""
        self.mean.mul_(self.momentum).add_(features.mean(dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits: float [B, D] to [B, K], at least float32; in evaluation without the effect of the mean."""
        with torch.autocast(features.device.type, enabled=False):
            chunks = functional.normalize(self._chunks(full_precision(features)), dim=2)
            if not self.training:
                mean = functional.normalize(self._chunks(self.mean.to(chunks.dtype).unsqueeze(0)), dim=2)
                chunks = chunks - self.alpha.to(chunks.dtype) * (chunks * mean).sum(dim=2, keepdim=True) * mean
            weight = self._chunks(self.weight)
            weight = weight / (torch.linalg.vector_norm(weight, dim=2, keepdim=True) + self.gamma)
            return self.tau / self.num_heads * (chunks.flatten(1) @ weight.flatten(1).T)

    def _chunks(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self.num_heads, -1))


@torch.no_grad()
def max_norm_projection(weight: Tensor, delta: float | Tensor) -> Tensor:
    """Return class vectors of length `delta` at most: w_k min(1, delta / |w_k|), Alshammari et al., CVPR 2022, eq. 5.

    Parameters
    ----------
    weight : float [K, D], one row a class; rows that are short enough are returned as they are
    delta : at least 0, infinity for no bound; a scalar tensor on the device of `weight` is not read by the host
    """
    lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    bound = torch.as_tensor(delta, dtype=weight.dtype) if not isinstance(delta, Tensor) else delta.to(weight.dtype)
    return torch.where(lengths > bound, weight * (bound / lengths.clamp_min(_SMALLEST_LENGTH)), weight)


def class_centroids(
    features: Tensor, labels: Tensor, num_classes: int, feature_type: FeatureType = "cl2n"
) -> tuple[Tensor, Tensor]:
    """Return class means of transformed training features, and the mean of the features as they are.

    Parameters
    ----------
    features, labels : float [N, D], int64 [N] in [0, K)
    feature_type : `un`: f; `l2n`: f / |f|; `cl2n`: (f - mean) / |f - mean|. Means are not normalised again

    Returns
    -------
    [K, D] and [D], of the type of `features`; an absent class has NaN

    Raises
    ------
    ValueError : unknown `feature_type`
    """
    centre = features.mean(dim=0)
    rows = _transformed(features, centre, feature_type)
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add(0, labels, rows)
    return sums / torch.bincount(labels, minlength=num_classes).to(rows.dtype).unsqueeze(1), centre


def nearest_class_mean_scores(
    features: Tensor, centroids: Tensor, centre: Tensor, feature_type: FeatureType = "cl2n", metric: Metric = "l2"
) -> Tensor:
    """Return how near each feature is to each class mean: Kang et al., ICLR 2020 (Decoupling), section 4.3.

    With g the transformed feature: `l2` is -|g - m_c| ** 2, `cos` is g . m_c / D, as the released code divides.

    Parameters
    ----------
    features : float [B, D], as the network gives them
    centroids, centre : [K, D], [D], of `class_centroids` with the same `feature_type`

    Returns
    -------
    [B, K], at least float32; -inf for an absent class

    Raises
    ------
    ValueError : unknown `feature_type` or `metric`
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}")
    with torch.autocast(features.device.type, enabled=False):
        rows = _transformed(full_precision(features), centre, feature_type)
        centroids = centroids.to(rows.dtype)
        if metric == "l2":
            # Differences, not the expanded square: that loses the digits of features that are almost a mean.
            scores = -torch.cdist(rows, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
        else:
            scores = rows @ centroids.T / rows.shape[1]
        return torch.where(centroids.isnan().any(dim=1), -torch.inf, scores)


def _transformed(features: Tensor, centre: Tensor, feature_type: FeatureType) -> Tensor:
    if feature_type not in get_args(FeatureType):
        raise ValueError(f"feature_type must be one of {', '.join(get_args(FeatureType))}, got {feature_type!r}")
    if feature_type == "un":
        return features
    return functional.normalize(features - centre.to(features.dtype) if feature_type == "cl2n" else features, dim=1)
