"""LDAM: larger margins for rarer classes, with class weights late in training (LDAM-DRW).

The head returns cosines of normalised features and normalised class vectors. In training the margin
m_c = max_margin * n_c ** -1/4 / max_k n_k ** -1/4, from the full training counts, is taken off the target's cosine:
loss = CE(scale * (cos - m_y at y), y). With `drw` the loss is unweighted for the first `drw_start` of the epochs
(up to epoch floor(0.8 E), zero-based) and from then on torch's weighted mean with effective-number weights, summing
to K. Predictions are scale * cosine without margin, so that their softmax is what the loss has learned.

Defaults are those of the original code (kaidic/LDAM-DRW 2536330f): scale 30, max_margin 0.5, beta 0.9999, DRW after
160 of 200 epochs. There the learning rate drops at the same epoch; here it is the protocol's, as for every method.
Early stopping does not count epochs before the switch, or a run could end before its weights ever act.

Without a normalised head neither margin nor scale means anything, yet released re-implementations (MONICA 9dc5c21f)
apply the loss to the raw logits of a linear layer: here another head is refused. The margin is scaled once. Counts
are by class id. Validation is by accuracy without margin, never by the training loss.

Source: Ju et al., MICCAI 2022, Table 1, row LDAM; Cao et al., NeurIPS 2019, sections 3.2 and 3.3.
Cost: one training.
Neutral: none, its head has no bias and no free length
Status: verified against the original code; counting early stopping from the switch is our reading
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses import LDAMLoss, effective_number_weights
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.stages import Batch, Progress, Stage, StageResult


class NormedLinear(nn.Module):
    """Cosines of features and class vectors: float [B, D] to [B, K] in [-1, 1], without bias.

    Parameters
    ----------
    in_features, out_features : D, K; `weight` is [D, K], its columns start uniform in [-1, 1] ** D, at length 1
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new class vectors."""
        self.weight.copy_(functional.normalize(self.weight.uniform_(-1, 1), dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines."""
        return functional.normalize(features, dim=1) @ functional.normalize(self.weight, dim=0)


def deferred_epoch(start: float, epochs: int) -> int:
    """Return the first epoch with class weights, which begin after a share `start` of the epochs.

    A product that rounding left just below a whole number counts as it.
    """
    return math.floor(start * epochs + 1e-9)


def require_cosines(method: Method) -> None:
    """Check that the head of a method gives cosines, as losses with margins and scales take them.

    Raises
    ------
    TypeError : it is no `NormedLinear`
    """
    if not isinstance(method.head, NormedLinear):
        raise TypeError(f"{type(method).__name__} needs a NormedLinear head, got {type(method.head).__name__}")


@register("ldam")
class LabelDistributionAwareMargin(Method):
    """Overrides head and loss; deferred weights come through the progress of the stage."""

    needs = "features"

    @dataclass(frozen=True)
    class Config:
        """Margins, scale, deferred re-weighting."""

        max_margin: float = hp(0.5, low=0.0, sweep=(0.3, 0.5, 0.7), source="LDAM-DRW code")
        scale: float = hp(30.0, low=1.0, sweep=(10.0, 20.0, 30.0), source="LDAM-DRW code")
        drw: bool = hp(True, sweep=(True, False), source="Cao 2019, section 3.3")
        drw_start: float = hp(0.8, low=0.0, high=1.0, sweep=(0.6, 0.8), source="LDAM-DRW code: 160 of 200 epochs")
        beta: float = hp(0.9999, low=0.0, high=0.9999999, sweep=(0.99, 0.999, 0.9999), source="LDAM-DRW code")

    def build(self) -> None:
        """Create the normalised head, and the weighted loss of the last epochs."""
        counts, config = self.task.class_counts, self.config
        self.head = NormedLinear(feature_width(self.backbone), self.task.num_classes)
        weights = effective_number_weights(counts, config.beta)
        self.deferred_loss = LDAMLoss(counts, config.max_margin, config.scale, weights)

    def criterion(self) -> LDAMLoss:
        """Return the loss of the first epochs, of cosines: it needs the normalised head.

        Raises
        ------
        TypeError : a subclass built another head
        """
        require_cosines(self)
        return LDAMLoss(self.task.class_counts, self.config.max_margin, self.config.scale)

    def classify(self, features: Tensor) -> Tensor:
        """Return scale * cosine, without margin: [B, D] to [B, K], at least float32."""
        return self.config.scale * super().classify(features)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the cross-entropy of the lowered cosines, weighted from the switch on."""
        cosines = super().classify(self.features(batch.images))
        deferred = self.config.drw and progress.epoch >= self._switch(progress.epochs)
        return {"loss": (self.deferred_loss if deferred else self.loss_function)(cosines, batch.targets)}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage; with deferred weights its early stopping counts from the switch on."""
        after = self._switch(run.epochs) if self.config.drw else 0
        yield Stage("train", run.epochs, stop=run.early_stopping(after=after))

    def _switch(self, epochs: int) -> int:
        return deferred_epoch(self.config.drw_start, epochs)
