"""Self-supervised pre-training that methods share: momentum contrast with a queue (He et al., CVPR 2020).

A key encoder follows the backbone as a moving average; each query is distinguished from the keys of other images,
those of the batch and of earlier batches. The paper of Flexible Sampling trains with batches of 16, where a loss on the
batch alone would have 30 negatives; the queue makes their number independent of the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltbench.losses import InfoNCELoss
from ltbench.methods._averages import follow
from ltbench.methods.base import feature_width
from ltbench.methods.stages import Batch, LossHook, Progress
from ltbench.uploads import upload


class MomentumContrast(nn.Module):
    """Projection heads, key encoder and queue of one pre-training stage.

    Parameters
    ----------
    backbone : the encoder to be trained; copied for the keys, not held
    queue_size : keys of earlier batches that serve as negatives, at least 1
    momentum : m of the moving average, in [0, 1)
    temperature : of the loss
    dimension : of the projected vectors
    """

    queue: Tensor
    shown: Tensor

    def __init__(
        self, backbone: nn.Module, *, queue_size: int, momentum: float, temperature: float, dimension: int
    ) -> None:
        super().__init__()
        width = feature_width(backbone)
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dimension))
        self.key_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(queue_size, dimension))
        self.register_buffer("shown", torch.full((queue_size,), -1))  # image of each queued key
        self.momentum = momentum
        self.info_nce = InfoNCELoss(temperature)
        self._written = 0  # keys ever queued; a Python number, so that no step waits for the device

    def get_extra_state(self) -> dict[str, Any]:
        """Return what checkpoints keep besides tensors."""
        return {"written": self._written}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what checkpoints keep besides tensors."""
        self._written = state["written"]

    def loss_on(self, backbone: nn.Module) -> LossHook:
        """Return the loss hook of a stage that trains `backbone` on two views."""

        def loss(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            first, second = batch.views
            queries = self.projector(backbone(first)).float()
            with torch.no_grad():
                self._follow(backbone)
                keys = self.key_projector(self.key_backbone(second)).float()
            filled, others = min(self._written, len(self.queue)), len(keys) - 1
            # Until the queue is full, the keys that are there stand for those to come: the loss keeps its scale.
            weight = (len(self.queue) + others) / max(filled + others, 1)
            own = upload(batch.indices, keys.device)
            same = own.unsqueeze(1) == self.shown[:filled]
            negatives = self.queue[:filled].clone()
            positives = self._positives(batch.targets, same)
            value = self.info_nce(queries, keys, negatives, negative_weight=weight, excluded=same, positives=positives)
            self._enqueue(keys, own, batch.targets)
            alignment = nn.functional.cosine_similarity(queries.detach(), keys).mean()
            return {"loss": value, "alignment": alignment}

        return loss

    @torch.no_grad()
    def _follow(self, backbone: nn.Module) -> None:
        for online, key in ((backbone, self.key_backbone), (self.projector, self.key_projector)):
            follow(key, online, self.momentum)

    def _positives(self, targets: Tensor, same: Tensor) -> Tensor | None:
        """Return which of the filled places [Q] are further positives of each image, bool [B, Q]; None: none are.

        Parameters
        ----------
        same : bool [B, Q], which places show the image itself
        """
        return None

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """Write keys, the oldest places first; return which ones were written."""
        keys = nn.functional.normalize(keys, dim=1)[-len(self.queue) :]
        rows = (self._written + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
        self.shown[rows] = images[-len(self.queue) :]
        self._written += len(keys)
        return rows
