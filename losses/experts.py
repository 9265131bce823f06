"""Losses of several networks or heads on the same images: RIDE, SADE and nested collaborative learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses._class_loss import ClassLoss, check_class_ids, checked_number, class_cross_entropy, own_class
from ltbench.losses.class_weights import checked_counts, effective_number_weights
from ltbench.losses.margin import LDAMLoss
from ltbench.losses.precision import full_precision

_HIDDEN = -1e9  # logit of a class that is left out: its probability is 0, and differences of such logits are finite

Counts = Sequence[int] | np.ndarray | Tensor


class ExpertLoss(ClassLoss):
    """A `ClassLoss` of the logits of M experts. Subclasses write `_loss`."""

    def forward(self, expert_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        expert_logits : float [M, B, K]; half precision is converted to float32
        targets : int64 [B], class ids in [0, K)

        Returns
        -------
        scalar of the logits' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit each other or the loss; ids outside [0, K) on the CPU
        """
        shape = tuple(expert_logits.shape)
        if len(shape) != 3 or shape[2] != self.num_classes or tuple(targets.shape) != shape[1:2]:
            wanted = f"logits [M, B, {self.num_classes}] and targets [B]"
            raise ValueError(f"this loss takes {wanted}, got {shape} and {tuple(targets.shape)}")
        check_class_ids(targets, shape[2])
        with torch.autocast(expert_logits.device.type, enabled=False):
            return self._loss(full_precision(expert_logits), targets)


def _divergence(target: Tensor, other: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(other)) of logits [B, K], mean over the batch."""
    return functional.kl_div(other.log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean")


class RIDELoss(ExpertLoss):
    """Each expert learns the classes and is pushed away from the mean of all: Wang et al., ICLR 2021, section 3.

    loss = sum_m [ l(z_m, y) - diversity T^2 KL(softmax(mean z / T_c) || softmax(z_m / T_c)) ]

    l is cross-entropy (`ce`) or LDAM of cosines z / scale (`ldam`); the mean over experts carries no gradient, KL is
    the mean over the batch. T_c = T = 1 without `reweight`; with it T_c = e_c / max e, e_c = 1 - evenness +
    evenness K pi_c, T the mean of T_c, and LDAM has effective-number weights, in torch's weighted mean. Shapes and
    types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    base : of l
    diversity : at least 0
    reweight : whether it is the loss of the last epochs
    max_margin, scale : of LDAM; logits are `scale` times cosines
    beta : of the effective number, in [0, 1)
    evenness : in [0, 1]

    Raises
    ------
    ValueError : a count below 1, an unknown base, a number out of its range
    """

    temperature: Tensor

    def __init__(
        self,
        class_counts: Counts,
        base: Literal["ldam", "ce"] = "ldam",
        diversity: float = 0.2,
        *,
        reweight: bool = False,
        max_margin: float = 0.5,
        scale: float = 30.0,
        beta: float = 0.9999,
        evenness: float = 0.05,
    ) -> None:
        if base not in ("ldam", "ce") or not 0 <= evenness <= 1:
            raise ValueError(f"base must be ldam or ce and evenness in [0, 1], got {base!r} and {evenness}")
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.base, self.diversity = base, checked_number("diversity", diversity)
        weights = effective_number_weights(counts, beta) if reweight else None
        self.margin_loss = LDAMLoss(counts, max_margin, scale, weights)
        uneven = 1 - evenness + evenness * len(counts) * counts / counts.sum()
        self.register_buffer("temperature", uneven / uneven.max() if reweight else torch.ones_like(counts))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        temperature = self.temperature.to(logits.dtype)
        scaled, factor = logits / temperature, self.diversity * temperature.mean().square()
        mean = scaled.detach().mean(dim=0)
        losses = [
            self._base_loss(own, targets) - factor * _divergence(mean, own_scaled)
            for own, own_scaled in zip(logits, scaled, strict=True)
        ]
        return torch.stack(losses).sum()

    def _base_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.base == "ce":
            return class_cross_entropy(logits, targets)
        return self.margin_loss(logits / self.margin_loss.scale, targets)


class SADELoss(ExpertLoss):
    """Three experts for three test distributions: Zhang et al., NeurIPS 2022, eq. 1 to 3.

    loss = CE(z_1, y) + CE(z_2 + log pi, y) + CE(z_3 + log pi - tau log pi', y)

    The first is right for the training shares pi, the second for even ones, the third for reversed ones: pi' has the
    values of pi, assigned in reversed order of frequency. Classes of equal counts share the mean of what they would
    get, so that nothing depends on the order of class ids. Shapes and types: see `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    tau : at least 0

    Raises
    ------
    ValueError : a count below 1, `tau` negative or not finite; when called, another number of experts than three
    """

    adjustments: Tensor

    def __init__(self, class_counts: Counts, tau: float = 2.0) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        shares = counts / counts.sum()
        reverse = torch.empty_like(shares)
        reverse[shares.argsort()] = shares.sort(descending=True).values
        _, group = counts.unique(return_inverse=True)  # classes of equal counts, whose ranks are arbitrary
        reverse = (torch.bincount(group, weights=reverse) / torch.bincount(group))[group]
        third = shares.log() - checked_number("tau", tau) * reverse.log()
        self.register_buffer("adjustments", torch.stack([torch.zeros_like(shares), shares.log(), third]))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if len(logits) != len(self.adjustments):
            raise ValueError(f"this loss takes the logits of three experts, got {len(logits)}")
        adjusted = logits + self.adjustments.to(logits.dtype).unsqueeze(1)
        return torch.stack([class_cross_entropy(each, targets) for each in adjusted]).sum()


class NestedCollaborativeLoss(ExpertLoss):
    """Networks that learn the classes, hard ones once more, and from each other: Li et al., CVPR 2022 (NCL).

    loss = sum_m [ CE(A_m, y) + CE(H_m, y) ] + weight (D(A) + D(H)),   A_m = z_m + log n,
    D(X) = 1 / (M - 1) sum_{i != j} KL(softmax X_j || softmax X_i), mean over the batch, 0 for one network

    H_m are the logits of the hard classes: the target and those that the first network's plain logits z_0 rank highest,
    `hard_classes` of them, the same for all networks. D has a gradient in both of a pair. Shapes and types: see
    `forward`.

    Parameters
    ----------
    class_counts : [K], training images of each class by class id, at least 1
    hard_classes : N, from 1 to K; None: max(2, round(0.3 K)), at most K
    weight : of the divergences, at least 0
    mask : what the other classes' logits become: 0 (`zero`, the released code's) or nothing to choose (`-inf`)

    Raises
    ------
    ValueError : a count below 1, N outside [1, K], `weight` negative or not finite, unknown `mask`
    """

    log_counts: Tensor

    def __init__(
        self,
        class_counts: Counts,
        hard_classes: int | None = None,
        weight: float = 0.6,
        mask: Literal["zero", "-inf"] = "zero",
    ) -> None:
        counts = checked_counts(class_counts)
        super().__init__(len(counts))
        self.hard_classes = min(len(counts), max(2, round(0.3 * len(counts)))) if hard_classes is None else hard_classes
        if not 1 <= self.hard_classes <= len(counts) or mask not in ("zero", "-inf"):
            wanted = f"hard_classes must be from 1 to {len(counts)} and mask zero or -inf"
            raise ValueError(f"{wanted}, got {hard_classes} and {mask!r}")
        self.weight, self.hidden = checked_number("weight", weight), 0.0 if mask == "zero" else _HIDDEN
        self.register_buffer("log_counts", counts.log())

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        ranked = torch.where(own_class(logits[0], targets), torch.inf, logits[0].detach())
        hard = torch.zeros_like(ranked).scatter_(1, ranked.topk(self.hard_classes, dim=1).indices, 1.0)
        every = logits + self.log_counts.to(logits.dtype)
        chosen = torch.where(hard > 0, every, self.hidden)
        learned = [class_cross_entropy(each, targets) for views in (every, chosen) for each in views]
        return torch.stack(learned).sum() + self.weight * (_mutual(every) + _mutual(chosen))


def _mutual(logits: Tensor) -> Tensor:
    """Return the divergences of all ordered pairs of M networks, divided by M - 1; 0 for one network."""
    networks = range(len(logits))
    pairs = [_divergence(logits[i], logits[j]) for i in networks for j in networks if i != j]
    return torch.stack(pairs).sum() / (len(logits) - 1) if pairs else logits.new_zeros(())
