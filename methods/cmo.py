"""CMO: rare images pasted into the backgrounds of frequent ones (context-rich minority oversampling).

The background (x, y) comes from the shuffled stream, the foreground (x', y') from a second one, in which an image has
weight n_y ** -power, so that a class has a share proportional to n_c ** (1 - power). With `probability` a batch:

    l ~ Beta(alpha, alpha);  a box of sides floor(H sqrt(1 - l)), floor(W sqrt(1 - l)), its centre anywhere, clipped;
    the foreground's box replaces the background's;  l' = 1 - area / (H W) of the clipped box;
    loss = l' L(z, y) + (1 - l') L(z, y')

One box a batch. With m = min(3, floor(0.05 E)) of E epochs, only in the zero-based epochs e of m < e < E - m.

`objective` L: balanced softmax by default, the loss of the paper's best rows. Class weights (ldam_drw) act inside L.
Defaults: probability 0.5, alpha 1, power 1 (classes evenly), epochs 3 < e < 197 of 200 (original code, naver-ai/cmo
10d2d098); that m shrinks with the budget is our reading. probability = 0 is the objective alone.
Source: Park et al., CVPR 2022 (CMO), section 3; not in the tables of Ju et al., MICCAI 2022.
Cost: one training; twice the images are read and augmented.
Neutral: probability=0 objective=ce
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, MixedBatch, ObjectiveMethod
from ltbench.methods.base import Run
from ltbench.methods.stages import Batch, Pool, Progress, Stage, StageResult
from ltbench.samplers import reweighted_stream

_FIRST_AND_LAST = 3  # epochs without boxes, of a budget of 200


def pasted_box(height: int, width: int, share: float, row: int, column: int) -> tuple[slice, slice]:
    """Return the rows and columns that the foreground takes.

    Parameters
    ----------
    height, width : of the image, pixels
    share : l, area of the background before clipping, in [0, 1]
    row, column : of the centre, in [0, height) and [0, width)
    """
    cut = math.sqrt(1 - share)

    def interval(centre: int, size: int) -> slice:
        half = int(size * cut) // 2
        return slice(max(centre - half, 0), min(centre + half, size))

    return interval(row, height), interval(column, width)


@dataclass(frozen=True, kw_only=True)
class PastedBatch(MixedBatch):
    """A batch with boxes in its images.

    Attributes
    ----------
    background : the batch without them
    """

    background: Batch


@register("cmo")
class ContextRichOversampling(ObjectiveMethod):
    """Hooks used: transform (which draws boxes), loss (which leaves them out in some epochs), stages."""

    @dataclass(frozen=True)
    class Config:
        """Which images are pasted how often, and the loss that is mixed."""

        probability: float = hp(0.5, low=0.0, high=1.0, sweep=(0.25, 0.5, 0.75), source="cmo code")
        alpha: float = hp(1.0, low=1e-3, sweep=(0.5, 1.0), source="cmo code")
        power: float = hp(1.0, low=0.0, high=3.0, sweep=(0.5, 1.0, 1.5), source="Park 2022: 1")
        objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp(
            "balanced_softmax", sweep=OBJECTIVES, source="Park 2022, best rows"
        )

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the batch with boxes of its partner, or as it is."""
        if rng.random() >= self.config.probability or batch.partner is None:
            return batch
        height, width = batch.images.shape[2:]
        share = rng.beta(self.config.alpha, self.config.alpha)
        box = pasted_box(height, width, share, int(rng.integers(height)), int(rng.integers(width)))
        views = tuple(_pasted(*pair, box) for pair in zip(batch.views, batch.partner.views, strict=True))
        area = math.prod(each.stop - each.start for each in box)
        kept = 1 - area / (height * width)
        return batch.extended(PastedBatch, views=views, others=batch.partner.targets, share=kept, background=batch)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the objective, of the images without boxes in the first and last epochs."""
        unused = min(_FIRST_AND_LAST, math.floor(0.05 * progress.epochs + 1e-9))
        pastes = unused < progress.epoch < progress.epochs - unused
        return super().loss(batch if pastes or not isinstance(batch, PastedBatch) else batch.background, progress)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two streams."""
        yield Stage("train", run.epochs, partner=self._foregrounds, stop=self.early_stopping(run))

    def _foregrounds(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        shares = np.maximum(pool.class_counts, 1.0) ** (1 - self.config.power)
        return reweighted_stream(pool.labels, shares, pool.length, rng)


def _pasted(background: Tensor, foreground: Tensor, box: tuple[slice, slice]) -> Tensor:
    """Return a copy of images [B, 3, H, W] with the same box of others in it."""
    images = background.clone()
    images[:, :, box[0], box[1]] = foreground[:, :, box[0], box[1]]
    return images
