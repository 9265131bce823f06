"""LWS: learnable weight scaling, one factor a class on the frozen classifier of plain training.

    z_c = s_c * (w_c . f + b_c),   s_c = 1 at first

1. Plain training (`methods/_erm.py`), best epoch.
2. Backbone and head are frozen, BatchNorm statistics included; only the K factors are trained, with cross-entropy on
   class-aware batches (`images_per_class` images of a class in turn) for `second_share` of the epochs.

Defaults: 4 images a turn (original code, facebookresearch/classifier-balancing f162adef). The original trains 5
epochs with SGD 0.2, whose steps are as large as the gradient; a step of Adam is as large as the learning rate, and
at the protocol's the factors would stay within a few tenths of 1. They alone are trained at `lr_factor` times it.
Differs: the bias is scaled too, as in the paper (some re-implementations lose it). Only epochs of the second stage
may be reported.
Source: Kang et al., ICLR 2020 (Decoupling), section 4.2.
Cost: one training and a fifth of one, K numbers only; the first stage is shared and charged in full.
Neutral: none, its second stage moves the factors
Status: verified against the original code; optimizer and budget of the second stage are our reading
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, share_of_epochs
from ltbench.methods.stages import Pool, Progress, Stage, StageResult
from ltbench.samplers import class_aware_stream


@register("lws")
class LearnableWeightScaling(Method):
    """Two stages; hooks used: build, classify, stages."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Of the second stage."""

        second_share: float = hp(0.2, low=0.0, high=1.0, sweep=(0.1, 0.2, 0.5), source="our reading; code: 5 after 90")
        images_per_class: int = hp(4, low=1, sweep=(1, 4), source="Decoupling code")
        lr_factor: float = hp(10.0, low=1e-3, high=1e3, sweep=(1.0, 10.0, 100.0), source="our reading, for Adam")

    def build(self) -> None:
        """Add one factor a class to the linear head."""
        super().build()
        self.scale = nn.Parameter(torch.ones(self.task.num_classes))

    def classify(self, features: Tensor) -> Tensor:
        """Return scaled logits [B, K], at least float32."""
        return self.scale * super().classify(features)

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then the factors alone."""
        yield erm_stage(self, run)
        yield Stage(
            "scale",
            share_of_epochs(run, self.config.second_share),
            sampler=self._class_aware,
            params=[self.scale],
            frozen=(self.backbone, self.head),
            lr=self.config.lr_factor * run.lr,
        )

    def _class_aware(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return class_aware_stream(pool.labels, self.config.images_per_class, pool.length, rng)
