"""Copies of networks that follow them slowly, as encoders of keys and targets."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, online: nn.Module, momentum: float) -> None:
    """Set a copy's parameters to momentum times their values plus (1 - momentum) times the network's."""
    torch._foreach_lerp_(list(average.parameters()), list(online.parameters()), 1 - momentum)
