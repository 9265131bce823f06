"""PROCO: probabilistic contrastive learning, views contrasted with a von Mises-Fisher distribution of each class.

Three views of each image: x1 is classified, x2 and x3 are contrasted. u are unit vectors that a projector makes of
their features; of each class the running mean m_c of its u and their number n_c are kept,

    m_c <- (n_c m_c + sum_{i in c} u_i) / (n_c + b_c),   n_c <- n_c + b_c

from which R_c = |m_c|, mu_c = m_c / R_c, kappa_c = d R_c / (1 - R_c^2) (at most 1e5). With nu = d / 2 - 1 and
A(x) = log I_nu(x) - nu log x, logits l_ic = A(|kappa_c mu_c + u_i / tau|) - A(kappa_c) are the contrast with infinitely
many vectors of each class (ProbabilisticContrastiveLoss in `losses/representation/von_mises_fisher.py`).

    loss = CE(z(x1) + log pi, y) + alpha [CE(l(x2) + log pi, y) + CE(l(x3) + log pi, y)] / 2

A batch enters the means before its own logits. There are two copies: one that the loss reads, and one that begins
anew each epoch, from 0.9 times a random direction and count 0, and takes the other's place at the epoch's end. Both see
every batch. A class that an epoch does not show keeps its random direction. Predictions are z.

Defaults: alpha 1; tau 0.1, d 128 and a linear head (original code, LeapLabTHU/ProCo af9e78ef, for CIFAR; 0.07, 1024 and
cosines times 30, `head=cosine`, for ImageNet-LT).
Differs: the original's recurrence for Bessel functions starts at too low an order and is wrong for large kappa, which
one-image and tight classes have: log I is off by 0.98 at nu 15, x 1000. Here it is the uniform expansion in float64,
with its derivative. kappa is as in that code; the paper, recalled, has d R - R^3 above the line. All views have the
protocol's augmentation.
Pitfalls: with a frozen backbone (`--tune head`) the contrast trains nothing that predicts: the row is `logit_adjust`.
Source: Du et al., TPAMI 2024 (ProCo), section 3; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of three views an image: about three times that of ce; a projector, which predictions do not use.
Neutral: none, it sees three views; alpha = 0 is `logit_adjust`, but that all views are in the batch of BatchNorm
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses import LogitAdjustedLoss, ProbabilisticContrastiveLoss
from ltbench.methods import hp, register
from ltbench.methods._projection import Projector
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.ldam import NormedLinear
from ltbench.methods.stages import Batch, EpochReport, Progress, Stage, StageResult

_SCALE = 30.0  # of the cosine head
_RESET_LENGTH = 0.9


class RunningMeans(nn.Module):
    """Mean and number of the vectors of each class that were seen.

    Parameters
    ----------
    num_classes, dimension : K, d; means start at 0.9 times random directions, of no vector
    """

    means: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("means", _RESET_LENGTH * functional.normalize(torch.randn(num_classes, dimension), dim=1))
        self.register_buffer("counts", torch.zeros(num_classes))

    @torch.no_grad()
    def add(self, vectors: Tensor, targets: Tensor) -> None:
        """Let vectors [n, d] of classes [n] into the means, in their precision also under autocast."""
        members = functional.one_hot(targets, len(self.counts)).to(self.means.dtype)
        seen = self.counts + members.sum(dim=0)
        with torch.autocast(vectors.device.type, enabled=False):
            sums = self.counts.unsqueeze(1) * self.means + members.T @ vectors.to(self.means.dtype)
        self.means.copy_(torch.where(seen.unsqueeze(1) > 0, sums / seen.clamp(min=1).unsqueeze(1), self.means))
        self.counts.copy_(seen)

    @torch.no_grad()
    def begin(self, directions: np.ndarray) -> None:
        """Forget all vectors: means become 0.9 times the directions of [K, d] normal draws."""
        drawn = torch.from_numpy(directions).to(self.means)
        self.means.copy_(_RESET_LENGTH * functional.normalize(drawn, dim=1))
        self.counts.zero_()


@register("proco")
class ProbabilisticContrast(Method):
    """One stage of three views; hooks used: build, criterion, classify, loss, on_epoch_end, stages."""

    _draw: Callable[[str], np.random.Generator]

    @dataclass(frozen=True)
    class Config:
        """Weight of the contrast, its vectors, and the head."""

        alpha: float = hp(1.0, low=0.0, sweep=(0.5, 1.0), source="ProCo code")
        temperature: float = hp(0.1, low=1e-3, sweep=(0.05, 0.07, 0.1), source="ProCo code, CIFAR; ImageNet 0.07")
        dimension: int = hp(128, low=32, sweep=(64, 128, 1024), source="ProCo code, CIFAR; ImageNet 1024")
        head: Literal["linear", "cosine"] = hp("linear", sweep=("linear", "cosine"), source="ProCo code, CIFAR")

    def build(self) -> None:
        """Create head, projector and both copies of the means."""
        super().build()
        width, classes, config = feature_width(self.backbone), self.task.num_classes, self.config
        if config.head == "cosine":
            self.head = NormedLinear(width, classes)
        self.projector = Projector(width, config.dimension)
        self.used, self.next = (RunningMeans(classes, config.dimension) for _ in range(2))
        self.contrast = ProbabilisticContrastiveLoss(self.task.class_counts, config.temperature)

    def criterion(self) -> LogitAdjustedLoss:
        """Return the mean cross-entropy of logits plus log shares."""
        return LogitAdjustedLoss(self.task.class_counts)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits: [B, D] to [B, K], at least float32."""
        logits = super().classify(features)
        return _SCALE * logits if self.config.head == "cosine" else logits

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the sum of both losses, and these."""
        features = self.features(torch.cat(batch.views))
        classification = self.loss_function(self.classify(features[: len(batch.targets)]), batch.targets)
        vectors, targets = self.projector(features[len(batch.targets) :]), batch.targets.repeat(2)
        for each in (self.used, self.next):
            each.add(vectors.detach(), targets)
        contrast = self.contrast(vectors, targets, self.used.means)  # the mean over both views
        total = classification + self.config.alpha * contrast
        return {"loss": total, "classification": classification, "contrast": contrast}

    def on_epoch_end(self, report: EpochReport) -> None:
        """Go on with the means of this epoch alone."""
        self.used.load_state_dict(self.next.state_dict())
        self._begin_next(f"means {report.epoch}")

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of three views."""
        self._draw = run.rng
        yield Stage("train", run.epochs, views=3, stop=run.early_stopping())

    def _begin_next(self, stream: str) -> None:
        self.next.begin(self._draw(stream).standard_normal(tuple(self.next.means.shape)))
