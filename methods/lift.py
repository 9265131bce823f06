"""LIFT: light fine-tuning, a cosine head that starts at the class means and learns with adjusted logits.

    z_c = scale * cos(f, w_c),   loss = CE(z + tau log pi, y),   w_c = m_c / |m_c| at the start

m_c is the mean feature of the training images of class c, whole and un-augmented, of the network as training begins; pi
are the class shares of the full training set. What of the network is trained beside the head is the protocol's, for
every method alike: LIFT itself is `lift` under `--weights` of a pre-trained ViT and `--tune adaptformer`; its test-time
ensemble is `--tta five_crop`.

Defaults: scale 25, tau 1 (shijxcs/LIFT, `CosineClassifier` and its logit-adjusted loss).
Differs: the start at text features of the class names, which the original takes where the checkpoint has a text tower,
is left out; optimizer, schedule and epochs are the protocol's.
Source: Shi et al., ICML 2024 (Long-tail learning with foundation model: heavy fine-tuning hurts), section 4.
Cost: one training, and a pass over the training set.
Neutral: none, its head has no bias and no free length
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ltbench.errors import UserError
from ltbench.losses import LogitAdjustedLoss, class_centroids
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.ldam import NormedLinear
from ltbench.methods.stages import Stage, StageResult


@register("lift")
class LightFineTuning(Method):
    """A head with a start of its own; hooks used: build, criterion, classify, stages."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Head, its start, and how strongly class shares count."""

        scale: float = hp(25.0, low=1.0, sweep=(10.0, 25.0, 40.0), source="LIFT code")
        tau: float = hp(1.0, low=0.0, sweep=(0.5, 1.0, 1.5), source="LIFT code: 1")
        start: Literal["class_means", "random"] = hp(
            "class_means", sweep=("class_means", "random"), source="Shi 2024, section 4"
        )

    def build(self) -> None:
        """Create the cosine head."""
        self.head = NormedLinear(feature_width(self.backbone), self.task.num_classes)

    def criterion(self) -> LogitAdjustedLoss:
        """Return the mean cross-entropy of logits plus tau log shares."""
        return LogitAdjustedLoss(self.task.class_counts, self.config.tau)

    def classify(self, features: Tensor) -> Tensor:
        """Return scale * cosine: [B, D] to [B, K], at least float32."""
        return self.config.scale * super().classify(features)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one training, from the class means."""
        if self.config.start == "class_means":
            means = torch.tensor(run.memo("class_means", lambda: self._means(run), story=False))
            with torch.no_grad():
                self.head.weight.copy_(means.T)
        yield Stage("train", run.epochs, stop=run.early_stopping())

    def _means(self, run: Run) -> list[list[float]]:
        """Return the mean feature of each class at length 1: [K, D]."""
        features, labels = torch.from_numpy(run.features()).double(), torch.from_numpy(run.labels)
        means, _ = class_centroids(features, labels, self.task.num_classes, "un")
        empty = (means.norm(dim=1) == 0).nonzero().flatten().tolist()
        if empty:
            raise UserError(
                f"lift: the mean feature of class {empty[0]} is 0 and has no direction; use other --weights or "
                "--set start=random"
            )
        return functional.normalize(means, dim=1).tolist()
