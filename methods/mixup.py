"""MixUp: training on convex combinations of pairs of images and of their labels.

    x' = l * x_i + (1 - l) * x_j,   loss = l * CE(z, y_i) + (1 - l) * CE(z, y_j),   l ~ Beta(alpha, alpha)

One l for each batch, pairs by a random permutation of it. The loss is that of soft labels l * e_i + (1 - l) * e_j,
which is how it is computed. Nothing is mixed in evaluation.

Defaults: alpha = 1, one l a batch (original code, facebookresearch/mixup-cifar10 eaff31ab); 0.2 is common on
ImageNet. alpha = 0 mixes nothing.
Source: Zhang et al., ICLR 2018; Ju et al., MICCAI 2022, Table 1, row MixUp.
Cost: one training.
Neutral: alpha=0
Status: verified against the original code
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch.nn import functional

from ltbench.methods import hp, register
from ltbench.methods.base import Method
from ltbench.methods.stages import Batch
from ltbench.uploads import upload


def mixed(batch: Batch, alpha: float, num_classes: int, rng: np.random.Generator) -> Batch:
    """Return a batch mixed with a permutation of itself: views of the same shape, targets float32 [B, K].

    Parameters
    ----------
    alpha : of the Beta distribution of the share; 0: nothing is mixed
    """
    share = rng.beta(alpha, alpha) if alpha > 0 else 1.0
    other = upload(rng.permutation(len(batch.targets)), batch.targets.device)
    targets = functional.one_hot(batch.targets, num_classes).float()
    views = tuple(share * view + (1 - share) * view[other] for view in batch.views)
    return replace(batch, views=views, targets=share * targets + (1 - share) * targets[other])


@register("mixup")
class MixUp(Method):
    """Overrides the batch transform; the loss takes soft targets as it is."""

    @dataclass(frozen=True)
    class Config:
        """Of the Beta distribution."""

        alpha: float = hp(1.0, low=0.0, sweep=(0.2, 0.4, 1.0), source="mixup-cifar10 code; ImageNet: 0.2")

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the mixed batch: views of the same shape, targets float32 [B, K]."""
        return mixed(batch, self.config.alpha, self.task.num_classes, rng)
