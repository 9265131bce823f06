"""FOCAL: focal loss, images that are classified well count less.

loss = mean over the batch of (1 - p_i) ** gamma CE_i, p_i the softmax probability of the image's class. `gamma` = 2
is the default of the paper of focal loss (Lin et al., ICCV 2017) and of the later benchmark by the authors of
Flexible Sampling; LDAM-DRW (commit 2536330f) trains with 1. `detach` treats the modulator as a constant, as LADE
(5db5d134) and GCL (c2a62338) do: same value, another gradient.

The paper of focal loss is about detection, with a sigmoid for each class; in classification the softmax form is
the common one. No class weights: the loss knows hard images, not rare classes. Avoided here: gradients that are NaN
where p rounds to 1 and gamma < 1; a class weight inside the exponent that makes p another probability (LDAM-DRW);
log p in the place of p (the script that the paper's authors released, FlexSampling be534099).

Source: Ju et al., MICCAI 2022, Table 1, row Focal Loss; Lin et al., ICCV 2017, eq. 4.
Cost: one training.
Neutral: gamma=0
Status: our reading; softmax form with gamma 2, the table's row does not say which form it is
"""

from __future__ import annotations

from dataclasses import dataclass

from ltbench.losses import FocalLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("focal")
class Focal(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Strength and gradient of the modulator."""

        gamma: float = hp(2.0, low=0.0, sweep=(0.5, 1.0, 2.0, 5.0), source="Lin 2017: 2; LDAM-DRW code: 1")
        detach: bool = hp(False, sweep=(False, True), source="LADE and GCL code: true")

    def criterion(self) -> FocalLoss:
        """Return the mean focal loss."""
        return FocalLoss(self.config.gamma, detach=self.config.detach)
