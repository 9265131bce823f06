"""Losses that draw a number for every logit: SEQL leaves logits out (2020), GCL lowers them (Li et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss, checked_number, class_cross_entropy, own_class
from ltbench.losses.class_weights import checked_counts
from ltbench.losses.focal import FocalLoss
from ltbench.losses.precision import full_precision

_DEVIATION = 1 / 3


class RandomClassLoss(ClassLoss):
    """A loss of class counts, logits, class ids, and a number drawn for each logit from torch's global generator.

    Columns are drawn in order of class frequency, so that what is drawn for a class does not depend on its id. Where no
    number would change the loss none is drawn, so that the network's own randomness stays that of plain training.
    Subclasses write `_draw` and `_drawn_loss`.

    Parameters
    ----------
    counts : float64 [K], valid class counts
    random : whether the loss depends on what is drawn
    """

    columns: Tensor

    def __init__(self, counts: Tensor, random: bool) -> None:
        super().__init__(len(counts))
        self.random = random
        self.register_buffer("columns", counts.argsort(descending=True, stable=True).argsort(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        logits : float [B, K]; half precision is converted to float32
        targets : int64 [B], class ids in [0, K)
        drawn : [B, K], what to take for the random numbers; None: they are drawn

        Returns
        -------
        scalar of the logits' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit each other or the number of classes; ids outside [0, K) on the CPU
        """
        self._check(logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            logits = full_precision(logits)
            return self._drawn_loss(logits, targets, self._numbers(logits, drawn))

    def _numbers(self, logits: Tensor, drawn: Tensor | None) -> Tensor:
        if drawn is None and not self.random:
            return torch.zeros_like(logits)
        if drawn is None:
            return self._draw(logits).index_select(1, self.columns)
        if drawn.shape != logits.shape:
            raise ValueError(f"drawn must be {list(logits.shape)} as the logits, got {list(drawn.shape)}")
        return drawn

    def _draw(self, logits: Tensor) -> Tensor:
        """Return random numbers [B, K] on the device of the logits, the same ones for every type of these."""
        raise NotImplementedError

    def _drawn_loss(self, logits: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        raise NotImplementedError


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
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        rare = counts / counts.sum() < checked_number("threshold", threshold)
        super().__init__(counts, random=gamma > 0 and bool(rare.any()))
        self.gamma = gamma
        self.register_buffer("rare", rare.double())

    def _draw(self, logits: Tensor) -> Tensor:
        return torch.rand(logits.shape, device=logits.device) < self.gamma

    def _drawn_loss(self, logits: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        left_out = (drawn != 0) & (self.rare != 0) & ~own_class(logits, targets)
        return class_cross_entropy(logits.masked_fill(left_out, -torch.inf), targets)


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
        rarity = counts.max().log() - counts.log()
        widest = rarity.max()
        clouds = checked_number("noise", noise) * (rarity / widest if widest > 0 else rarity)
        super().__init__(counts, random=bool((clouds > 0).any()))
        self.margin = checked_number("margin", margin)
        self.scale = checked_number("scale", scale, positive=True)
        self.focal = FocalLoss(gamma, detach=True)
        self.register_buffer("clouds", clouds)

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
