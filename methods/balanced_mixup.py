"""BALANCED MIXUP: an image of the shuffled stream, mixed with one of a class-balanced stream.

    x = (1 - l) x_inst + l x_bal,   loss = (1 - l) L(z, y_inst) + l L(z, y_bal),   l ~ Beta(alpha, 1)

One l a batch, of mean alpha / (1 + alpha). x_inst comes in random order without replacement, x_bal with replacement and
P(class) = 1 / K, in a second stream of the same length: the pairs are unrelated images, not a permutation of one batch.
Labels are on average (1 - l) pi + l / K. BatchNorm sees mixed images alone. Nothing is mixed in evaluation.

Defaults: alpha 0.2 (original code, agaldran/balanced_mixup c9e053b9, which tries 0.1, 0.2 and 0.3); `objective` L is
plain cross-entropy, there as here.
Differs: the original draws both streams by loaders of their own; here an epoch has the steps of any other method's.
Source: Galdran et al., MICCAI 2021 (Balanced-MixUp); not in the tables of Ju et al., MICCAI 2022.
Cost: one training; twice the images are read and augmented.
Neutral: alpha=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, MixedBatch, ObjectiveMethod
from ltbench.methods.base import Run
from ltbench.methods.stages import Batch, Pool, Progress, Stage, StageResult
from ltbench.samplers import reweighted_stream


@register("balanced_mixup")
class BalancedMixUp(ObjectiveMethod):
    """A second stream and the batch transform; hooks used: transform, stages."""

    @dataclass(frozen=True)
    class Config:
        """Of the Beta distribution, and the loss that is mixed."""

        alpha: float = hp(0.2, low=0.0, sweep=(0.1, 0.2, 0.3), source="balanced_mixup code")
        objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp(
            "ce", sweep=OBJECTIVES, source="balanced_mixup code: ce"
        )

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the batch, mixed with its partner."""
        balanced = rng.beta(self.config.alpha, 1.0) if self.config.alpha > 0 else 0.0
        if balanced == 0 or batch.partner is None:
            return batch
        pairs = zip(batch.views, batch.partner.views, strict=True)
        views = tuple((1 - balanced) * view + balanced * other for view, other in pairs)
        return batch.extended(MixedBatch, views=views, others=batch.partner.targets, share=1 - balanced)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two streams."""
        yield Stage("train", run.epochs, partner=self._balanced, stop=self.early_stopping(run))

    def _balanced(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return reweighted_stream(pool.labels, np.ones(len(pool.class_counts)), pool.length, rng)
