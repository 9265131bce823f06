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
