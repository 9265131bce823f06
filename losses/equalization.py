"""Softmax equalization loss: rare classes are often left out where they are not the target (Tan et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import checked_number, class_cross_entropy, own_class
from ltbench.losses._random_loss import RandomClassLoss
from ltbench.losses.class_weights import checked_counts


class SEQLLoss(RandomClassLoss):
    """Mean of -log(exp(z_y) / sum_c w_ic exp(z_c)): Tan et al., CVPR 2020, the form for classification.

    w_ic = 1 - beta_ic [pi_c < threshold] [c != y_i], beta_ic drawn from Bernoulli(gamma) for each logit: rare classes
    get the gradient that pushes them down on images of other classes only now and then. `gamma` = 0, or a threshold
    at or below every share, is cross-entropy. Shapes and types: see `forward`, whose `drawn` are the beta_ic, 0 or 1.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    threshold : lambda of the paper, a share of the training set, at least 0. It must suit the dataset: with a value
        made for a thousand classes no class of eight is rare, and the loss is cross-entropy
    gamma : probability of leaving out, in [0, 1]

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, `threshold` negative or not finite, `gamma`
        outside [0, 1]
    """

    rare: Tensor

    def __init__(self, class_counts: Sequence[int] | np.ndarray | Tensor, threshold: float, gamma: float = 0.9) -> None:
        counts = checked_counts(class_counts)
        super().__init__(counts)
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        self.gamma = gamma
        self.register_buffer("rare", (counts / counts.sum() < checked_number("threshold", threshold)).double())

    def _draw(self, logits: Tensor) -> Tensor:
        return torch.rand(logits.shape, device=logits.device) < self.gamma

    def _drawn_loss(self, logits: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        left_out = (drawn != 0) & (self.rare != 0) & ~own_class(logits, targets)
        return class_cross_entropy(logits.masked_fill(left_out, -torch.inf), targets)
