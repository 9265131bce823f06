"""CB: class-balanced loss, weights from the effective number of images of a class.

w_c proportional to (1 - beta) / (1 - beta ** n_c), summing to K, from the full training counts (`base`):

- `softmax` (default): 1 / B sum_i w_{y_i} CE_i, divided by the batch size as in the original TensorFlow code
  (richardaecn/class-balanced-loss 1d785720); `rw` with `effective` divides by the batch's sum of weights instead;
- `sigmoid`: 1 / B sum_ik w_{y_i} BCE_ik;
- `focal`: the same with the modulator (1 - p_t) ** gamma.

The last two start with a head bias of -log(K - 1), free of weight decay, so that the many negatives do not swamp
the first steps. `beta` = 0.9999 is the default of both code bases by the authors of Flexible Sampling; the
paper, recalled, searches 0.9 to 0.9999, and gamma 0.5 to 2. `beta` = 0 weighs all classes equally, `beta` towards 1
gives inverse frequency.

What goes by the name of CB in those code bases (and in vandit15 921ccb87, their origin) is another loss: binary
cross-entropy of softmax probabilities, averaged over B K entries, with a gradient of exactly zero where the target's
probability underflows. It is not offered. The focal modulator is computed from logsigmoid: as released it
overflows in single precision. 1 - beta ** n is computed with expm1.

Source: Ju et al., MICCAI 2022, Table 1, row CB Loss; Cui et al., CVPR 2019, section 4.
Cost: one training.
Neutral: beta=0
Status: verified against the original code; that the table's row is its softmax form is our reading
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ltbench.losses import ClassBalancedLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method


@register("cb")
class ClassBalanced(Method):
    """Overrides the loss; for the two forms of sigmoids also the bias of the head."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Which form of the loss, and how strongly it balances."""

        base: Literal["softmax", "sigmoid", "focal"] = hp(
            "softmax", sweep=("softmax", "sigmoid", "focal"), source="Cui 2019, section 4"
        )
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.9, 0.99, 0.999, 0.9999), source="Cui 2019, recalled")
        gamma: float = hp(2.0, low=0.0, sweep=(0.5, 1.0, 2.0), source="Cui 2019, recalled; base=focal only")

    def build(self) -> None:
        """Give the linear head the bias that sigmoids start with."""
        super().build()
        if self.config.base != "softmax":
            nn.init.constant_(self.head.bias, -math.log(self.task.num_classes - 1))

    def criterion(self) -> ClassBalancedLoss:
        """Return the class-balanced loss."""
        config = self.config
        return ClassBalancedLoss(self.task.class_counts, config.beta, config.base, config.gamma)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group; with sigmoids a second one, of the head's bias, without weight decay."""
        if self.config.base == "softmax":
            return super().param_groups(lr)
        decayed = [parameter for parameter in self.parameters() if parameter is not self.head.bias]
        return [{"params": decayed, "lr": lr}, {"params": [self.head.bias], "lr": lr, "weight_decay": 0.0}]
