"""RIDE: experts that share their first stages and are pushed apart; an ensemble, the mean of their logits.

    loss = sum_m [ l(z_m, y) - diversity T^2 KL(softmax(mean z / T_c) || softmax(z_m / T_c)) ]

l is LDAM on scale * cosine logits, or cross-entropy. Until `drw_start` of the epochs T_c = T = 1; from then on
T_c = e_c / max e, e_c = 1 - evenness + evenness K pi_c, T their mean, and LDAM has effective-number weights, as `ldam`.
The mean over experts is a constant of the divergence. Early stopping does not count epochs before the switch.

Defaults: 3 experts with the last two stages of their own (layer3 and layer4 of a ResNet), scale 30, diversity 0.2 (0.45
on CIFAR-100-LT), evenness 0.05, LDAM-DRW with its own defaults (original code, frank-xwang/RIDE-LongTailRecognition
ab8be5c2; evenness 0.02 on ImageNet-LT).
Differs: experts have the full width of the backbone, where the original may take three quarters. Its second stage,
a router that leaves out experts, saves passes and is not here. The learning rate does not drop at the switch.
Pitfalls: the sign of the divergence is minus, so that the loss may be negative.
Source: Wang et al., ICLR 2021, sections 3.1 and 3.2; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of an ensemble of 3 that shares its first stages; every expert's pass is counted as one.
Networks: 3 by default, sharing the first stages
Neutral: none, it is an ensemble with normalised heads
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ltbench.losses import RIDELoss
from ltbench.methods import hp, register
from ltbench.methods._experts import Experts
from ltbench.methods.base import Run
from ltbench.methods.ldam import deferred_epoch
from ltbench.methods.stages import Batch, Progress, Stage, StageResult


@register("ride")
class RoutingDiverseExperts(Experts):
    """One stage; hooks used: build, loss, stages, and those of the ensemble: features, classify."""

    @dataclass(frozen=True)
    class Config:
        """Of the ensemble, the divergence, and LDAM-DRW."""

        experts: int = hp(3, low=1, high=8, sweep=(2, 3, 4), source="RIDE code")
        own_stages: int = hp(2, low=0, high=8, sweep=(1, 2), source="RIDE code: layer3 and layer4; 0: all")
        objective: Literal["ldam", "ce"] = hp("ldam", sweep=("ldam", "ce"), source="RIDE code")
        diversity: float = hp(0.2, low=0.0, sweep=(0.0, 0.2, 0.45), source="RIDE code; CIFAR-100-LT: 0.45")
        evenness: float = hp(0.05, low=0.0, high=1.0, source="RIDE code")
        scale: float = hp(30.0, low=1.0, sweep=(10.0, 20.0, 30.0), source="RIDE code")
        max_margin: float = hp(0.5, low=0.0, sweep=(0.3, 0.5, 0.7), source="LDAM-DRW code")
        drw_start: float = hp(0.8, low=0.0, high=1.0, sweep=(0.6, 0.8), source="RIDE code: 160 of 200 epochs")
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.99, 0.999, 0.9999), source="LDAM-DRW code")

    def build(self) -> None:
        """Create experts with normalised heads, and the loss of the last epochs."""
        self._add_experts(self.config.experts, self.config.own_stages, scale=self.config.scale)
        self.deferred_loss = self._loss(reweight=True)

    def criterion(self) -> RIDELoss:
        """Return the loss of the first epochs, of logits [M, B, K]."""
        return self._loss(reweight=False)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the loss of all experts, re-weighted from the switch on."""
        deferred = progress.epoch >= self._switch(progress.epochs)
        loss_function = self.deferred_loss if deferred else self.loss_function
        return {"loss": loss_function(self.expert_logits(self.features(batch.images)), batch.targets)}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage; its early stopping counts from the switch on."""
        self._start(run)
        yield Stage("train", run.epochs, stop=run.early_stopping(after=self._switch(run.epochs)))

    def _loss(self, *, reweight: bool) -> RIDELoss:
        config = self.config
        return RIDELoss(
            *(self.task.class_counts, config.objective, config.diversity),
            reweight=reweight,
            max_margin=config.max_margin,
            scale=config.scale,
            beta=config.beta,
            evenness=config.evenness,
        )

    def _switch(self, epochs: int) -> int:
        """Return the first epoch with weights."""
        return deferred_epoch(self.config.drw_start, epochs)
