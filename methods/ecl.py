"""ECL: class-enhancement contrastive learning, rare classes have more proxies, and the harder ones more weight later.

Two views of each image. g makes unit vectors of features, class c has P_c proxies: 1 where it is the most frequent,
else floor(n_max / n_c / 10) + 2. All of v = [g(f(x1)); g(f(x2)); proxies] are anchors; with Y their classes,

    P_i = {j != i : Y_j = Y_i},   b_c = number of vectors of class c,   w_ij = b_{Y_j} - 1[j in P_i]
    L_i = -(1 / |P_i|) sum_{p in P_i} [S_ip - log sum_{j != i} e^{S_ij} / w_ij],   S_ij = v_i . v_j / tau
    loss = alpha wCE(z(x1), y) + beta mean of L_i over the anchors whose P_i is not empty

(ClassEnhancementLoss in `losses/representation/contrastive.py`). wCE is torch's weighted mean of cross-entropies. At
epoch e of E, counted from 1, t = e / E, its weights are

    1 for t <= 0.2,   (1 / n_c)^((t - 0.2) / 0.3) to t = 0.5,   (1 / F1_c)^((t - 0.5) / 0.5) afterwards

F1_c of the class on validation images after the epoch before, at least 0.05. Proxies have an optimizer of their own,
which steps once an epoch: SGD on the sum of the epoch's gradients, with momentum, decay and a cosine schedule.

Defaults: alpha 2, beta 1, tau 0.1, d 128, the two switches at 20 and 50 of 100 epochs; proxies 0.002, momentum 0.9,
decay 1e-4 (original code, zylbuaa/ECL 3fb66680).
Differs: the original's mean is NaN once a class with a single proxy has no image in the batch, which its large batches
hide, and its weights are infinite where F1 is 0. A class without validation images keeps an F1 of 1. Early stopping
counts from the epoch on in which classes weigh by their frequency in full, which is our reading. Both views share the
protocol's augmentation, where the original gives one a stronger recipe; the projector's hidden layer is as wide as the
features.
Source: Zhang et al., MICCAI 2023 (ECL); made for skin lesions; not in the tables of Ju et al., MICCAI 2022.
Cost: one training of two views an image, about twice that of ce; a projector and proxies, which predictions do not use.
Neutral: none, it sees two views
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import ClassEnhancementLoss
from ltbench.losses.representation.contrastive import enhancement_weights
from ltbench.methods import hp, register
from ltbench.methods._projection import Projector
from ltbench.methods.base import Method, Run, feature_width
from ltbench.methods.stages import Batch, EpochReport, Progress, Stage, StageResult, cosine_decay

_ROUNDING = 1e-9  # a product that rounding left just above a whole number counts as it


def proxy_numbers(class_counts: np.ndarray) -> np.ndarray:
    """Return how many proxies each class has: int64 [K]."""
    most = class_counts.max()
    return np.where(class_counts == most, 1, most // (10 * class_counts) + 2).astype(np.int64)


@register("ecl")
class ClassEnhancement(Method):
    """One stage of two views, proxies as buffers; hooks used: build, loss, on_epoch_end, stages."""

    proxies: Tensor
    proxy_gradient: Tensor
    proxy_momentum: Tensor
    class_f1: Tensor
    counts: Tensor
    proxy_classes: Tensor
    proxy_places: Tensor
    _epochs: int

    @dataclass(frozen=True)
    class Config:
        """Weights of both losses, vectors, proxies and when class weights change."""

        alpha: float = hp(2.0, low=0.0, sweep=(1.0, 2.0), source="ECL code")
        beta: float = hp(1.0, low=0.0, sweep=(0.5, 1.0), source="ECL code")
        temperature: float = hp(0.1, low=1e-3, sweep=(0.07, 0.1, 0.2), source="ECL code")
        dimension: int = hp(128, low=1, sweep=(64, 128), source="ECL code")
        frequency_start: float = hp(0.2, low=0.0, high=1.0, source="ECL code: 20 of 100 epochs")
        f1_start: float = hp(0.5, low=0.0, high=1.0, source="ECL code: 50 of 100 epochs")
        proxy_rate: float = hp(0.002, low=0.0, sweep=(0.001, 0.002, 0.005), source="ECL code")
        momentum: float = hp(0.9, low=0.0, high=1.0, source="ECL code")
        decay: float = hp(1e-4, low=0.0, source="ECL code")

    def build(self) -> None:
        """Create head and projector; proxies [K, most of a class, d], of which each class uses its first ones."""
        super().build()
        self.projector = Projector(feature_width(self.backbone), self.config.dimension)
        numbers = proxy_numbers(self.task.class_counts)
        shape = len(numbers), int(numbers.max()), self.config.dimension
        bound = math.sqrt(6 / (numbers.sum() + self.config.dimension))  # Xavier, of all proxies as one matrix
        self.register_buffer("proxies", torch.empty(shape).uniform_(-bound, bound))
        for name in ("proxy_gradient", "proxy_momentum"):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("class_f1", torch.ones(len(numbers)))
        self.register_buffer("counts", torch.from_numpy(self.task.class_counts).float())
        classes = np.repeat(np.arange(len(numbers)), numbers)
        places = np.concatenate([np.arange(number) for number in numbers])
        self.register_buffer("proxy_classes", torch.from_numpy(classes))
        self.register_buffer("proxy_places", torch.from_numpy(places))
        self.contrast = ClassEnhancementLoss(self.config.temperature)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the weighted sum of both losses, and these; going back through it adds to the proxies' gradient."""
        config, share = self.config, (progress.epoch + 1) / progress.epochs
        features = self.features(torch.cat(batch.views[:2]))
        logits = self.classify(features[: len(batch.targets)])
        weights = enhancement_weights(self.counts, self.class_f1, share, config.frequency_start, config.f1_start)
        classification = functional.cross_entropy(logits, batch.targets, weight=weights)
        first, second = self.projector(features).chunk(2)
        contrast = self.contrast(first, second, batch.targets, self._used_proxies(), self.proxy_classes)
        total = config.alpha * classification + config.beta * contrast
        return {"loss": total, "classification": classification, "contrast": contrast}

    def on_epoch_end(self, report: EpochReport) -> None:
        """Keep the classes' F1, and take the step of the proxies."""
        if report.val_f1 is not None:
            f1 = torch.tensor(report.val_f1, dtype=self.class_f1.dtype).to(self.class_f1.device)
            self.class_f1.copy_(torch.where(f1.isnan(), self.class_f1, f1))
        config = self.config
        rate = config.proxy_rate * cosine_decay(report.epoch / self._epochs)
        gradient = self.proxy_gradient + config.decay * self.proxies
        self.proxy_momentum.mul_(config.momentum).add_(gradient)
        self.proxies.sub_(rate * self.proxy_momentum)
        self.proxy_gradient.zero_()

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage of two views."""
        self._epochs = run.epochs
        stop = run.early_stopping(after=max(0, math.ceil(self.config.f1_start * run.epochs - _ROUNDING) - 1))
        yield Stage("train", run.epochs, views=2, stop=stop)

    def _used_proxies(self) -> Tensor:
        """Return unit vectors [P, d]; their gradient is added up in `proxy_gradient`."""
        proxies = self.proxies.clone()
        if torch.is_grad_enabled():
            proxies.requires_grad_().register_hook(self._add_gradient)
        return functional.normalize(proxies[self.proxy_classes, self.proxy_places], dim=1)

    def _add_gradient(self, gradient: Tensor) -> None:
        self.proxy_gradient.add_(gradient)
