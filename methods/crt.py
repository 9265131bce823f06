"""cRT: classifier re-training, a new head on the frozen features of plain training, on balanced batches.

1. Plain training (`methods/_erm.py`), best epoch.
2. The backbone is frozen, BatchNorm statistics included; a new linear head is trained with cross-entropy on class-aware
   batches (`images_per_class` images of a class in turn) for `second_share` of the epochs, which alone may be reported.

Defaults: 4 images a turn (facebookresearch/classifier-balancing f162adef; there 10 epochs after 90 with SGD 0.2).
Differs: the original lets the BatchNorm statistics of the frozen backbone drift to the balanced stream; here they stay.
Source: Kang et al., ICLR 2020 (Decoupling), section 4.2.
Cost: one training and a fifth of one, head only; the first stage is shared and charged in full.
Neutral: none, its second stage trains a new head
Status: verified against the original code; optimizer and budget of the second stage are our reading
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from ltbench.methods import hp, register
from ltbench.methods._erm import erm_stage
from ltbench.methods.base import Method, Run, share_of_epochs
from ltbench.methods.stages import Pool, Progress, Stage, StageResult
from ltbench.samplers import class_aware_stream


@register("crt")
class ClassifierRetraining(Method):
    """Two stages; hooks used: stages."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Of the second stage."""

        second_share: float = hp(0.2, low=0.0, high=1.0, sweep=(0.1, 0.2, 0.5), source="our reading; code: 10 after 90")
        images_per_class: int = hp(4, low=1, sweep=(1, 4), source="Decoupling code")

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield plain training, then the head alone."""
        yield erm_stage(self, run)
        self.head.reset_parameters()
        yield Stage(
            "classifier",
            share_of_epochs(run, self.config.second_share),
            sampler=self._class_aware,
            frozen=(self.backbone,),
        )

    def _class_aware(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return class_aware_stream(pool.labels, self.config.images_per_class, pool.length, rng)
