"""Supervised contrastive losses that give rare classes their share: vectors and class ids in, a scalar out.

Vectors are of length 1, which is the caller's doing: nothing is normalised here. Similarities S_ij = v_i . v_j / tau
and all sums are computed in float32 at least, also under autocast, and in float64 for float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.losses._class_loss import ExactBuffers, checked_number
from ltbench.losses.class_weights import checked_counts

_LEAST_F1 = 0.05  # below it a weight would have no bound


class _Contrastive(nn.Module):
    """What BCL and ECL share: class-averaged similarities of some anchors to all other vectors."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = checked_number("temperature", temperature, positive=True)

    def _mean(self, vectors: Tensor, targets: Tensor, anchors: int) -> Tensor:
        """Return the mean of L_i over the first `anchors` of the vectors that have a positive; 0 where none has.

        With P_i = {j != i : Y_j = Y_i}, b_c the number of vectors of class c and w_ij = b_{Y_j} - 1[j in P_i],

            L_i = -(1 / |P_i|) sum_{p in P_i} [S_ip - log sum_{j != i} exp(S_ij) / w_ij]
        """
        similarity = vectors[:anchors] @ vectors.T / self.temperature
        same = targets.unsqueeze(1) == targets
        own = torch.eye(anchors, len(vectors), dtype=torch.bool, device=vectors.device)
        positive = (same[:anchors] & ~own).to(similarity.dtype)
        weights = same.sum(dim=0) - positive
        reached = torch.logsumexp(similarity.masked_fill(own, -torch.inf) - weights.log(), dim=1)
        count = positive.sum(dim=1)
        each = reached - (similarity * positive).sum(dim=1) / count.clamp(min=1)
        valid = (count > 0).to(each.dtype)
        return (each * valid).sum() / valid.sum().clamp(min=1)


class BalancedContrastiveLoss(_Contrastive):
    """L_scl of Zhu et al., CVPR 2022 (BCL), eq. 4 to 6: classes average in the denominator, prototypes stand for each.

    Vectors v = [first; second; prototypes] have classes Y = [y; y; 0 .. K-1]. The anchors i are the 2B views alone.
    Every class counts as one in the denominator, however many of its images are in the batch: see `forward`.

    Parameters
    ----------
    temperature : tau, above 0

    Raises
    ------
    ValueError : a temperature that is not above 0
    """

    def forward(self, first: Tensor, second: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        """Return mean_i -(1 / |P_i|) sum_{p in P_i} [S_ip - log sum_{j != i} exp(S_ij) / w_ij].

        P_i = {j != i : Y_j = Y_i}, w_ij = b_{Y_j} - 1[j in P_i], b_c = number of vectors of class c, its prototype too.

        Parameters
        ----------
        first, second : float [B, d], two views of the same images, of length 1
        targets : int64 [B], class ids in [0, K)
        prototypes : float [K, d], one of each class, of length 1

        Returns
        -------
        scalar of the vectors' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit
        """
        classes = torch.arange(len(prototypes), device=targets.device)
        vectors = _stacked(first, second, targets, prototypes, classes)
        with torch.autocast(first.device.type, enabled=False):
            return self._mean(vectors, torch.cat([targets, targets, classes]), 2 * len(targets))


class ClassEnhancementLoss(_Contrastive):
    """Balanced-hybrid-proxy loss of Zhang et al., MICCAI 2023 (ECL), eq. 2 and 3: rare classes have more proxies.

    As `BalancedContrastiveLoss`, but a class may have several proxies, and proxies are anchors, too. The mean is over
    the anchors that have a positive: a class with a single proxy and no image in the batch has none.

    Parameters
    ----------
    temperature : tau, above 0

    Raises
    ------
    ValueError : a temperature that is not above 0
    """

    def forward(self, first: Tensor, second: Tensor, targets: Tensor, proxies: Tensor, proxy_targets: Tensor) -> Tensor:
        """Return the mean over anchors i with P_i not empty of L_i, see `BalancedContrastiveLoss.forward`.

        Parameters
        ----------
        first, second : float [B, d], two views of the same images, of length 1
        targets : int64 [B], class ids
        proxies : float [P, d], of length 1
        proxy_targets : int64 [P], their classes

        Returns
        -------
        scalar of the vectors' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit
        """
        vectors = _stacked(first, second, targets, proxies, proxy_targets)
        with torch.autocast(first.device.type, enabled=False):
            return self._mean(vectors, torch.cat([targets, targets, proxy_targets]), len(vectors))


def enhancement_weights(
    class_counts: Tensor, class_f1: Tensor, share: float, frequency_start: float = 0.2, f1_start: float = 0.5
) -> Tensor:
    """Return ECL's class weights of the cross-entropy after a share t of training.

    1 up to t = frequency_start; then w_c ** ((t - frequency_start) / (f1_start - frequency_start)), w_c proportional to
    1 / n_c; after t = f1_start v_c ** ((t - f1_start) / (1 - f1_start)), v_c proportional to 1 / F1_c. Both sum to K.

    Parameters
    ----------
    class_counts : n, float [K]
    class_f1 : float [K], at least 0.05 is used
    share : t, in [0, 1]

    Returns
    -------
    [K], of the counts' type
    """
    if share <= frequency_start:
        return torch.ones_like(class_counts)
    inverse, power = 1 / class_counts, (share - frequency_start) / max(f1_start - frequency_start, 1e-12)
    if share > f1_start:
        inverse, power = 1 / class_f1.clamp(min=_LEAST_F1), (share - f1_start) / (1 - f1_start)
    return (inverse * (len(inverse) / inverse.sum())) ** power


class ParametricContrastiveLoss(ExactBuffers):
    """Cui et al., ICCV 2021 (PaCo), eq. 4, and its generalisation (GPaCo): class logits among the contrasted vectors.

    With Z = z + log(pi + 1e-9), P_i the vectors of the class of anchor i, itself not, and

        den_i = sum_c exp(Z_ic) + gamma sum_{j != i} exp(S_ij),

        L_i = -[beta (Z_{i,y_i} - log den_i) + alpha sum_{p in P_i} (S_ip - log den_i)] / (beta + alpha |P_i|)

    and the loss is the mean over anchors. alpha |P_i| is the weight of the contrastive part: it grows with the queue
    and with the class's share in it. alpha = 0 and gamma = 0 is `BalancedSoftmaxLoss`; alpha = 0 alone is not.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    alpha, beta, gamma : at least 0, beta above 0
    temperature : tau, above 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, or a number out of its range
    """

    log_shares: Tensor

    def __init__(
        self,
        class_counts: Sequence[int] | np.ndarray | Tensor,
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        counts = checked_counts(class_counts)
        self.alpha, self.gamma = checked_number("alpha", alpha), checked_number("gamma", gamma)
        self.beta = checked_number("beta", beta, positive=True)
        self.temperature = checked_number("temperature", temperature, positive=True)
        self.register_buffer("log_shares", (counts / counts.sum() + 1e-9).log())

    def forward(self, logits: Tensor, anchors: Tensor, targets: Tensor, keys: Tensor, key_targets: Tensor) -> Tensor:
        """Return the mean of L_i over anchors.

        Parameters
        ----------
        logits : float [A, K], z of the anchors' images
        anchors : float [A, d], of length 1; each is contrasted with the A - 1 others and with the keys
        targets : int64 [A], class ids in [0, K)
        keys : float [M, d], of length 1: further vectors, such as a queue; M may be 0
        key_targets : int64 [M], their classes; -1 for a place that is empty

        Returns
        -------
        scalar of the logits' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit
        """
        shapes = [tuple(each.shape) for each in (logits, anchors, targets, keys, key_targets)]
        size, classes = len(targets), len(self.log_shares)
        if shapes[:1] + shapes[2:3] != [(size, classes), (size,)] or shapes[4] != shapes[3][:1]:
            raise ValueError(f"logits, anchors, targets, keys and their targets do not fit: {shapes}, K = {classes}")
        if anchors.ndim != 2 or keys.ndim != 2 or anchors.shape[0] != size or anchors.shape[1] != keys.shape[1]:
            raise ValueError(f"anchors must be [A, d] and keys [M, d], got {shapes[1]} and {shapes[3]}")
        dtype = torch.promote_types(torch.promote_types(logits.dtype, anchors.dtype), torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            vectors = torch.cat([anchors.to(dtype), keys.to(dtype)])
            return self._loss(logits.to(dtype), vectors, targets, torch.cat([targets, key_targets]))

    def _loss(self, logits: Tensor, vectors: Tensor, targets: Tensor, every_target: Tensor) -> Tensor:
        size = len(targets)
        adjusted = logits + self.log_shares.to(logits.dtype)
        similarity = vectors[:size] @ vectors.T / self.temperature
        left_out = torch.eye(size, len(vectors), dtype=torch.bool, device=vectors.device) | (every_target < 0)
        weight = math.log(self.gamma) if self.gamma > 0 else -math.inf
        contrasted = (similarity + weight).masked_fill(left_out, -torch.inf)
        reached = torch.logsumexp(torch.cat([adjusted, contrasted], dim=1), dim=1)
        positive = ((targets.unsqueeze(1) == every_target) & ~left_out).to(similarity.dtype)
        count = positive.sum(dim=1)
        own = adjusted.gather(1, targets.unsqueeze(1)).squeeze(1)
        parametric = self.beta * (own - reached)
        contrastive = self.alpha * ((similarity * positive).sum(dim=1) - count * reached)
        return -((parametric + contrastive) / (self.beta + self.alpha * count)).mean()


def _stacked(first: Tensor, second: Tensor, targets: Tensor, others: Tensor, classes: Tensor) -> Tensor:
    """Return all vectors in one precision, float32 at least.

    Raises
    ------
    ValueError : shapes that do not fit
    """
    shapes = [tuple(each.shape) for each in (first, second, targets, others, classes)]
    fits = first.ndim == 2 and others.ndim == 2 and shapes[0] == shapes[1] and shapes[0][1] == shapes[3][1]
    if not fits or shapes[2] != shapes[0][:1] or shapes[4] != shapes[3][:1] or not len(targets):
        raise ValueError(f"views must be two equal [B, d], targets [B], others [P, d] of [P] classes, got {shapes}")
    dtype = torch.promote_types(torch.promote_types(first.dtype, others.dtype), torch.float32)
    return torch.cat([each.to(dtype) for each in (first, second, others)])
