"""BBN: two branches of one network, one for shuffled images, one for tail-heavy ones, mixed in the course of training.

    z = 2 W [a f_c ; (1 - a) f_r],   loss = a CE(z, y_c) + (1 - a) CE(z, y_r),   a = 1 - (share of epochs done) ** 2

f_c comes from the conventional branch for a shuffled image, f_r from the re-balancing branch for one of a second
stream, drawn with class probabilities proportional to 1 / n_c, so more tail-heavy than balanced ones. Training moves
from representation to tail. At test both branches see the image and a = 1/2: z = W [f_c ; f_r].

Early stopping counts from the epoch on in which the second stream weighs at least half (0.71 of training), or a run
could end before its branch and its half of W, which are random at first, have learned.

The trunk is shared; each branch has a last residual block of its own (of a ResNet; of other networks the last stage).

Defaults: parabolic a, reverse sampler (original code, megvii-research/BBN 7992e908).
Differs: the original replaces the length of the schedule at two lengths of training; here it is the stage's. A
re-implementation (MONICA 9dc5c21f) has one encoder, a balanced sampler, and an a that stays above 0.77. What early
stopping counts is our reading.
Source: Zhou et al., CVPR 2020, section 4; not in the tables of Ju et al., MICCAI 2022.
Cost: one training with two images a step: twice the images and passes, one more block of parameters.
Networks: 2 branches, sharing all but the last block
Neutral: none, it has two branches and two streams
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.methods import hp, register
from ltbench.methods._branches import after, before, block_cut
from ltbench.methods.base import Method, Run, feature_width, full_precision
from ltbench.methods.stages import Batch, Pool, Progress, Stage, StageResult
from ltbench.samplers import reweighted_stream


@register("bbn")
class BilateralBranch(Method):
    """One stage with a second stream; hooks used: build, features, loss, stages."""

    needs = "stages"

    @dataclass(frozen=True)
    class Config:
        """Of the second stream."""

        reverse_power: float = hp(1.0, low=0.0, high=4.0, sweep=(0.0, 0.5, 1.0), source="BBN code: 1; 0 is balanced")

    def build(self) -> None:
        """Add the re-balancing branch, and a linear head on both branches."""
        self._cut = block_cut(self)
        self.branch = after(self.task.new_backbone(), self._cut)
        self.head = nn.Linear(2 * feature_width(self.backbone), self.task.num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the features of both branches side by side: [B, 3, H, W] to [B, 2 D], at least float32."""
        maps = before(self.backbone, self._cut)(images)
        return torch.cat([self._conventional(maps), full_precision(self.branch(maps))], dim=1)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the mixed loss of a shuffled batch and its partner."""
        assert batch.partner is not None
        share, trunk = 1 - progress.fraction**2, before(self.backbone, self._cut)
        conventional = self._conventional(trunk(batch.images))
        balancing = full_precision(self.branch(trunk(batch.partner.images)))
        logits = self.classify(2 * torch.cat([share * conventional, (1 - share) * balancing], dim=1))
        losses = [self.loss_function(logits, each.targets) for each in (batch, batch.partner)]
        return {"loss": share * losses[0] + (1 - share) * losses[1]}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two streams."""
        if run.shared_encoder:
            self.branch.load_state_dict(after(self.backbone, self._cut).state_dict())
        even = math.ceil(math.sqrt(0.5) * run.epochs)  # the first epoch of a <= 1/2
        yield Stage("train", run.epochs, stop=run.early_stopping(after=even), partner=self._reverse)

    def _conventional(self, maps: Tensor) -> Tensor:
        return full_precision(after(self.backbone, self._cut)(maps))

    def _reverse(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        shares = np.maximum(pool.class_counts, 1) ** -self.config.reverse_power
        return reweighted_stream(pool.labels, shares, pool.length, rng)
