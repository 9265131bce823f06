"""Label-aware smoothing: targets of frequent classes are smoothed more (Zhong et al., CVPR 2021, MiSLAS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, class_cross_entropy
from ltbench.losses.class_weights import checked_counts

Shape = Literal["concave", "linear", "convex", "exponential"]


class LabelAwareSmoothingLoss(ClassLoss):
    """Cross-entropy to targets that are smoothed by e_y, more for frequent classes: section 3.3 of the paper.

    loss = 1 / B sum_i [(1 - e_{y_i}) CE_i + e_{y_i} mean_k(-log p_ik)],   e_c = tail + (head - tail) h(x_c),
    x_c = (n_c - n_min) / (n_max - n_min), h(x) = sin(pi x / 2) (concave), x (linear), 1 - cos(pi x / 2) (convex) or
    x ** power (exponential). Where all counts are equal, x would be 0 / 0; it is 0, so that e_c = tail for all.

    Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    smooth_head, smooth_tail : e of the most and of the least frequent class, in [0, 1]
    shape : of e between them
    power : of the exponential shape, above 0

    Raises
    ------
    ValueError : a count below 1, counts not one-dimensional, smoothing outside [0, 1], unknown `shape`, `power` not
        above 0
    """

    smoothing: Tensor

    def __init__(
        self,
        class_counts: Sequence[int] | np.ndarray | Tensor,
        smooth_head: float = 0.3,
        smooth_tail: float = 0.0,
        shape: Shape = "concave",
        power: float = 2.0,
    ) -> None:
        if shape not in get_args(Shape):
            raise ValueError(f"shape must be one of {', '.join(get_args(Shape))}, got {shape!r}")
        for name, value in (("smooth_head", smooth_head), ("smooth_tail", smooth_tail)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        exponent = checked_number("power", power, positive=True)
        shapes: Mapping[str, Callable[[Tensor], Tensor]] = {
            "concave": lambda x: torch.sin(math.pi / 2 * x),
            "linear": lambda x: x,
            "convex": lambda x: 1 - torch.cos(math.pi / 2 * x),
            "exponential": lambda x: x**exponent,
        }
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        spread = counts.max() - counts.min()
        place = (counts - counts.min()) / (spread if spread > 0 else 1)
        self.register_buffer("smoothing", smooth_tail + (smooth_head - smooth_tail) * shapes[shape](place))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.smoothing.gather(0, targets).to(logits.dtype)
        own = class_cross_entropy(logits, targets, reduction="none")
        every = -logits.log_softmax(dim=1).mean(dim=1)
        return ((1 - smoothing) * own + smoothing * every).mean()
