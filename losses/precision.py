"""The precision in which losses and heads compute."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """Return half precision, which autocast gives, as float32; float32 and float64 stay what they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
