"""Gaussian clouded logits: rare classes are trained on logits that noise has lowered (Li et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import checked_number, own_class
from ltbench.losses._random_loss import RandomClassLoss
from ltbench.losses.class_weights import checked_counts
from ltbench.losses.focal import FocalLoss

_DEVIATION = 1 / 3


class GCLLoss(RandomClassLoss):
    """Focal loss, its modulator a constant, of z = scale (cos - noise |eps| delta - margin at y): Li et al., CVPR 2022.

    delta_c = (log n_max - log n_c) / (log n_max - log n_min), 0 for the most frequent class and 1 for the rarest, 0 for
    all where counts are equal. eps is normal with standard deviation 1/3, clamped to [-1, 1], drawn for each logit: the
    logits of all classes are lowered, not the target's alone. `gamma` = 0 makes it cross-entropy.

    "Logits" are cosines in [-1, 1], of normalised features and normalised class vectors. Predictions use cosines
    without noise and margin. Shapes and types: see `forward`, whose `drawn` are the eps.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    noise : nu, at least 0
    margin : m, at least 0
    scale : s, above 0
    gamma : of the modulator (1 - p_y) ** gamma, at least 0

    Raises
    ------
    ValueError : a count below 1, counts that are not one-dimensional, a number that is out of range or not finite
    """

    clouds: Tensor

    def __init__(
        self,
        class_counts: Sequence[int] | np.ndarray | Tensor,
        noise: float = 0.5,
        margin: float = 0.0,
        scale: float = 30.0,
        gamma: float = 0.0,
    ) -> None:
        counts = checked_counts(class_counts)
        super().__init__(counts)
        self.margin = checked_number("margin", margin)
        self.scale = checked_number("scale", scale, positive=True)
        self.focal = FocalLoss(gamma, detach=True)
        rarity = counts.max().log() - counts.log()
        widest = rarity.max()
        self.register_buffer("clouds", checked_number("noise", noise) * (rarity / widest if widest > 0 else rarity))

    def clouded(self, cosines: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Return scale (cos - noise |eps| delta), without margin, for targets of any kind: float [B, K] to the same."""
        return self.scale * self._lowered(cosines, self._numbers(cosines, drawn))

    def _lowered(self, cosines: Tensor, drawn: Tensor) -> Tensor:
        return cosines - self.clouds.to(cosines.dtype) * drawn.to(cosines.dtype).clamp(-1, 1).abs()

    def _draw(self, logits: Tensor) -> Tensor:
        return _DEVIATION * torch.randn(logits.shape, device=logits.device)

    def _drawn_loss(self, logits: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        lowered = self._lowered(logits, drawn)
        lowered = torch.where(own_class(logits, targets), lowered - self.margin, lowered)
        return self.focal(self.scale * lowered, targets)
