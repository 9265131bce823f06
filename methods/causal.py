"""CAUSAL: a normalised classifier without the direction that training has drifted in (de-confounded training).

    z_c = (tau / H) sum_h x^h . w_c^h / (|w_c^h| + gamma),   x^h = f^h / |f^h|, f in H chunks
    at test x^h - alpha cos(x^h, m^h) m^h in place of x^h,   m <- momentum m + mean(f) at each step of training

m points where the optimizer's momentum has moved the features, towards frequent classes; at test its part of a feature
is taken off (total direct effect). The training loss is cross-entropy.

1. `train`: one training; its epochs are validated with `start_alpha`, as the classifier is used.
2. Nothing is trained: alpha = 0, 0.5, ..., 3 are scored on validation, and the best is reported, the smallest on a tie.

Defaults: 2 chunks, tau 16, gamma 1/32, momentum 0.9, alpha 1.5 on CIFAR (original code, KaihuaTang/
Long-Tailed-Recognition.pytorch 5c916d0d; 3 on ImageNet). `alpha` set to a number is used as it is.
Differs: m is a buffer, saved with the weights. The original adapts the momentum to the learning rate outside CIFAR;
here it is constant. Before the first step m is 0 and nothing is taken off, where the original divides 0 / 0.
Source: Tang et al., NeurIPS 2020, sections 4.1 and 4.3; not in the tables of Ju et al., MICCAI 2022.
Cost: one training; a validation pass for each alpha.
Neutral: none, its head has no bias and no free length
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ltbench.errors import UserError
from ltbench.losses import CausalNormClassifier
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.stages import Batch, Progress, Stage, StageResult

_GRID = tuple(np.linspace(0, 3, 7).tolist())


@register("causal")
class CausalNorm(Method):
    """A head with a state, and a choice after training; hooks used: build, loss, stages."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Of the head."""

        alpha: float | None = hp(None, low=0.0, high=10.0, source="Tang 2020: 1.5, 3; none: by validation")
        start_alpha: float = hp(1.5, low=0.0, high=10.0, source="code, CIFAR; of validation in training")
        chunks: int = hp(2, low=1, high=64, sweep=(1, 2, 4), source="Tang 2020, code")
        tau: float = hp(16.0, low=1e-3, sweep=(8.0, 16.0, 32.0), source="Tang 2020, code")
        gamma: float = hp(1 / 32, low=0.0, sweep=(0.0, 0.03125, 0.125), source="Tang 2020, code")
        momentum: float = hp(0.9, low=0.0, high=0.9999, sweep=(0.9, 0.99), source="Tang 2020, code")

    def build(self) -> None:
        """Create the normalised head; its moving mean starts at 0.

        Raises
        ------
        UserError : a number of chunks that does not divide the features
        """
        width, config = feature_width(self.backbone), self.config
        if width % config.chunks:
            raise UserError(f"causal: {config.chunks} chunks do not divide {width} features; set chunks to a divisor")
        self.head = CausalNormClassifier(
            *(width, self.task.num_classes, config.chunks, config.tau, config.gamma),
            alpha=config.start_alpha if config.alpha is None else config.alpha,
            momentum=config.momentum,
        )

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return cross-entropy; the batch enters the moving mean."""
        features = self.features(batch.images)
        self.head.update(features.detach())
        return {"loss": self.loss_function(self.classify(features), batch.targets)}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield the training, then one variant for each strength."""
        if self.config.alpha is not None:
            yield Stage("train", run.epochs, stop=run.early_stopping())
            return
        yield Stage("train", run.epochs, stop=run.early_stopping(), keep="best", select=False)
        for alpha in _GRID:
            self.head.alpha.fill_(alpha)
            yield Stage(f"alpha={alpha:g}", 0)
