"""LDAM: rare classes are learned with a larger margin (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, checked_weight, class_cross_entropy, own_class
from ltbench.losses.class_weights import checked_counts


class LDAMLoss(ClassLoss):
    """Section 3.2 of the paper: softmax cross-entropy of cosines, that of the target lowered by a margin.

    loss = sum_i w_{y_i} CE(scale * a_i, y_i) / sum_i w_{y_i}, a_ik = cos_ik - m_k where k = y_i, else cos_ik;
    m_c = max_margin * n_c ** -1/4 / max_k n_k ** -1/4: the rarest class has `max_margin`.

    "Logits" are cosines in [-1, 1], of normalised features and normalised class vectors: with anything else margin
    and scale mean nothing. Predictions use cosines without margin. Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], images of each class by class id in the full training set, at least 1
    max_margin : at least 0
    scale : s, above 0; it multiplies the margin too, once
    weight : [K], at least 0, of torch's weighted mean; None: all 1. A batch in which every weight is 0 has the loss 0
        and no gradient

    Raises
    ------
    ValueError : a count below 1, counts not one-dimensional, `max_margin` negative, `scale` not above 0, `weight` of
        another shape than the counts, negative or not finite
    """

    margins: Tensor
    weight: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] | np.ndarray | Tensor,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weight: Sequence[float] | np.ndarray | Tensor | None = None,
    ) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.scale = checked_number("scale", scale, positive=True)
        margins = checked_number("max_margin", max_margin) * (counts.min() / counts) ** 0.25
        self.register_buffer("margins", margins)
        self.register_buffer("weight", checked_weight(weight, len(counts)))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        lowered = logits - self.margins.to(logits.dtype)
        adjusted = self.scale * torch.where(own_class(logits, targets), lowered, logits)
        if self.weight is None:
            return class_cross_entropy(adjusted, targets)
        weight = self.weight.to(logits.dtype)
        # Where all weights of the batch are 0 the mean would be 0 / 0: they count as 1, and the factor is 0.
        counts = (weight.gather(0, targets).sum() > 0).to(logits.dtype)
        return class_cross_entropy(adjusted, targets, weight=weight + (1 - counts)) * counts
