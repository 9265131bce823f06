"""BCL: balanced contrastive learning, views of an image and prototypes of all classes pulled together by class.

Three views of each image: x1 is classified, x2 and x3 are contrasted. With f the backbone, z = 30 cos the logits of a
normalised head of class vectors W, and two projectors g and g' to the unit sphere,

    v = [g(f(x2)); g(f(x3)); g'(W)],   Y = [y; y; 0 .. K-1],   S_ij = v_i . v_j / tau
    P_i = {j != i : Y_j = Y_i},   b_c = number of vectors of class c,   w_ij = b_{Y_j} - 1[j in P_i]
    L_i = -(1 / |P_i|) sum_{p in P_i} [S_ip - log sum_{j != i} e^{S_ij} / w_ij]
    loss = alpha CE(z(x1) + log pi, y) + beta mean_i L_i

where the anchors i are the views alone (BalancedContrastiveLoss in `losses/representation/contrastive.py`). Averaging
within classes lets every class repel alike; prototypes make every class present in every batch. They come from the
class vectors as they are, not normalised, and move them. Predictions are z of one view.

Defaults: alpha 1, beta 0.35 (original code, FlamieZhu/BCL f72d0703, for ImageNet-LT, with tau 0.07 and d 1024); tau 0.1
and d 128 as it has for CIFAR (recalled), better suited to few classes.
Differs: all views have the protocol's augmentation; there the classified view has RandAugment and the others SimCLR's.
With two classes BatchNorm in g' sees two rows and knows their signs alone.
Source: Zhu et al., CVPR 2022, eq. 4 to 6; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of three views an image: about three times that of ce; two projectors, which predictions do not use.
Neutral: none, its head has no bias and no free length; beta = 0 is `logit_adjust` with that head
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltbench.losses import BalancedContrastiveLoss, LogitAdjustedLoss
from ltbench.methods import hp, register
from ltbench.methods._projection import Projector
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.ldam import NormedLinear
from ltbench.methods.stages import Batch, Progress, Stage, StageResult


@register("bcl")
class BalancedContrastiveLearning(Method):
    """One stage of three views; hooks used: build, criterion, classify, loss, stages."""

    @dataclass(frozen=True)
    class Config:
        """Weights of both losses, and the contrasted vectors."""

        alpha: float = hp(1.0, low=0.0, sweep=(1.0, 2.0), source="BCL code")
        beta: float = hp(0.35, low=0.0, sweep=(0.2, 0.35, 0.6), source="BCL code, ImageNet-LT")
        temperature: float = hp(0.1, low=1e-3, sweep=(0.07, 0.1, 0.2), source="BCL code, CIFAR, recalled")
        dimension: int = hp(128, low=1, sweep=(64, 128, 1024), source="BCL code, CIFAR, recalled")
        scale: float = hp(30.0, low=1.0, sweep=(10.0, 20.0, 30.0), source="BCL code")

    def build(self) -> None:
        """Create the normalised head and the projectors of features and of class vectors."""
        width, config = feature_width(self.backbone), self.config
        self.head = NormedLinear(width, self.task.num_classes)
        self.projector = Projector(width, config.dimension)
        self.class_projector = Projector(width, config.dimension)
        self.contrast = BalancedContrastiveLoss(config.temperature)

    def criterion(self) -> LogitAdjustedLoss:
        """Return the mean cross-entropy of logits plus log shares."""
        return LogitAdjustedLoss(self.task.class_counts)

    def classify(self, features: Tensor) -> Tensor:
        """Return scale * cosine: [B, D] to [B, K], at least float32."""
        return self.config.scale * super().classify(features)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the weighted sum of both losses, and these."""
        classified, *others = self.features(torch.cat(batch.views)).chunk(3)
        classification = self.loss_function(self.classify(classified), batch.targets)
        first, second = self.projector(torch.cat(others)).chunk(2)
        contrast = self.contrast(first, second, batch.targets, self.class_projector(self.head.weight.T))
        total = self.config.alpha * classification + self.config.beta * contrast
        return {"loss": total, "classification": classification, "contrast": contrast}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of three views."""
        yield Stage("train", run.epochs, views=3, stop=run.early_stopping())
