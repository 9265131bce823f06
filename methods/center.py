"""CENTER: center loss beside cross-entropy late in training, features drawn to a learned centre of their class.

loss = CE + lam(t) mean_i |f_i - c_{y_i}|^2 on penultimate features f, centres c [K, D] learned with the network; lam is
0 before a share `start` of the epochs lies behind, then `middle_weight`, from `late_start` on `late_weight`.
Predictions are those of the linear head alone.

Defaults: 0 to 0.6, then 0.001, from 0.8 on 0.005 (code of MONICA 9dc5c21f).
Differs: centres are normal numbers at first, as there, but are set to the class means of the features that training saw
in the last epoch before `start`: the network is drawn to what it has learned, not to random points; the first epoch is
therefore always without the center loss. They have no weight decay, which would shrink them. MONICA adds MixUp, and
offers the loss with cosines and with triplets: left out. Early stopping does not count epochs before `start`, or a run
could end before the loss ever acts.
Pitfalls: with a frozen backbone (`--tune head`) it trains nothing that predicts, and the row is plain cross-entropy.
Source: Wen et al., ECCV 2016; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: middle_weight=0 late_weight=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import CenterLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.stages import Batch, EpochReport, Progress, Stage, StageResult

_ROUNDING = 1e-9  # a share of the epochs that rounding left just below another one counts as it


@register("center")
class CentersOfClasses(Method):
    """Overrides the loss; centres are parameters, the class means that they start from are buffers."""

    needs = "features"

    feature_sums: Tensor
    images_seen: Tensor

    @dataclass(frozen=True)
    class Config:
        """Weight of the center loss, by share of the epochs."""

        start: float = hp(0.6, low=0.0, high=1.0, sweep=(0.4, 0.6), source="MONICA code")
        late_start: float = hp(0.8, low=0.0, high=1.0, sweep=(0.6, 0.8), source="MONICA code")
        middle_weight: float = hp(0.001, low=0.0, sweep=(0.0001, 0.001, 0.01), source="MONICA code")
        late_weight: float = hp(0.005, low=0.0, sweep=(0.0005, 0.005, 0.05), source="MONICA code")

    @classmethod
    def check(cls, config: Any, class_counts: np.ndarray) -> None:
        """Refuse a late part that begins before the middle one."""
        if config.late_start < config.start:
            raise ValueError(f"late_start must be at least start, got {config.late_start:g} below {config.start:g}")

    def build(self) -> None:
        """Add centres to the linear head."""
        super().build()
        classes, width = self.task.num_classes, feature_width(self.backbone)
        self.center_loss = CenterLoss(classes, width)
        self.register_buffer("feature_sums", torch.zeros(classes, width))
        self.register_buffer("images_seen", torch.zeros(classes))

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return cross-entropy, and from `start` on the center loss beside it."""
        features, weight = self.features(batch.images), self._weight(progress)
        classification = self.loss_function(self.classify(features), batch.targets)
        if weight == 0:
            self._count(features.detach(), batch.targets)
            return {"loss": classification}
        center = self.center_loss(features, batch.targets)
        return {"loss": classification + weight * center, "classification": classification, "center": center}

    @torch.no_grad()
    def on_epoch_end(self, report: EpochReport) -> None:
        """Put the centres of the classes that were counted in this epoch at their means."""
        seen = self.images_seen.unsqueeze(1)
        centers = self.center_loss.centers
        centers.copy_(torch.where(seen > 0, self.feature_sums / seen.clamp_min(1), centers))
        self.feature_sums.zero_()
        self.images_seen.zero_()

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return all parameters; centres separately, without weight decay."""
        centers = self.center_loss.centers
        rest = [parameter for parameter in self.parameters() if parameter is not centers]
        return [{"params": rest, "lr": lr}, {"params": [centers], "lr": lr, "weight_decay": 0.0}]

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage; its early stopping counts from the epoch on in which the center loss begins to act."""
        epochs = range(run.epochs)
        after = next((epoch for epoch in epochs if self._weight(Progress(epoch, run.epochs)) > 0), 0)
        yield Stage("train", run.epochs, stop=run.early_stopping(after=after))

    @torch.no_grad()
    def _count(self, features: Tensor, targets: Tensor) -> None:
        membership = functional.one_hot(targets, self.task.num_classes).to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            self.feature_sums += membership.T @ features
        self.images_seen += membership.sum(dim=0)

    def _weight(self, progress: Progress) -> float:
        config, behind = self.config, progress.fraction + _ROUNDING
        if progress.epoch == 0 or behind < config.start:
            return 0.0
        return config.late_weight if behind >= config.late_start else config.middle_weight
