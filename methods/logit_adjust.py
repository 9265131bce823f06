"""LOGIT ADJUST: class shares added to the logits of the training loss, and nowhere else.

loss = mean over the batch of CE(z + tau log pi, y), pi_c = n_c / N of the full training counts; predictions are the
plain logits z. `tau` = 1, the value that the paper derives, equals `balanced_softmax`; 0 is cross-entropy.

The sign is plus: rare classes must earn a larger logit in training. A released re-implementation (MONICA 9dc5c21f)
subtracts, which favours frequent classes twice. The correction after training (z - tau log pi at test) is another
method. Not to be combined with a balanced sampler, which would correct twice.

Source: Menon et al., ICLR 2021, section 5; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: tau=0
Status: from the paper; its code was not read, the formula equals VS loss (orparask/VS-Loss 7ade9c99) at gamma 0
"""

from __future__ import annotations

from dataclasses import dataclass

from ltbench.losses import LogitAdjustedLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("logit_adjust")
class LogitAdjustment(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """How strongly class shares count."""

        tau: float = hp(1.0, low=0.0, sweep=(0.5, 1.0, 1.5, 2.0), source="Menon 2021: 1")

    def criterion(self) -> LogitAdjustedLoss:
        """Return the mean cross-entropy of logits plus tau log shares."""
        return LogitAdjustedLoss(self.task.class_counts, self.config.tau)
