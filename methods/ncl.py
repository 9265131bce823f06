"""NCL: complete networks that see views of their own and learn from each other, hard classes once more.

    loss = sum_m [ CE(A_m, y) + CE(H_m, y) ] + weight (D(A) + D(H)),   A_m = z_m + log n,
    D(X) = 1 / (M - 1) sum_{i != j} KL(softmax X_j || softmax X_i)

Network m sees the m-th augmented view of the same images. H_m are the logits of the N hard classes, those that the
first network ranks highest and the target; the others are set to 0 (`mask` zero) or left out (-inf). Predictions are
the mean of the plain logits z_m: an ensemble.

Defaults: 3 networks, weight 0.6, N = 0.3 K and at least 2 (`hard_share`), mask zero (original code, Bazinga699/NCL
f64fddb3: N 30 of 100 classes). Its contrastive term is off there by default and is not here.
Differs: all views share the protocol's augmentation.
Pitfalls: with masked zeros a hard class whose adjusted logit is negative ranks below classes that are not hard.
Source: Li et al., CVPR 2022, sections 3.2 to 3.4; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of an ensemble of 3 networks: three times the passes, the memory and the parameters.
Networks: 3 by default, sharing nothing
Neutral: none, it is an ensemble
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ltbench.losses import NestedCollaborativeLoss
from ltbench.methods import hp, register
from ltbench.methods._experts import Experts
from ltbench.methods.base import Run, full_precision
from ltbench.methods.stages import Batch, Progress, Stage, StageResult


@register("ncl")
class NestedCollaborativeLearning(Experts):
    """One stage with several views; hooks used: build, loss, stages, and those of the ensemble: features, classify."""

    @dataclass(frozen=True)
    class Config:
        """Of the ensemble and of its loss."""

        networks: int = hp(3, low=1, high=8, sweep=(2, 3), source="NCL code")
        weight: float = hp(0.6, low=0.0, sweep=(0.3, 0.6, 1.0), source="NCL code")
        hard_share: float = hp(0.3, low=0.0, high=1.0, sweep=(0.1, 0.3, 0.5), source="NCL code: 30 of 100 classes")
        mask: Literal["zero", "-inf"] = hp("zero", sweep=("zero", "-inf"), source="NCL code: zero")

    def build(self) -> None:
        """Create complete networks with linear heads."""
        self._add_experts(self.config.networks, 0, head=nn.Linear)

    def criterion(self) -> NestedCollaborativeLoss:
        """Return the loss of logits [M, B, K]."""
        classes, config = self.task.num_classes, self.config
        hard = min(classes, max(2, round(config.hard_share * classes)))
        return NestedCollaborativeLoss(self.task.class_counts, hard, config.weight, config.mask)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the loss of all networks, each on its view."""
        networks, views = (self.backbone, *self.others), batch.views
        each = [full_precision(network(views[number % len(views)])) for number, network in enumerate(networks)]
        features = torch.cat(each, dim=1)
        return {"loss": self.loss_function(self.expert_logits(features), batch.targets)}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage with a view for each network."""
        self._start(run)
        yield Stage("train", run.epochs, views=self.config.networks, stop=run.early_stopping())
