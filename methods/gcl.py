"""GCL: Gaussian clouded logits, noise that lowers the cosines of rare classes in training; then the head anew.

    z = scale (cos - noise |eps| delta - margin at y),   delta_c = (log n_max - log n_c) / (log n_max - log n_min)

eps is normal with standard deviation 1/3, clamped to [-1, 1], drawn for each logit; delta is 0 for the most frequent
class and 1 for the rarest. The cloud keeps a distance to rare classes, whose few images would else be learned by heart.

1. Backbone and head on mixed images (MixUp): cross-entropy of z without margin, scale `scale`; best epoch.
2. The backbone is frozen, BatchNorm statistics included; the head is trained on for `second_share` of the epochs, on a
   stream in which every class is as likely, with `second_noise`, margin, `second_scale`, and the focal modulator
   (1 - p_y) ** gamma as a constant. Only its epochs may be reported.

Predictions are second_scale * cos, without noise and margin.

Defaults: noise 0.5, scale 30 and MixUp 1, then scale 20, margin 0.1, gamma 1, 30 epochs, learning rate falling as a
cosine (original code, Keke921/GCLLoss c2a62338; that they follow 200 epochs is our recollection).
Differs: that the second stage starts from the head of the first is our reading. The paper draws its classes by
effective number, the original's command ("BalancedRS"), and this code, evenly.
Pitfalls: |eps| is 0.27 on average, so the rarest class is lowered by 4.0 nats in the first stage, where the share of
classes at ratio 20 asks for log 20 = 3.0 and at ratio 100 for 4.6, and by 2.7 in the second, whose stream is even
already and asks for none. Features that do not yet separate the classes are then predicted as rare. MixUp needs more
epochs than the loss alone. One trial on made-up images at ratio 20, 6 epochs: 27 %, with `second_noise=0` 33 %, with
`alpha=0` 43 %, with both 46 %, ce 36 %; after 12 epochs 44 %, with `alpha=0` 57 %, ce 54 %.
Source: Li et al., CVPR 2022; not in the tables of Ju et al., MICCAI 2022.
Cost: one training and 0.15 of one, head only.
Neutral: none, its head has no bias and no free length
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from ltbench.losses import GCLLoss
from ltbench.methods import hp, register
from ltbench.methods.base import Method, Run, feature_width, share_of_epochs
from ltbench.methods.ldam import NormedLinear, require_cosines
from ltbench.methods.mixup import mixed
from ltbench.methods.stages import Batch, Pool, Progress, Stage, StageResult, cosine_decay
from ltbench.samplers import reweighted_stream


@register("gcl")
class GaussianCloudedLogits(Method):
    """Two stages; hooks used: build, criterion, classify, stages."""

    @dataclass(frozen=True)
    class Config:
        """Of both stages, and of the second alone."""

        noise: float = hp(0.5, low=0.0, sweep=(0.1, 0.5, 1.0), source="GCL code")
        scale: float = hp(30.0, low=1.0, sweep=(20.0, 30.0), source="GCL code")
        alpha: float = hp(1.0, low=0.0, sweep=(0.2, 1.0), source="GCL code: MixUp of the first stage")
        second_share: float = hp(0.15, low=0.0, high=1.0, sweep=(0.1, 0.15, 0.2), source="GCL code: 30 epochs of 200")
        second_noise: float = hp(0.5, low=0.0, sweep=(0.0, 0.5), source="GCL code")
        second_scale: float = hp(20.0, low=1.0, sweep=(20.0, 30.0), source="GCL code")
        margin: float = hp(0.1, low=0.0, sweep=(0.0, 0.1, 0.2), source="GCL code")
        gamma: float = hp(1.0, low=0.0, sweep=(0.0, 1.0, 2.0), source="GCL code")

    def build(self) -> None:
        """Create the normalised head, and the loss of the first stage."""
        self.head = NormedLinear(feature_width(self.backbone), self.task.num_classes)
        self.first_loss = GCLLoss(self.task.class_counts, self.config.noise, scale=self.config.scale)

    def criterion(self) -> GCLLoss:
        """Return the loss of the second stage, of cosines: it needs the normalised head.

        Raises
        ------
        TypeError : a subclass built another head
        """
        config = self.config
        require_cosines(self)
        return GCLLoss(self.task.class_counts, config.second_noise, config.margin, config.second_scale, config.gamma)

    def classify(self, features: Tensor) -> Tensor:
        """Return second_scale * cosine, without noise and margin: [B, D] to [B, K], at least float32."""
        return self.config.second_scale * super().classify(features)

    def most_steps(self, run: Run) -> int:
        """Return the steps of both stages."""
        return run.steps(run.epochs + share_of_epochs(run, self.config.second_share))

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield training with noise and mixed images, then the head alone on balanced batches."""
        yield Stage(
            "train",
            run.epochs,
            loss=self._mixed_loss,
            transform=self._mix,
            stop=run.early_stopping(),
            keep="best",
            select=False,
        )
        yield Stage(
            "classifier",
            share_of_epochs(run, self.config.second_share),
            sampler=self._balanced,
            frozen=(self.backbone,),
            schedule=cosine_decay,
        )

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the loss of the second stage."""
        return {"loss": self.loss_function(super().classify(self.features(batch.images)), batch.targets)}

    def _mixed_loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        cosines = super().classify(self.features(batch.images))
        return {"loss": functional.cross_entropy(self.first_loss.clouded(cosines), batch.targets)}

    def _mix(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return mixed(batch, self.config.alpha, self.task.num_classes, rng)

    def _balanced(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return reweighted_stream(pool.labels, np.ones(self.task.num_classes), pool.length, rng)
