"""LADE: balanced softmax with a regulariser of each class's logits, a bound of a divergence between its images and all.

    loss = CE(z + log pi, y) + alpha R,   R = -sum_c pi_c (m_c - l_c - lam l_c^2)
    m_c = mean of z_ic over the batch's images of class c,   l_c = log mean_i exp(z_ic - log pi_c - log K)

R is, class by class, a bound of the divergence of p(x | c) from p(x). Predictions are the plain logits z, those of even
test classes.

Defaults: alpha 0.1, lam 0.1 (original code, hyperconnect/LADE 5db5d134: alpha 0.1 CIFAR, 0.05 ImageNet-LT, 0.005
Places-LT; lam 0.1, 0.01 for CIFAR-LT at 100, 0.5 ImageNet-LT).
Differs: nothing known. l_c is a logarithm of a mean over the batch, coarse where batches are small.
Pitfalls: the paper aims at ratios under evenly frequent classes, which would weight each image by its class. The code,
and this file, shift the logits of class c by log pi_c for all images alike: R by itself is least at the posterior of
the training set, z_c = log K + log p(c | x), and so pulls against log pi in the first term; alpha is small.
Source: Hong et al., CVPR 2021; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: none, at alpha = 0 it is balanced_softmax
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from dataclasses import dataclass

from ltbench.losses import LADELoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("lade")
class LabelDistributionDisentangling(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Of the regulariser."""

        alpha: float = hp(0.1, low=0.0, sweep=(0.005, 0.05, 0.1), source="LADE code: 0.1, 0.05, 0.005 by dataset")
        lam: float = hp(0.1, low=0.0, sweep=(0.01, 0.1, 0.5), source="LADE code: 0.1, 0.01, 0.5 by dataset")

    def criterion(self) -> LADELoss:
        """Return cross-entropy with prior, and the regulariser."""
        return LADELoss(self.task.class_counts, self.config.alpha, self.config.lam)
