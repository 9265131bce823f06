"""Losses that add what is known of the class frequencies to the logits in training; predictions use plain logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, class_cross_entropy, own_class
from ltbench.losses.class_weights import checked_counts

_OF_SHARES, _OF_COUNTS = 1e-9, 1e-8  # what the released code adds to class shares and to counts of a batch


class BalancedSoftmaxLoss(ClassLoss):
    """Mean of CE(z + log n, y): Ren et al., NeurIPS 2020 (p_y = n_y exp(z_y) / sum_k n_k exp(z_k)).

    Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1

    Raises
    ------
    ValueError : a count below 1, or counts that are not one-dimensional
    """

    log_counts: Tensor

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.register_buffer("log_counts", counts.log())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return class_cross_entropy(logits + self.log_counts.to(logits.dtype), targets)


class LogitAdjustedLoss(ClassLoss):
    """Mean of CE(z + tau log pi, y), pi_c = n_c / N: Menon et al., ICLR 2021, the loss of their section 5.

    `tau` = 1 equals `BalancedSoftmaxLoss`, `tau` = 0 cross-entropy. Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    tau : at least 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `tau` negative or not finite
    """

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor, tau: float = 1.0) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.register_buffer("adjustment", checked_number("tau", tau) * (counts / counts.sum()).log())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return class_cross_entropy(logits + self.adjustment.to(logits.dtype), targets)


class VSLoss(ClassLoss):
    """Mean of CE(z / Delta + iota, y): vector scaling, Kini et al., NeurIPS 2021.

    Delta_c = (n_max / n_c) ** gamma, at least 1; iota_c = tau log pi_c, pi_c = n_c / N. `gamma` = 0 equals
    `LogitAdjustedLoss`; `tau` = 0 is the loss of class-dependent temperatures (CDT); both 0: cross-entropy. Predictions
    use plain z. Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    gamma, tau : at least 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `gamma` or `tau` negative or not finite
    """

    temperatures: Tensor
    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor, gamma: float = 0.3, tau: float = 1.0) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.register_buffer("temperatures", (counts.max() / counts) ** checked_number("gamma", gamma))
        self.register_buffer("adjustment", checked_number("tau", tau) * (counts / counts.sum()).log())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        scaled = logits / self.temperatures.to(logits.dtype)
        return class_cross_entropy(scaled + self.adjustment.to(logits.dtype), targets)


class LADELoss(ClassLoss):
    """Mean of CE(z + log(pi + 1e-9), y) + alpha R: Hong et al., CVPR 2021, constants as released.

        R = -sum_c pi_c (m_c - l_c - lam l_c^2),   pi_c = n_c / N
        m_c = sum_{i: y_i = c} z_ic / (B_c + 1e-8),   B_c images of class c in the batch
        l_c = log (1/B) sum_i exp(z_ic - log pi_c - log K)

    R is the regularised Donsker-Varadhan bound of each class; l_c runs over the whole batch. A class that is absent
    from the batch has m_c = 0 and still gives -pi_c (-l_c - lam l_c^2). R is not indifferent to a constant added to all
    logits. `alpha` = 0 is cross-entropy with prior (PriorCE), which is `BalancedSoftmaxLoss` but for the 1e-9.
    Predictions use plain z. Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    alpha : weight of R, at least 0
    lam : weight of l_c^2 in R, at least 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `alpha` or `lam` negative or not finite
    """

    shares: Tensor

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor, alpha: float = 0.1, lam: float = 0.1) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.alpha, self.lam = checked_number("alpha", alpha), checked_number("lam", lam)
        self.register_buffer("shares", counts / counts.sum())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        adjusted = logits + (self.shares + _OF_SHARES).log().to(logits.dtype)
        prior = class_cross_entropy(adjusted, targets)
        return prior + self.alpha * self.regulariser(logits, targets)

    def regulariser(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return R, a scalar, of float32 or float64 logits [B, K] and targets int64 [B]."""
        shares = self.shares.to(logits.dtype)
        own = own_class(logits, targets).to(logits.dtype)
        means = (logits * own).sum(dim=0) / (own.sum(dim=0) + _OF_COUNTS)
        ratios = logits - (self.shares.log() + math.log(len(shares))).to(logits.dtype)
        normalisers = ratios.logsumexp(dim=0) - math.log(len(logits))
        return -(shares * (means - normalisers - self.lam * normalisers.square())).sum()
