"""Class-balanced loss: weights from the effective number of images of a class (Cui et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses._class_loss import ClassLoss, checked_number, class_cross_entropy, own_class
from ltbench.losses.class_weights import checked_counts, effective_number_weights

Base = Literal["softmax", "sigmoid", "focal"]


class ClassBalancedLoss(ClassLoss):
    """Section 4 of the paper, reduced over the batch as its released code does.

    With w_c proportional to (1 - beta) / (1 - beta ** n_c), summing to K, and t_ik = z_ik where k = y_i, else -z_ik:

    - softmax: 1 / B sum_i w_{y_i} CE_i (divided by B, not by the sum of the weights);
    - sigmoid: 1 / B sum_ik w_{y_i} BCE_ik, BCE_ik = -log sigmoid(t_ik) (divided by B, not by B K);
    - focal: 1 / B sum_ik w_{y_i} (1 - sigmoid(t_ik)) ** gamma BCE_ik.

    Values and gradients are finite for any finite logits. `beta` = 0 weighs all classes equally. Shapes and types:
    see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    beta : in [0, 1)
    gamma : of the focal base, at least 0

    Raises
    ------
    ValueError : a count below 1, counts not one-dimensional, `beta` outside [0, 1), unknown `base`, `gamma` negative
    """

    class_weights: Tensor

    def __init__(
        self,
        class_counts: Sequence[int] | np.ndarray | Tensor,
        beta: float = 0.9999,
        base: Base = "softmax",
        gamma: float = 2.0,
    ) -> None:
        if base not in get_args(Base):
            raise ValueError(f"base must be one of {', '.join(get_args(Base))}, got {base!r}")
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.base = base
        self.gamma = checked_number("gamma", gamma)
        self.register_buffer("class_weights", effective_number_weights(counts, beta))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.base == "softmax":
            each = class_cross_entropy(logits, targets, reduction="none")
        else:
            signed = torch.where(own_class(logits, targets), logits, -logits)
            entries = -functional.logsigmoid(signed)
            if self.base == "focal":
                # log(1 - sigmoid(t)) = logsigmoid(-t): no difference that cancels, no exponential that overflows.
                entries = torch.exp(self.gamma * functional.logsigmoid(-signed)) * entries
            each = entries.sum(1)
        return (self.class_weights.gather(0, targets).to(each.dtype) * each).mean()
