"""DisAlign: the logits of plain training are adjusted by a scale and an offset a class, as far as the image asks.

    z'_c = (1 + g s_c) z_c + g t_c,   g = sigmoid(v . f + b),   s = 1, t = 0, v = 0.1, b = 0 at first
    loss = sum_i w_{y_i} CE(z'_i, y_i) / sum_i w_{y_i},   w_c proportional to pi_c ** -rho, summing to K

1. Plain training (`methods/_erm.py`), best epoch.
2. Backbone and head are frozen, BatchNorm statistics included; s, t, v, b alone are trained on all images in turn, for
   `second_share` of the epochs, by SGD with momentum 0.9 and a cosine schedule. Only these epochs may be reported.

Defaults: rho 1.2 as on ImageNet-LT, v 0.1, SGD at 0.1, cosine (original code, Megvii-BaseDetection/DisAlign a2fc3500;
there 10 epochs after 90). Adam is no substitute: it makes of the faint gradient of a saturated g as large a step as of
any other; g then falls to 0, since the doubled logits of the start are too sure, and nothing is aligned (seen).
Differs: b starts at 0, the rate falls by steps, not epochs, and there is no weight decay (there 0.0005). A
re-implementation (MONICA 9dc5c21f) trains a new random classifier beside, which is cRT.
Pitfalls: with s = 1 the logits differ from plain training's at the start, by a factor an image, so no decision does.
The paper, recalled, writes g (s z + t) + (1 - g) z; the code's s is that less 1, so that both start differently.
Source: Zhang et al., CVPR 2021, section 3; not in the tables of Ju et al., MICCAI 2022.
Cost: one training and a fifth of one, 2 K + D + 1 numbers only; the first stage is shared and charged in full.
Neutral: none, its second stage moves scales and offsets
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import DisAlignHead, power_weights
from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, feature_width, share_of_epochs
from ltbench.methods.stages import Batch, Progress, Stage, StageResult, cosine_decay


@register("disalign")
class DistributionAlignment(Method):
    """Two stages; hooks used: build, classify, loss, stages."""

    needs = "features"

    class_weights: Tensor

    @dataclass(frozen=True)
    class Config:
        """Of the second stage."""

        rho: float = hp(1.2, low=0.0, high=4.0, sweep=(0.8, 1.0, 1.2, 1.5), source="DisAlign code: ImageNet-LT")
        second_share: float = hp(0.2, low=0.0, high=1.0, sweep=(0.1, 0.2, 0.5), source="our reading; code: 10 after 90")
        rate: float = hp(0.1, low=1e-6, high=10.0, sweep=(0.01, 0.1, 1.0), source="DisAlign code: SGD")

    def build(self) -> None:
        """Add what aligns the logits to the linear head, and class weights, float64 [K]."""
        super().build()
        self.align = DisAlignHead(feature_width(self.backbone), self.task.num_classes)
        self.register_buffer("class_weights", power_weights(self.task.class_counts, self.config.rho))

    def classify(self, features: Tensor) -> Tensor:
        """Return aligned logits [B, K], at least float32."""
        return self.align(super().classify(features), features)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the weighted mean of the cross-entropies of the aligned logits."""
        logits = self.classify(self.features(batch.images))
        return {"loss": functional.cross_entropy(logits, batch.targets, weight=self.class_weights.to(logits.dtype))}

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then what aligns its logits."""
        yield erm_stage(self, run)
        yield Stage(
            "align",
            share_of_epochs(run, self.config.second_share),
            params=list(self.align.parameters()),
            frozen=(self.backbone, self.head),
            optimizer=lambda groups, stage: torch.optim.SGD(groups, momentum=0.9),
            lr=self.config.rate,
            schedule=cosine_decay,
        )
