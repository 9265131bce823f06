"""Focal loss: images that are classified well count less (Lin et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, checked_weight, class_cross_entropy

# Below it (1 - p) ** gamma has no finite gradient for gamma < 1.
_SMALLEST_MISS = 1e-8


class FocalLoss(ClassLoss):
    """Softmax focal loss: eq. 4 of the paper, with the softmax probability of the target in place of the sigmoid's.

    loss = 1 / B sum_i w_{y_i} (1 - p_i) ** gamma CE_i, p_i = softmax(z_i)_{y_i}, CE_i = -log p_i.

    Values and gradients are finite for any finite logits at any `gamma`: 1 - p is computed from log p with expm1 and
    is at least 1e-8. `gamma` = 0 without weight is cross-entropy. Shapes and types: see `forward`.

    Parameters
    ----------
    gamma : at least 0
    weight : [K], at least 0, a factor outside the modulator (p does not depend on it); None: all 1
    detach : treat (1 - p) ** gamma as a constant: same value, no gradient through the modulator

    Raises
    ------
    ValueError : `gamma` or `weight` negative or not finite, `weight` not one-dimensional
    """

    weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        weight: Sequence[float] | np.ndarray | Tensor | None = None,
        *,
        detach: bool = False,
    ) -> None:
        weight = checked_weight(weight)
        super().__init__(None if weight is None else len(weight))
        self.gamma = checked_number("gamma", gamma)
        self.detach = detach
        self.register_buffer("weight", weight)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        each = class_cross_entropy(logits, targets, reduction="none")
        missed = -torch.expm1(-(each.detach() if self.detach else each))
        each = missed.clamp(min=_SMALLEST_MISS) ** self.gamma * each
        return (each if self.weight is None else self.weight.gather(0, targets).to(each.dtype) * each).mean()
