"""THREE EXPERTS: an ensemble of three networks with initial weights of their own, each with a head and a loss.

Predictions are the mean of the experts' logits; the loss is the sum of their cross-entropies.
Neutral: none, it has three networks
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ltbench.methods import Batch, Method, Progress, register
from ltbench.methods.base import feature_width, full_precision


@register("three_experts")
class ThreeExperts(Method):
    """The backbone and two further ones; features of all three lie side by side."""

    def build(self) -> None:
        """Add two networks, and a head for each of the three."""
        self.others = nn.ModuleList(self.task.new_backbone() for _ in range(2))
        width = feature_width(self.backbone)
        self.heads = nn.ModuleList(nn.Linear(width, self.task.num_classes) for _ in range(3))

    def features(self, images: Tensor) -> Tensor:
        """Return the features of all experts: [B, 3, H, W] to [B, 3 D]."""
        return torch.cat([full_precision(network(images)) for network in (self.backbone, *self.others)], dim=1)

    def expert_logits(self, features: Tensor) -> Tensor:
        """Return logits [3, B, K] of features [B, 3 D]."""
        parts = full_precision(features).chunk(3, dim=1)
        with torch.autocast(features.device.type, enabled=False):
            return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)])

    def classify(self, features: Tensor) -> Tensor:
        """Return the mean of the experts' logits."""
        return self.expert_logits(features).mean(dim=0)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the sum of the experts' losses."""
        logits = self.expert_logits(self.features(batch.images))
        return {"loss": torch.stack([self.loss_function(each, batch.targets) for each in logits]).sum()}
