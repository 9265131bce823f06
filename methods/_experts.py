"""Ensembles of experts: networks that may share their first stages, each with a head; the mean of their logits.

The first expert is the trial's backbone; the others have initial weights of their own, or, where all methods start from
a shared encoder, that encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn

from ltbench.methods._branches import after, before, stage_cut
from ltbench.methods.base import Method, Run, feature_width, full_precision
from ltbench.methods.ldam import NormedLinear
from ltbench.methods.stages import Stage, StageResult

Head = Callable[[int, int], nn.Module]


class Experts(Method):
    """Base of ensembles; `build` calls `_add_experts`."""

    needs = "stages"

    def _add_experts(self, count: int, own_stages: int, *, head: Head = NormedLinear, scale: float = 1.0) -> None:
        """Create further networks and all heads.

        Parameters
        ----------
        count : M, at least 1
        own_stages : last resolutions of the backbone that each expert has for itself; 0: all of it
        head : of D and K
        scale : factor on what heads return
        """
        width, classes = feature_width(self.backbone), self.task.num_classes
        self._scale, self._cut = scale, stage_cut(self, own_stages) if own_stages and count > 1 else None
        networks = [self.task.new_backbone() for _ in range(count - 1)]
        if self._cut is not None:
            networks = [after(each, self._cut, counted=True) for each in networks]
        self.others = nn.ModuleList(networks)
        self.heads = nn.ModuleList(head(width, classes) for _ in range(count))

    def features(self, images: Tensor) -> Tensor:
        """Return the features of all experts side by side: [B, 3, H, W] to [B, M D], at least float32."""
        if self._cut is None:
            each = [network(images) for network in (self.backbone, *self.others)]
        else:
            maps = before(self.backbone, self._cut)(images)
            each = [network(maps) for network in (after(self.backbone, self._cut), *self.others)]
        return torch.cat([full_precision(own) for own in each], dim=1)

    def expert_logits(self, features: Tensor) -> Tensor:
        """Return logits [M, B, K] of features [B, M D], at least float32."""
        with torch.autocast(features.device.type, enabled=False):
            own = full_precision(features).chunk(len(self.heads), dim=1)
            return self._scale * torch.stack([head(part) for head, part in zip(self.heads, own, strict=True)])

    def classify(self, features: Tensor) -> Tensor:
        """Return the mean of the experts' logits: [B, M D] to [B, K], at least float32."""
        return self.expert_logits(features).mean(dim=0)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one training."""
        self._start(run)
        yield Stage("train", run.epochs, stop=run.early_stopping())

    def _start(self, run: Run) -> None:
        """Let all experts start from the encoder that all methods start from, if there is one."""
        if run.shared_encoder:
            encoder = self.backbone if self._cut is None else after(self.backbone, self._cut)
            for other in self.others:
                other.load_state_dict(encoder.state_dict())
