"""Schemes of pre-training beside momentum contrast, each a module of one stage; u, u' are projections of two views.

- `simclr`: InfoNCE over the 2B views of the batch, temperature 0.2 (Chen et al., ICML 2020: 0.1 to 0.5);
- `simsiam`: -[cos(p, sg u') + cos(p', sg u)] / 2, p = predictor(u), sg without gradient (Chen and He, CVPR 2021);
- `byol`: [2 - 2 cos(p, u') + 2 - 2 cos(p', u)] / 2, u and u' from moving averages of backbone and projector, whose
  momentum rises from 0.99 to 1 as a cosine of the epochs (Grill et al., NeurIPS 2020);
- `barlow`: the cross-correlation of u and u' towards the identity (`losses/representation/redundancy.py`);
- `kcl`: momentum contrast with labels: up to 6 keys of the queue that show other images of the class are positives too,
  drawn at random, the rest of the class are negatives like all others (Kang et al., ICLR 2021).

Projectors and predictors are linear, BatchNorm, ReLU, linear. From the specification; original code not run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses import BarlowTwinsLoss, InfoNCELoss
from ltbench.methods._averages import follow
from ltbench.methods._contrast import MomentumContrast
from ltbench.methods.base import feature_width
from ltbench.methods.stages import Batch, LossHook, Progress, cosine_decay

_TEMPERATURE = 0.2
_FIRST_MOMENTUM = 0.99
_POSITIVES = 6


def _layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return functional.cosine_similarity(first, second, dim=1).mean()


class TwoViews(nn.Module):
    """Base of schemes that project both views of a batch and compare them.

    Parameters
    ----------
    backbone : the encoder to be trained, not held
    dimension : of the projected vectors
    """

    def __init__(self, backbone: nn.Module, *, dimension: int) -> None:
        super().__init__()
        width = feature_width(backbone)
        self.projector = _layers(width, width, dimension)

    def loss_on(self, backbone: nn.Module) -> LossHook:
        """Return the loss hook of a stage that trains `backbone` on two views."""

        def loss(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            first, second = (self.projector(backbone(view)).float() for view in batch.views)
            targets = self.targets(first, second, backbone, batch, progress)
            with torch.autocast(first.device.type, enabled=False):
                alignment = _cosine(first.detach(), second.detach())
                return {"loss": self.compare(first, second, *targets), "alignment": alignment}

        return loss

    def targets(
        self, first: Tensor, second: Tensor, backbone: nn.Module, batch: Batch, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Return what stands for both views where no gradient is to flow, float32 [B, d] each: their projections.

        Called in the precision of the network, as it may pass one.
        """
        return first.detach(), second.detach()

    def compare(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return the loss of the projections of two views and what stands for them, float32 [B, d] each."""
        raise NotImplementedError


class SimCLR(TwoViews):
    """InfoNCE over the views of the batch."""

    def __init__(self, backbone: nn.Module, *, dimension: int) -> None:
        super().__init__(backbone, dimension=dimension)
        self.info_nce = InfoNCELoss(_TEMPERATURE)

    def compare(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return InfoNCE."""
        return self.info_nce(first, second)


class BarlowTwins(TwoViews):
    """Cross-correlation towards the identity."""

    def __init__(self, backbone: nn.Module, *, dimension: int) -> None:
        super().__init__(backbone, dimension=dimension)
        self.barlow = BarlowTwinsLoss()

    def compare(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return the loss of Barlow Twins."""
        return self.barlow(first, second)


class SimSiam(TwoViews):
    """A predictor of one view's projection from the other's, which has no gradient."""

    def __init__(self, backbone: nn.Module, *, dimension: int) -> None:
        super().__init__(backbone, dimension=dimension)
        self.predictor = _layers(dimension, dimension, dimension)

    def compare(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return minus the mean cosine of predictions and projections."""
        return -self._agreement(first, second, one, other)

    def _agreement(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return (_cosine(self.predictor(first), other) + _cosine(self.predictor(second), one)) / 2


class BYOL(SimSiam):
    """Predictions of what a moving average of the encoder gives."""

    def __init__(self, backbone: nn.Module, *, dimension: int) -> None:
        super().__init__(backbone, dimension=dimension)
        self.target_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    @torch.no_grad()
    def targets(
        self, first: Tensor, second: Tensor, backbone: nn.Module, batch: Batch, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Move the averages a step on; return their projections of both views."""
        momentum = 1 - (1 - _FIRST_MOMENTUM) * cosine_decay(progress.fraction)
        for online, target in ((backbone, self.target_backbone), (self.projector, self.target_projector)):
            follow(target, online, momentum)
        one, other = (self.target_projector(self.target_backbone(view)).float() for view in batch.views)
        return one, other

    def compare(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return 2 - 2 cos of predictions and the moving average's projections."""
        return 2 - 2 * self._agreement(first, second, one, other)


class KPositiveContrast(MomentumContrast):
    """Momentum contrast with some keys of the same class as positives.

    Parameters
    ----------
    positives : k, keys of the queue that are positives at most; 0: momentum contrast
    others : as of `MomentumContrast`
    """

    labels: Tensor

    def __init__(self, backbone: nn.Module, *, positives: int = _POSITIVES, **others: Any) -> None:
        super().__init__(backbone, **others)
        self.positives = positives
        self.register_buffer("labels", torch.full((len(self.queue),), -1))  # class of each queued key

    def _positives(self, targets: Tensor, same: Tensor) -> Tensor | None:
        filled = same.shape[1]
        count = min(self.positives, filled)
        if count == 0:
            return None
        candidates = (targets.unsqueeze(1) == self.labels[:filled]) & ~same
        drawn = torch.rand(same.shape, device=same.device).masked_fill(~candidates, -1.0).topk(count, dim=1)
        return torch.zeros_like(same).scatter(1, drawn.indices, drawn.values >= 0)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        rows = super()._enqueue(keys, images, targets)
        self.labels[rows] = targets[-len(self.queue) :]
        return rows


SCHEMES: Mapping[str, type[TwoViews | MomentumContrast]] = {
    "": MomentumContrast,
    "simclr": SimCLR,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow": BarlowTwins,
    "kcl": KPositiveContrast,
}
"""By what follows `ssl:`; `ssl` alone is momentum contrast."""
