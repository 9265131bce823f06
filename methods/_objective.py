"""The base objective of methods that are published on top of a loss: head and criterion, chosen by `objective`.

- `ce`: linear head, mean cross-entropy;
- `balanced_softmax`: linear head, mean of CE(z + log n), as in the method `balanced_softmax`;
- `ldam_drw`: normalised head, margins, class weights in the last fifth of training, as in `ldam` at its defaults.

On a plain batch each equals the method of its name to the bit. An image of a mixed batch has two labels, and it is the
*losses* that are mixed, since a margin is not linear in the target. With l_i(y) the loss of image i for label y, w the
class weights that act at the time (else 1), and v_i the share of its first label,

    L(y, v) = sum_i v_i w_{y_i} l_i(y_i) / sum_i w_{y_i},    loss = L(y, v) + L(y', 1 - v)

which is linear in v, and for one share v of the whole batch v L(y) + (1 - v) L(y').
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses import BalancedSoftmaxLoss, LDAMLoss, effective_number_weights
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.ldam import LabelDistributionAwareMargin, NormedLinear, deferred_epoch, require_cosines
from ltbench.methods.stages import Batch, Plateau, Progress, Stage, StageResult

OBJECTIVES = ("ce", "balanced_softmax", "ldam_drw")

_LDAM = LabelDistributionAwareMargin.Config()


@dataclass(frozen=True, kw_only=True)
class MixedBatch(Batch):
    """A batch of which every image has two labels.

    Attributes
    ----------
    others : int64 [B], the second label y'
    share : v of the first label, `targets`: float [B], or one number for all
    """

    others: Tensor
    share: Tensor | float


class ObjectiveMethod(Method):
    """Base of methods with a hyper-parameter `objective`: one stage, stopped early as the objective's own method is.

    Their `Config` has `objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp(..., sweep=OBJECTIVES)`.
    """

    @property
    def objective(self) -> str:
        """Which objective it is."""
        return self.config.objective

    def build(self) -> None:
        """Create the head, and the weighted loss of the last epochs."""
        counts = self.task.class_counts
        if self.objective != "ldam_drw":
            super().build()
            return
        self.head = NormedLinear(feature_width(self.backbone), self.task.num_classes)
        weights = effective_number_weights(counts, _LDAM.beta)
        self.deferred_loss = LDAMLoss(counts, _LDAM.max_margin, _LDAM.scale, weights)

    def criterion(self) -> nn.Module:
        """Return the loss of scores and class ids; of `ldam_drw`, that of its first epochs."""
        counts = self.task.class_counts
        if self.objective == "ldam_drw":
            require_cosines(self)
            return LDAMLoss(counts, _LDAM.max_margin, _LDAM.scale)
        return BalancedSoftmaxLoss(counts) if self.objective == "balanced_softmax" else super().criterion()

    def scores(self, features: Tensor) -> Tensor:
        """Return what losses are computed from: logits [B, K] of features [B, D], of `ldam_drw` cosines."""
        return super().classify(features)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits: [B, D] to [B, K], at least float32."""
        scores = self.scores(features)
        return _LDAM.scale * scores if self.objective == "ldam_drw" else scores

    def objective_loss(
        self, scores: Tensor, targets: Tensor, progress: Progress, share: Tensor | float | None = None
    ) -> Tensor:
        """Return L(targets, share), a scalar.

        Parameters
        ----------
        scores : of `scores`, float [B, K]
        targets : int64 [B]
        share : of each image's loss, float [B], or one number; None: all of it, as the objective's own method
        """
        deferred = self.objective == "ldam_drw" and progress.epoch >= _switch(progress.epochs)
        criterion: Any = self.deferred_loss if deferred else self.loss_function
        if share is None:
            return criterion(scores, targets)
        with torch.autocast(scores.device.type, enabled=False):
            each = functional.cross_entropy(self._adjusted(scores, targets), targets, reduction="none")
        if not deferred:
            return (share * each).mean()
        weights = criterion.weight.to(each.dtype).gather(0, targets)
        return (share * weights * each).sum() / weights.sum()

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the objective of a plain or a mixed batch."""
        scores = self.scores(self.features(batch.images))
        if not isinstance(batch, MixedBatch):
            return {"loss": self.objective_loss(scores, batch.targets, progress)}
        first = self.objective_loss(scores, batch.targets, progress, batch.share)
        return {"loss": first + self.objective_loss(scores, batch.others, progress, 1 - batch.share)}

    def early_stopping(self, run: Run) -> Plateau:
        """Return the protocol's stop rule; with deferred weights it counts from the switch on."""
        return run.early_stopping(after=_switch(run.epochs) if self.objective == "ldam_drw" else 0)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage."""
        yield Stage("train", run.epochs, stop=self.early_stopping(run))

    def _adjusted(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the logits of whose cross-entropy the criterion is the mean."""
        criterion: Any = self.loss_function
        if self.objective == "balanced_softmax":
            return scores + criterion.log_counts.to(scores.dtype)
        if self.objective == "ldam_drw":
            own = functional.one_hot(targets, scores.shape[1]).to(scores.dtype)
            return criterion.scale * (scores - own * criterion.margins.to(scores.dtype))
        return scores


def _switch(epochs: int) -> int:
    return deferred_epoch(_LDAM.drw_start, epochs)
