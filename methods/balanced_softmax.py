"""BALANCED SOFTMAX: class counts inside the softmax of the training loss, and nowhere else.

loss = mean over the batch of CE(z + log n, y), n the full training counts; predictions are the plain logits z, which
then stand for evenly frequent classes. It has no hyper-parameters, and it is `logit_adjust` at tau = 1: counts and
shares differ by a constant, which the softmax does not see. Cross-entropy with prior (PriorCE) is this loss, too,
but for 1e-9 that its code adds to the shares.

As in the original code (jiawei-ren/BalancedMetaSoftmax 34a61e43); its meta-sampler, a second proposal of the paper,
is not part of it. Not to be combined with a balanced sampler, which would correct twice; counts are by class id.

Source: Ren et al., NeurIPS 2020 (Balanced Meta-Softmax); not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: none, it has no hyper-parameters
Status: verified against the original code
"""

from __future__ import annotations

from ltbench.losses import BalancedSoftmaxLoss
from ltbench.methods import register
from ltbench.methods.base import Method


@register("balanced_softmax")
class BalancedSoftmax(Method):
    """Overrides the loss only."""

    needs = "features"

    def criterion(self) -> BalancedSoftmaxLoss:
        """Return the mean cross-entropy of logits plus log counts."""
        return BalancedSoftmaxLoss(self.task.class_counts)
