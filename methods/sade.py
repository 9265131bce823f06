"""SADE: three experts, for the training shares of classes, for even and for reversed ones; the mean of their logits.

    loss = CE(z_1, y) + CE(z_2 + log pi, y) + CE(z_3 + log pi - tau log pi', y)

pi' has the values of pi in reversed order of frequency. The experts share the first stages of the backbone and have
normalised heads, as `ride`.

Defaults: tau 2, three experts with the last two stages of their own, scale 30 (original code, Vanint/SADE-AgnosticLT
cba11b8b). For a balanced test set the original averages the logits, as here.
Differs: aggregation weights learned on test images are left out: no method here sees test data. Experts have the full
width of the backbone. Classes of equal counts share the mean of their values of pi'.
Source: Zhang et al., NeurIPS 2022, section 4.1; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of an ensemble of 3 that shares its first stages; every expert's pass is counted as one.
Networks: 3, sharing the first stages
Neutral: none, it is an ensemble with normalised heads
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ltbench.losses import SADELoss
from ltbench.methods import hp, register
from ltbench.methods._experts import Experts
from ltbench.methods.stages import Batch, Progress


@register("sade")
class SkillDiverseExperts(Experts):
    """One stage; hooks used: build, loss, and those of the ensemble: features, classify, stages."""

    @dataclass(frozen=True)
    class Config:
        """Of the ensemble, and of its third expert."""

        tau: float = hp(2.0, low=0.0, sweep=(1.0, 2.0, 3.0), source="SADE code")
        own_stages: int = hp(2, low=0, high=8, sweep=(1, 2), source="SADE code: layer3 and layer4; 0: all")
        scale: float = hp(30.0, low=1.0, sweep=(10.0, 20.0, 30.0), source="SADE code")

    def build(self) -> None:
        """Create three experts with normalised heads."""
        self._add_experts(3, self.config.own_stages, scale=self.config.scale)

    def criterion(self) -> SADELoss:
        """Return the loss of logits [3, B, K]."""
        return SADELoss(self.task.class_counts, self.config.tau)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the sum of the experts' losses."""
        return {"loss": self.loss_function(self.expert_logits(self.features(batch.images)), batch.targets)}
