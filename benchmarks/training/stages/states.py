"""States of networks as named tensors: a part of one, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module's state, by name."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def of_modules(state: Mapping[str, Tensor], modules: Sequence[str]) -> dict[str, Tensor]:
    """Return copies of the tensors that belong to some submodules of a method."""
    prefixes = tuple(f"{name}." for name in modules)
    return {name: value.clone() for name, value in state.items() if name.startswith(prefixes)}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, hex."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
