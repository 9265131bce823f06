"""Copies from host memory to the training device that the host does not wait for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy an array or tensor of the host to a device, through pinned memory; on the CPU it is the same memory."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
