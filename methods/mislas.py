"""MiSLAS: mixup in the first stage, then head and class scales with label-aware smoothing on balanced batches.

    z_c = s_c * (w_c . f + b_c),   loss of stage 2 = mean[(1 - e_y) CE(z, y) + e_y mean_k(-log p_k)],
    e_c = smooth_tail + (smooth_head - smooth_tail) sin(pi (n_c - n_min) / (2 (n_max - n_min)))

1. `train`: mixup (`methods/mixup.py`), best epoch; s_c = 1.
2. `classifier`: the backbone is frozen; the linear head goes on at `head_factor` times the rate of the K scales, which
   start at 1, with label-aware smoothing on class-balanced draws for `second_share` of the epochs, cosine schedule.
   With `shift_bn` its BatchNorm statistics follow the balanced stream, else they stay.

Defaults: alpha 1, smoothing 0.3 to 0, concave, head at half the rate of the scales, no `shift_bn`, cosine: the
original code (dvlab-research/MiSLAS 0fc381e3) for CIFAR-10-LT of ratio 100. It trains stage 2 for 10 epochs after 200
with SGD, whose steps are as large as the gradient; with Adam the scales would stay near 1 at the protocol's rate, so
that stage 2 has `lr_factor` times it, as `lws`.
Differs: optimizer and length of stage 2. Equal class counts, at which the original divides 0 / 0, have smooth_tail.
Source: Zhong et al., CVPR 2021, sections 3.2 to 3.4; not in the tables of Ju et al., MICCAI 2022.
Cost: one training with mixup, not shared, and a fifth of one, head only.
Neutral: none, its second stage trains head and scales
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.losses import LabelAwareSmoothingLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Run, share_of_epochs
from ltbench.methods.mixup import MixUp
from ltbench.methods.stages import Batch, ParamGroups, Pool, Progress, Stage, StageResult, cosine_decay
from ltbench.samplers import reweighted_stream


@register("mislas")
class MixUpLabelAwareSmoothing(MixUp):
    """Two stages, the first that of mixup; hooks used: build, classify, param_groups, stages."""

    @dataclass(frozen=True)
    class Config(MixUp.Config):
        """Of mixup, and of the second stage."""

        smooth_head: float = hp(0.3, low=0.0, high=1.0, sweep=(0.1, 0.3, 0.4), source="MiSLAS code: CIFAR-10-LT")
        smooth_tail: float = hp(0.0, low=0.0, high=1.0, sweep=(0.0, 0.1), source="MiSLAS code")
        shape: Literal["concave", "linear", "convex", "exponential"] = hp(
            "concave", sweep=("concave", "linear", "convex"), source="MiSLAS code"
        )
        second_share: float = hp(0.2, low=0.0, high=1.0, sweep=(0.1, 0.2, 0.5), source="our reading; code: 10 of 200")
        lr_factor: float = hp(10.0, low=1e-3, high=1e3, sweep=(1.0, 10.0, 100.0), source="our reading, for Adam")
        head_factor: float = hp(0.5, low=0.0, high=1e3, sweep=(0.1, 0.5, 1.0), source="MiSLAS code")
        shift_bn: bool = hp(False, sweep=(True, False), source="MiSLAS code: CIFAR-10-LT")

    def build(self) -> None:
        """Add one scale a class to the linear head, and the loss of the second stage."""
        super().build()
        config = self.config
        self.scale = nn.Parameter(torch.ones(self.task.num_classes))
        self.smoothing_loss = LabelAwareSmoothingLoss(
            self.task.class_counts, config.smooth_head, config.smooth_tail, config.shape
        )

    def classify(self, features: Tensor) -> Tensor:
        """Return scaled logits [B, K], at least float32."""
        return self.scale * super().classify(features)

    def param_groups(self, lr: float) -> ParamGroups:
        """Return the groups of the second stage: the head, and the scales."""
        return [
            {"params": list(self.head.parameters()), "lr": self.config.head_factor * lr},
            {"params": [self.scale], "lr": lr},
        ]

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield mixup, then the classifier alone."""
        plain = [*self.backbone.parameters(), *self.head.parameters()]
        yield Stage("train", run.epochs, params=plain, stop=run.early_stopping(), keep="best", select=False)
        yield Stage(
            "classifier",
            share_of_epochs(run, self.config.second_share),
            loss=self._smoothed,
            sampler=self._balanced,
            transform=lambda batch, rng: batch,
            frozen=() if self.config.shift_bn else (self.backbone,),
            lr=self.config.lr_factor * run.lr,
            schedule=cosine_decay,
        )

    def _smoothed(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": self.smoothing_loss(self.classify(self.features(batch.images)), batch.targets)}

    def _balanced(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return reweighted_stream(pool.labels, np.ones(len(pool.class_counts)), pool.length, rng)
