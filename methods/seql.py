"""SEQL: softmax equalization, rare classes are mostly left out of the softmax of images of other classes.

    p_i = exp(z_y) / sum_c w_ic exp(z_c),   w_ic = 1 - beta_ic [pi_c < lambda] [c != y_i],   beta_ic ~ Bernoulli(gamma)

loss = mean of -log p_i; predictions are the plain logits z. A rare class is pushed down by every image that is not its
own; here only by about one in ten of them.

Defaults: gamma 0.9 (code of BagofTricks-LT ce7859a9 and MONICA 9dc5c21f). lambda is a share of the training set and has
to suit it: the 0.00043 that MONICA takes from a thousand classes lies below every class of ISIC-2019-LT (0.0013 and
more) and ISIC-Archive-LT, where its row is plain cross-entropy. Here `threshold` is in units of the mean share:
lambda = threshold / K, and 0.43 gives those 0.00043 at K = 1000 and 0.054 on ISIC-2019-LT, where four classes of eight
are below it at ratios 100 and 200, five at 500.
Differs: the unit of lambda. Numbers are drawn for each logit and step.
Source: Tan et al., CVPR 2020; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: gamma=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from dataclasses import dataclass

from ltbench.losses import SEQLLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("seql")
class SoftmaxEqualization(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Which classes are rare, and how often they are left out."""

        threshold: float = hp(
            0.43, low=0.0, sweep=(0.2, 0.43, 1.0), source="our reading: the code's share for ImageNet-LT, times 1000"
        )
        gamma: float = hp(0.9, low=0.0, high=1.0, sweep=(0.5, 0.9, 0.95), source="SEQL code")

    def criterion(self) -> SEQLLoss:
        """Return the softmax equalization loss."""
        share = self.config.threshold / self.task.num_classes
        return SEQLLoss(self.task.class_counts, share, self.config.gamma)
