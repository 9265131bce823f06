"""RANGE: range loss beside cross-entropy, the widest pairs of each class closer together, near class means apart.

    loss = CE + weight R,   R = alpha sum_c k / sum_{top} 1 / d + beta relu(margin - D)

on penultimate features f: d are the k largest distances of two images of class c in the batch (`RangeLoss` says
exactly which), D the smallest distance of two class means. Predictions are those of the linear head alone.

Defaults: k 2, margin 0.1, alpha and beta 0.5 (code of MONICA 9dc5c21f); weight 0.001 is our reading.
Differs: MONICA computes R from logits and leaves cross-entropy out, so that nothing says which class is which; here
the features have it, beside cross-entropy.
Pitfalls: with k = 2 a class of which the batch has one or two images gives next to nothing, so that the loss acts on
frequent classes, and on rare ones by their means alone. Distances are not scaled: R grows with the length of features.
With a frozen backbone (`--tune head`) R trains nothing, and the row is plain cross-entropy.
Source: Zhang et al., ICCV 2017; not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: weight=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ltbench.losses import RangeLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method
from ltbench.methods.stages import Batch, Progress


@register("range")
class RangeOfFeatures(Method):
    """Overrides the loss only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Weight and parts of the range loss."""

        weight: float = hp(0.001, low=0.0, sweep=(0.0001, 0.001, 0.01), source="our reading")
        k: int = hp(2, low=1, sweep=(1, 2, 4), source="MONICA code")
        margin: float = hp(0.1, low=0.0, sweep=(0.1, 1.0, 10.0), source="MONICA code")
        alpha: float = hp(0.5, low=0.0, source="MONICA code")
        beta: float = hp(0.5, low=0.0, source="MONICA code")

    def build(self) -> None:
        """Add the range loss to the linear head."""
        super().build()
        config = self.config
        self.range_loss = RangeLoss(config.k, config.margin, config.alpha, config.beta)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return cross-entropy and range loss."""
        features = self.features(batch.images)
        classification = self.loss_function(self.classify(features), batch.targets)
        spread = self.range_loss(features, batch.targets)
        return {
            "loss": classification + self.config.weight * spread,
            "classification": classification,
            "range": spread,
        }
