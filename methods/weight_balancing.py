"""WEIGHT BALANCING: strong weight decay in plain training, then a classifier whose class vectors have bounded lengths.

Weight decay keeps the class vectors of frequent classes from growing far beyond those of rare ones; the second stage
trains the classifier alone, with a class-balanced loss, weight decay and a bound on the lengths:

    delta = min_k |w_k| + norm_range (max_k |w_k| - min_k |w_k|) of the first stage,   w_k <- w_k min(1, delta / |w_k|)

1. `train`: cross-entropy with decoupled weight decay `decay`, w <- (1 - rate decay) w after each step; best epoch.
2. `classifier`: the backbone is frozen, BatchNorm statistics included; the head goes on from the first stage with the
   class-balanced loss (softmax) and `classifier_decay`, for `second_share` of the epochs, cosine schedule. After each
   epoch its class vectors are projected, before it is validated; biases are free.

Defaults: norm_range 0.1, beta 0.9999 (original code, ShadeAlsha/LTR-weight-balancing e89f2927); both decays 0.1, our
reading, to be swept on validation. The protocol's own weight decay, if any, is on top.
Differs: decay is decoupled, since Adam would divide the gradient of a penalty by its own size, and weaker: the original
(SGD at 0.01 with momentum 0.9, decay 5e-3, then 0.1) takes 5e-4 of a weight a step, then 1e-2; 0.1 under Adam's 3e-4
takes 3e-5 in both stages, so that in a short second stage the bound does most. The same share a step would need 1.7 and
33, beside steps of another size. The second stage has the protocol's learning rate. The original's class-balanced loss
is a binary cross-entropy of softmax probabilities; here it is the softmax form of `cb`.
Source: Alshammari et al., CVPR 2022, sections 3 and 4; not in the tables of Ju et al., MICCAI 2022.
Cost: one training, not shared, and a fifth of one, head only.
Neutral: none, its second stage trains the head under another loss
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import ClassBalancedLoss, max_norm_projection
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, full_precision, share_of_epochs
from ltbench.methods.stages import Batch, EpochReport, ParamGroups, Progress, Stage, StageResult, cosine_decay

_CLASSIFIER = "classifier"


@register("weight_balancing")
class WeightBalancing(Method):
    """Two stages; hooks used: build, classify, optimizer, on_epoch_end, stages."""

    needs = "features"

    delta: Tensor

    @dataclass(frozen=True)
    class Config:
        """How lengths are held down."""

        decay: float = hp(0.1, low=0.0, high=100.0, sweep=(1e-4, 1e-3, 1e-2, 1e-1), source="our reading, decoupled")
        classifier_decay: float = hp(0.1, low=0.0, high=100.0, sweep=(0.1, 1.0, 10.0), source="our reading, decoupled")
        norm_range: float = hp(0.1, low=0.0, sweep=(0.0, 0.1, 0.5), source="Alshammari 2022, code")
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.99, 0.999, 0.9999), source="Cui 2019")
        second_share: float = hp(0.2, low=0.0, high=1.0, sweep=(0.1, 0.2, 0.5), source="our reading; code: 10 of 200")

    def build(self) -> None:
        """Add the bound on lengths, float64 scalar, none yet, and the loss of the second stage."""
        super().build()
        self.register_buffer("delta", torch.tensor(math.inf, dtype=torch.float64))
        self.balanced_loss = ClassBalancedLoss(self.task.class_counts, self.config.beta)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K], at least float32; in evaluation of class vectors within the bound."""
        if self.training:
            return super().classify(features)
        with torch.autocast(features.device.type, enabled=False):
            weight = max_norm_projection(self.head.weight, self.delta)
            return functional.linear(full_precision(features), weight, self.head.bias)

    def optimizer(self, groups: ParamGroups, stage: Stage) -> torch.optim.Optimizer:
        """Return the protocol's optimizer, with decoupled weight decay after each step."""
        decay = self.config.classifier_decay if stage.name == _CLASSIFIER else self.config.decay
        optimizer = super().optimizer(groups, stage)

        @torch.no_grad()
        def shrink(used: torch.optim.Optimizer, *given: Any) -> None:
            for group in used.param_groups if decay else ():
                torch._foreach_mul_(group["params"], 1 - group["lr"] * decay)

        optimizer.register_step_post_hook(shrink)
        return optimizer

    def on_epoch_end(self, report: EpochReport) -> None:
        """Project the class vectors after an epoch of the second stage."""
        if report.stage == _CLASSIFIER:
            with torch.no_grad():
                self.head.weight.copy_(max_norm_projection(self.head.weight, self.delta))

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield training under weight decay, then the classifier alone."""
        yield Stage("train", run.epochs, stop=run.early_stopping(), keep="best", select=False)
        lengths = self.head.weight.detach().norm(dim=1)
        self.delta.copy_(lengths.min() + self.config.norm_range * (lengths.max() - lengths.min()))
        yield Stage(
            _CLASSIFIER,
            share_of_epochs(run, self.config.second_share),
            loss=self._balanced,
            frozen=(self.backbone,),
            schedule=cosine_decay,
        )

    def _balanced(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": self.balanced_loss(self.classify(self.features(batch.images)), batch.targets)}
