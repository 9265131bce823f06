"""ELF: early exits after every stage of the backbone, so that easy images leave and hard ones keep learning.

Exits e = 1 .. E: a linear classifier on the pooled map after each stage, the last one the usual head. In training an
image leaves at the first exit that is right and sure (softmax at least `threshold`), else at the last, and pays

    loss = (1 / B) sum_i sum_{e <= e_i} CE(z_i^e, y_i)

at every exit up to its own. In evaluation it leaves at the first exit that is sure, right or not; that is what is
selected and reported. The record counts, for each class, the exits and the classes that the last exit alone would have
said, from which its accuracy follows (`inspected`; `test_exit` and `test_last_exit_class` beside the logits). All
exits of a batch are computed and masked: BatchNorm sees every image.

Defaults: threshold 0.9, exits after the last four resolutions of the network (after each of the four stages of a
ResNet; ResNet has no exit at its stem), no weights between exits. A threshold above 1 is deep supervision, one exit
is cross-entropy.
Differs: neither the paper's full text nor its code could be read, only abstracts; the gate "right and sure" is the
one that follow-up work describes. An exit here saves no time: all are computed.
Source: Duggal et al., arXiv:2006.11979 (ELF); Ju et al., MICCAI 2022, Table 1, row ELF.
Cost: one training; a pooled linear head after each stage.
Neutral: exits=1
Status: our reading; of the abstract
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltbench.errors import UserError
from ltbench.losses import EarlyExitLoss, inference_exits, training_exits
from ltbench.methods import hp, register
from ltbench.methods.base import Method, full_precision
from ltbench.methods.stages import Batch, Progress


@register("elf")
class EarlyExiting(Method):
    """Heads inside the backbone; hooks used: build, predict, inspect, loss."""

    needs = "stages"

    @dataclass(frozen=True)
    class Config:
        """When to leave, and how many exits there are."""

        threshold: float = hp(0.9, low=0.0, sweep=(0.7, 0.8, 0.9, 0.95), source="our reading; above 1: no early exit")
        exits: int = hp(4, low=1, high=8, sweep=(2, 3, 4), source="our reading: one after each stage of a ResNet")

    def build(self) -> None:
        """Add a linear exit after each earlier stage to the linear head."""
        super().build()
        *earlier, _ = self.taken = exit_stages(self.backbone, self.config.exits)
        channels = [self.backbone.feature_info[stage]["num_chs"] for stage in earlier]
        self.exits = nn.ModuleList(nn.Linear(width, self.task.num_classes) for width in channels)
        self.early_exit_loss = EarlyExitLoss(self.config.threshold)

    def exit_logits(self, images: Tensor) -> Tensor:
        """Return the logits of every exit, in order of depth: [B, 3, H, W] to [E, B, K], at least float32."""
        if not self.exits:
            return self.classify(self.features(images)).unsqueeze(0)
        # The last stage is asked for although its map is not used: some networks run no further than they must.
        deepest, maps = self.backbone.forward_intermediates(images, indices=list(self.taken))
        features = self.backbone.forward_head(deepest, pre_logits=True)
        with torch.autocast(images.device.type, enabled=False):
            early = [head(full_precision(each).mean((2, 3))) for head, each in zip(self.exits, maps[:-1], strict=True)]
        return torch.stack([*early, self.classify(features)])

    def inspect(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the logits of the exit that each image takes, and: which one, 0 the earliest; the last one's class."""
        logits = self.exit_logits(images)
        taken = inference_exits(logits, self.config.threshold)
        told = {"exit": taken, "last_exit_class": logits[-1].argmax(dim=1)}
        return logits.gather(0, taken.view(1, -1, 1).expand_as(logits[:1]))[0], told

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits of the exit that each image takes: [B, 3, H, W] to [B, K], at least float32."""
        return self.inspect(images)[0]

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the loss of all exits, and the mean training exit, 0 the earliest."""
        logits = self.exit_logits(batch.images)
        exits = training_exits(logits.detach(), batch.targets, self.config.threshold)
        return {"loss": self.early_exit_loss(logits, batch.targets), "mean_exit": exits.float().mean()}


def exit_stages(backbone: nn.Module, count: int) -> tuple[int, ...]:
    """Return the stages after which exits lie: positions in timm's `feature_info`, by depth.

    A stage is a resolution of the network, represented by its last map; of these the `count` deepest. One exit alone is
    the usual head, of any network: its position is then -1.

    Raises
    ------
    UserError : a backbone without timm's feature interface or with fewer stages
    """
    stages = {info["reduction"]: position for position, info in enumerate(getattr(backbone, "feature_info", ()))}
    if count == 1:
        return (-1,)
    if len(stages) < count or not hasattr(backbone, "forward_intermediates"):
        raise UserError(
            f"elf needs a timm backbone of at least {count} stages, this one has {len(stages)}; "
            "choose another --backbone or fewer exits (--set exits=...)"
        )
    return tuple(sorted(stages.values())[-count:])
