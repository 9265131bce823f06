"""RW: re-weighting, cross-entropy with a weight per class.

loss = sum_i w_{y_i} CE_i / sum_i w_{y_i} over the batch (torch's weighted mean), weights summing to K, from the
full training counts (`scheme`):

- `inverse` (default): w_c proportional to 1 / n_c;
- `sqrt`: w_c proportional to n_c ** -1/2;
- `effective`: w_c proportional to (1 - beta) / (1 - beta ** n_c), what the script that the paper's authors
  released under the name of re-weighting computes (there in order of frequency; here by class id);
- `power`: w_c proportional to pi_c ** -1.2, pi_c the share of the class (generalised re-weighting, the loss of
  DisAlign's second stage; the exponent is its own on ImageNet-LT);
- `log`: w_c = 1 - log(n_c / n_max), not normalised, to which the weighted mean is indifferent (WeightedSoftmax of LADE
  and MONICA).

Source: Ju et al., MICCAI 2022, Table 1, row RW; Cui et al., CVPR 2019; Zhang et al., CVPR 2021 (DisAlign).
Cost: one training.
Neutral: scheme=effective beta=0
Status: verified against the original code, `power` and `log` from a description; which is row RW is our reading
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from ltbench.losses import (
    effective_number_weights,
    inverse_frequency_weights,
    logarithmic_weights,
    power_weights,
    square_root_weights,
)
from ltbench.methods import hp, register
from ltbench.methods.base import Method
from ltbench.methods.stages import Batch, Progress

_WEIGHTS: Mapping[str, Callable[[Any], Tensor]] = {
    "inverse": inverse_frequency_weights,
    "sqrt": square_root_weights,
    "power": power_weights,
    "log": logarithmic_weights,
}


@register("rw")
class ReWeighting(Method):
    """Overrides the loss only."""

    needs = "features"

    class_weights: Tensor

    @dataclass(frozen=True)
    class Config:
        """Which class weights."""

        scheme: Literal["inverse", "sqrt", "effective", "power", "log"] = hp(
            "inverse", sweep=("inverse", "sqrt", "effective", "power", "log"), source="Ju 2022, Table 1"
        )
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.99, 0.999, 0.9999), source="Cui 2019")

    def build(self) -> None:
        """Add the class weights, float64 [K], to the linear head."""
        super().build()
        counts, scheme = self.task.class_counts, self.config.scheme
        if scheme == "effective":
            weights = effective_number_weights(counts, self.config.beta)
        else:
            weights = _WEIGHTS[scheme](counts)
        self.register_buffer("class_weights", weights)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the weighted mean of the cross-entropies."""
        logits = self.classify(self.features(batch.images))
        return {"loss": functional.cross_entropy(logits, batch.targets, weight=self.class_weights.to(logits.dtype))}
