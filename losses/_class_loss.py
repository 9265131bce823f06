"""What losses of logits and class ids share: precision, constants, refusal of what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.losses.precision import full_precision

_NO_CLASS = torch.iinfo(torch.int64).min


class ExactBuffers(nn.Module):
    """A module whose buffers keep their type through `.float()` and `.half()`: a network is converted as a whole."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExactBuffers:
        """Move buffers to another device, never to another type."""
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


class ClassLoss(ExactBuffers):
    """A scalar of logits and class ids, computed in the logits' precision, in float32 at least.

    Buffers are float64 and are cast to the logits' type at use. Subclasses write `_loss`.

    Parameters
    ----------
    num_classes : K that logits must have; None: any
    """

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        logits : float [B, K]; half precision is converted to float32
        targets : int64 [B], class ids in [0, K)

        Returns
        -------
        scalar of the logits' type, float32 at least

        Raises
        ------
        ValueError : shapes that do not fit each other or the number of classes; ids outside [0, K) on the CPU (on a GPU
            its own kernels stop on them)
        """
        self._check(logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            return self._loss(full_precision(logits), targets)

    def _check(self, logits: Tensor, targets: Tensor) -> None:
        if logits.ndim != 2 or targets.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be [B, K] and targets [B], got {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise ValueError(f"this loss was made for {self.num_classes} classes, got logits of {logits.shape[1]}")
        check_class_ids(targets, logits.shape[1])

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError


def check_class_ids(targets: Tensor, num_classes: int) -> None:
    """Refuse ids outside [0, `num_classes`), where looking at them costs nothing.

    On a GPU every step would wait for the answer; there `class_cross_entropy` and `gather` assert it in the kernel.

    Raises
    ------
    ValueError : an id that is out of range, on the CPU
    """
    if targets.device.type == "cpu" and ((targets < 0) | (targets >= num_classes)).any():
        raise ValueError(f"targets must be class ids from 0 to {num_classes - 1}, got {targets.tolist()}")


def class_cross_entropy(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
    """Return `functional.cross_entropy` of class ids; no id is left out silently, as torch leaves out -100."""
    return functional.cross_entropy(logits, targets, ignore_index=_NO_CLASS, **options)


def own_class(logits: Tensor, targets: Tensor) -> Tensor:
    """Return which entry of each row is the target's: bool [B, K]."""
    return targets.unsqueeze(1) == torch.arange(logits.shape[1], device=logits.device)


def checked_number(name: str, value: float, *, positive: bool = False) -> float:
    """Return a finite number of at least 0, or above 0.

    Raises
    ------
    ValueError
    """
    if not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
        raise ValueError(f"{name} must be finite and {'above' if positive else 'at least'} 0, got {value}")
    return value


def checked_weight(
    weight: Sequence[float] | np.ndarray | Tensor | None, num_classes: int | None = None
) -> Tensor | None:
    """Return class weights as float64 [K] on the CPU, or None.

    Raises
    ------
    ValueError : not one-dimensional, empty, not of `num_classes`, or an entry that is negative or not finite
    """
    if weight is None:
        return None
    values = torch.as_tensor(weight, dtype=torch.float64).detach().cpu().clone()
    if values.ndim != 1 or values.numel() == 0 or num_classes not in (None, len(values)):
        expected = "K" if num_classes is None else num_classes
        raise ValueError(f"weight must have shape [{expected}], got {list(values.shape)}")
    if not (torch.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"weight must be finite and at least 0, got {values.tolist()}")
    return values
