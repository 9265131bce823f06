"""Early exits: which exit an image takes, and a loss that it pays at each exit up to that one (ELF)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltbench.losses._class_loss import check_class_ids, class_cross_entropy


def inference_exits(logits: Tensor, threshold: float) -> Tensor:
    """Return the first exit whose largest softmax probability is at least `threshold`, else the last.

    Parameters
    ----------
    logits : float [E, B, K], in order of depth

    Returns
    -------
    int64 [B], in [0, E)
    """
    return _first(_confidence(logits) >= threshold)


def training_exits(logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """Return the first exit that is right and confident, else the last; arguments and result as `inference_exits`.

    Parameters
    ----------
    targets : int64 [B]
    """
    return _first((_confidence(logits) >= threshold) & (logits.argmax(dim=2) == targets))


class EarlyExitLoss(nn.Module):
    """(1 / B) sum_i sum_{e <= e_i} CE(z_i^e, y_i), with e_i the training exit of image i.

    An image that has left gives no loss and no gradient at deeper exits; what is left is not scaled up, so hard
    images have the larger share. Divided by the batch size, not by the number of images that are still there.

    Parameters
    ----------
    threshold : confidence at which an image that is right leaves, at least 0; above 1 none leaves early, which is
        deep supervision

    Raises
    ------
    ValueError : a threshold below 0
    """

    def __init__(self, threshold: float = 0.9) -> None:
        super().__init__()
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {threshold}")
        self.threshold = threshold

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Parameters
        ----------
        logits : float [E, B, K], in order of depth
        targets : int64 [B], class ids in [0, K)

        Raises
        ------
        ValueError : ids outside [0, K) on the CPU
        """
        check_class_ids(targets, logits.shape[2])
        depth = torch.arange(len(logits), device=logits.device).unsqueeze(1)
        active = depth <= training_exits(logits.detach(), targets, self.threshold)
        every = class_cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)), reduction="none")
        return (every * active.flatten()).sum() / len(targets)


def _confidence(logits: Tensor) -> Tensor:
    return logits.softmax(dim=2).amax(dim=2)


def _first(leaves: Tensor) -> Tensor:
    """Return the first true row of each column, the last row where there is none: bool [E, B] to int64 [B]."""
    last = torch.zeros_like(leaves)
    last[-1] = True
    return (leaves | last).long().argmax(dim=0)
