"""GPACO: parametric contrastive learning, class logits and a queue of vectors in one denominator; PaCo by option.

Two views of each image. With q the unit vectors that a projector makes of the features, Z = z + log pi, z of a linear
head, P_i the vectors of anchor i's class among the other anchors and a queue, S_ij = q_i . v_j / tau, and

    den_i = sum_c e^{Z_ic} + gamma sum_{j != i} e^{S_ij}
    loss = mean_i -[beta (Z_{i,y_i} - log den_i) + alpha sum_{p in P_i} (S_ip - log den_i)] / (beta + alpha |P_i|)

(`losses/representation/contrastive.py`, ParametricContrastiveLoss). The class logits act as K learnable centres, which
rebalance.

- `momentum=0` (default), GPaCo: one encoder, both views are anchors and carry gradients; projector of three linear
  layers without BatchNorm.
- `momentum` above 0 (0.999), PaCo: anchors are the vectors of the first view; those of the second come from a moving
  average of encoder and projector, without gradient, and are contrasted, too; projector of two layers with BatchNorm.

After each step the second view's vectors enter the queue, a ring of `queue` places that starts empty: empty places
count for nothing. Predictions are z.

alpha |P_i| is the weight of the contrastive part. The queue adds about alpha queue pi_c to it, for the most frequent
class of ISIC-2019-LT at ratio 100 (pi 0.48) 0.05 * 256 * 0.48 = 6 at the defaults; the original's 8192 would make it
about 200 and leave nothing of the class logits there, where for the 1000 classes of ImageNet-LT it is 4.5.

Defaults: alpha 0.05, beta and gamma 1, tau 0.2 (original code, dvlab-research/Parametric-Contrastive-Learning fe56535e,
for ImageNet-LT; 0.05 to 0.07 for CIFAR), d 128, queue 256 (our reading, above; there 8192 and 1024).
Differs: all views have the protocol's augmentation and budget (there 400 epochs); the original fills the queue with
random vectors and random labels. It averages the head, too, and reads nothing of that copy; here there is none.
Source: Cui et al., ICCV 2021 (PaCo, eq. 4), and TPAMI 2023 (GPaCo); not in the tables of Ju et al., MICCAI 2022.
Cost: one training of two views an image, about twice that of ce; PaCo also keeps a second encoder.
Neutral: none, it sees two views; alpha = 0 and gamma = 0 is `balanced_softmax` on both
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltbench.losses import ParametricContrastiveLoss
from ltbench.methods import hp, register
from ltbench.methods._averages import follow
from ltbench.methods._projection import Projector
from ltbench.methods.base import Method, Run, feature_width, full_precision
from ltbench.methods.stages import Batch, Progress, Stage, StageResult


@register("gpaco")
class ParametricContrast(Method):
    """One stage of two views, a queue as buffers; hooks used: build, loss, stages."""

    queue: Tensor
    queue_targets: Tensor
    pointer: Tensor

    @dataclass(frozen=True)
    class Config:
        """Weights of the parts, vectors, queue, and which of the two papers."""

        alpha: float = hp(0.05, low=0.0, sweep=(0.01, 0.02, 0.05), source="PaCo code: 0.05; GPaCo 0.045; CIFAR 0.01")
        beta: float = hp(1.0, low=1e-6, sweep=(1.0,), source="PaCo code")
        gamma: float = hp(1.0, low=0.0, sweep=(1.0,), source="PaCo code")
        temperature: float = hp(0.2, low=1e-3, sweep=(0.05, 0.07, 0.2), source="PaCo code; CIFAR 0.05 to 0.07")
        dimension: int = hp(128, low=1, source="PaCo code")
        queue: int = hp(256, low=1, sweep=(128, 256, 1024), source="our reading, for few classes; code: 8192")
        momentum: float = hp(0.0, low=0.0, high=1.0, sweep=(0.0, 0.999), source="0: GPaCo; PaCo code: 0.999")

    def build(self) -> None:
        """Create head, projector, the empty queue, and for PaCo the averaged copies."""
        super().build()
        config, width = self.config, feature_width(self.backbone)
        self.projector = Projector(width, config.dimension, normalised=config.momentum > 0)
        self.register_buffer("queue", torch.zeros(config.queue, config.dimension))
        self.register_buffer("queue_targets", torch.full((config.queue,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        if config.momentum > 0:
            self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
            self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        numbers = config.alpha, config.beta, config.gamma, config.temperature
        self.contrast = ParametricContrastiveLoss(self.task.class_counts, *numbers)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the loss and how much of the queue is filled; afterwards the second view's vectors are in it."""
        logits, anchors, targets, keys = self._averaged(batch) if self.config.momentum > 0 else self._both(batch)
        others, labels = self.queue, self.queue_targets
        if self.config.momentum > 0:
            others, labels = torch.cat([keys, others]), torch.cat([batch.targets, labels])
        value = self.contrast(logits, anchors, targets, others, labels)
        filled = (self.queue_targets >= 0).float().mean()
        self._enqueue(keys, batch.targets)
        return {"loss": value, "filled": filled}

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two views, copies as the network is."""
        if self.config.momentum > 0:
            self._follow(0.0)
        yield Stage("train", run.epochs, views=2, stop=run.early_stopping())

    def _both(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits and vectors of both views as anchors, their class ids, and what enters the queue."""
        features = self.features(torch.cat(batch.views[:2]))
        vectors = self.projector(features)
        keys = vectors.detach()[len(batch.targets) :]
        return self.classify(features), vectors, torch.cat([batch.targets, batch.targets]), keys

    def _averaged(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits and vectors of the first view as anchors, their class ids, and keys of the second view."""
        features = self.features(batch.views[0])
        with torch.no_grad():
            self._follow(self.config.momentum)
            keys = self.key_projector(full_precision(self.key_backbone(batch.views[1])))
        return self.classify(features), self.projector(features), batch.targets, keys

    @torch.no_grad()
    def _follow(self, momentum: float) -> None:
        for online, key in ((self.backbone, self.key_backbone), (self.projector, self.key_projector)):
            follow(key, online, momentum)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, targets: Tensor) -> None:
        size = len(self.queue)
        keys, targets = keys[-size:], targets[-size:]
        rows = (self.pointer + torch.arange(len(keys), device=keys.device)) % size
        self.queue[rows] = keys.to(self.queue.dtype)
        self.queue_targets[rows] = targets
        self.pointer += len(keys)
