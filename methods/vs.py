"""VS: vector scaling, each logit divided by a temperature of its class and shifted by its share in training.

loss = mean over the batch of CE(z / Delta + iota, y), Delta_c = (n_max / n_c) ** gamma, iota_c = tau log pi_c, from
the full training counts; predictions are the plain logits z. The shift decides early in training, the temperatures
where training goes on after every image is right: a rare class must earn a logit that is larger by the factor Delta.
`gamma` = 0 is `logit_adjust`, `tau` = 0 class-dependent temperatures (CDT).

Defaults: gamma 0.3, tau 1 (original code, orparask/VS-Loss 7ade9c99); best in the paper, recalled, are gamma 0.15 to
0.3 and tau 1 to 1.25.
Differs: the deferred re-weighting that the original can add is left out.
Source: Kini et al., NeurIPS 2021; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: gamma=0 tau=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from dataclasses import dataclass

from ltbench.losses import VSLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("vs")
class VectorScaling(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """How strongly counts act as temperatures, and as shifts."""

        gamma: float = hp(0.3, low=0.0, sweep=(0.1, 0.15, 0.3), source="VS-Loss code; paper, recalled: 0.15 to 0.3")
        tau: float = hp(1.0, low=0.0, sweep=(0.5, 1.0, 1.25), source="VS-Loss code; paper, recalled: 1 to 1.25")

    def criterion(self) -> VSLoss:
        """Return the mean cross-entropy of scaled and shifted logits."""
        return VSLoss(self.task.class_counts, self.config.gamma, self.config.tau)
