"""RS: re-sampling, every class equally often in training, cross-entropy loss.

Variants (`scheme`):

- `balanced` (default): N draws an epoch with replacement, P(class) proportional to n_c ** q with q = 0, then an
  image of the class evenly. `power` sets q: 1 draws images evenly, 1/2 is square-root sampling.
- `class_aware`: classes in shuffled rounds, `images_per_class` images a turn from a shuffled list of the class
  (Shen et al., ECCV 2016; the sampler of OLTR and Decoupling).
- `progressive`: P(class) moves linearly from the class's share to 1 / K over training (Kang et al., ICLR 2020).
- `effective`: P(image) proportional to (1 - beta) / (1 - beta ** n_c) (Cao et al., NeurIPS 2019, resampling rule).

An epoch has as many steps as any other method's: no sampler buys itself longer epochs.
Source: Ju et al., MICCAI 2022, Table 1, row RS; Kang et al., ICLR 2020; Shen et al., ECCV 2016.
Cost: one training.
Neutral: none, every scheme draws in another order than shuffling
Status: verified against the original code; which variant is the row RS is our reading
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ltbench.losses import effective_number_weights
from ltbench.methods import hp, register
from ltbench.methods.base import Method
from ltbench.methods.stages import Pool, Progress
from ltbench.samplers import class_aware_stream, reweighted_stream


@register("rs")
class ReSampling(Method):
    """Overrides the sampler only."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Which of the field's re-sampling schemes."""

        scheme: Literal["balanced", "class_aware", "progressive", "effective"] = hp(
            "balanced", sweep=("balanced", "class_aware", "progressive", "effective"), source="Ju 2022, Table 1"
        )
        power: float = hp(0.0, low=0.0, high=1.0, sweep=(0.0, 0.5), source="Kang 2020, section 4")
        images_per_class: int = hp(4, low=1, sweep=(1, 4, 15), source="OLTR and Decoupling code: 4")
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.99, 0.999, 0.9999), source="LDAM-DRW code")

    def sampler(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        """Return a stream in which rare classes come as often as the scheme says."""
        if self.config.scheme == "class_aware":
            return class_aware_stream(pool.labels, self.config.images_per_class, pool.length, rng)
        return reweighted_stream(pool.labels, self._class_probabilities(pool.class_counts, progress), pool.length, rng)

    def _class_probabilities(self, class_counts: np.ndarray, progress: Progress) -> np.ndarray:
        counts = class_counts.astype(np.float64)
        present = counts > 0
        if self.config.scheme == "progressive":
            balanced = present / present.sum()
            return (1 - progress.fraction) * counts / counts.sum() + progress.fraction * balanced
        probabilities = np.zeros_like(counts)
        if self.config.scheme == "effective":
            weights = effective_number_weights(counts[present], self.config.beta).numpy()
            probabilities[present] = counts[present] * weights
        else:
            probabilities[present] = counts[present] ** self.config.power
        return probabilities
