"""Losses that add what is known of the class frequencies to the logits in training; predictions use plain logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, class_cross_entropy
from ltbench.losses.class_weights import checked_counts


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
