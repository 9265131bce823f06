"""What losses share that draw a random number for every logit."""

from __future__ import annotations

import torch
from torch import Tensor

from ltbench.losses._class_loss import ClassLoss


class RandomClassLoss(ClassLoss):
    """A loss of class counts, logits, class ids, and a number drawn for each logit from torch's global generator.

    Columns are drawn in order of class frequency, so that what is drawn for a class does not depend on its id.
    Subclasses write `_draw` and `_drawn_loss`.

    Parameters
    ----------
    counts : float64 [K], valid class counts
    """

    columns: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__(len(counts))
        self.register_buffer("columns", counts.argsort(descending=True, stable=True).argsort(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        logits : float [B, K]; half precision is converted to float32
        targets : int64 [B], class ids in [0, K)
        drawn : [B, K], what to take for the random numbers; None: they are drawn

        Returns
        -------
        scalar of the logits' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit each other or the number of classes; ids outside [0, K) on the CPU
        """
        self._check(logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return self._drawn_loss(logits, targets, self._numbers(logits, drawn))

    def _numbers(self, logits: Tensor, drawn: Tensor | None) -> Tensor:
        if drawn is None:
            return self._draw(logits).index_select(1, self.columns)
        if drawn.shape != logits.shape:
            raise ValueError(f"drawn must be {list(logits.shape)} as the logits, got {list(drawn.shape)}")
        return drawn

    def _draw(self, logits: Tensor) -> Tensor:
        """Return random numbers [B, K] on the device of the logits, the same ones for every type of these."""
        raise NotImplementedError

    def _drawn_loss(self, logits: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        raise NotImplementedError
