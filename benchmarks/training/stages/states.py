"""States of networks as named tensors: a part of one, and its digest."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.stages.tuning import frozen_tensors


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module's state, by name."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def of_modules(state: Mapping[str, Tensor], modules: Sequence[str]) -> dict[str, Tensor]:
    """Return copies of the tensors that belong to some submodules of a method."""
    prefixes = tuple(f"{name}." for name in modules)
    return {name: value.clone() for name, value in state.items() if name.startswith(prefixes)}


class TrainedState:
    """The state of a method without what is frozen of its backbone and of copies of it, which it was built with.

    Parameters
    ----------
    method : whose backbone may be adapted; what it trains of copies nevertheless is kept
    """

    def __init__(self, method: nn.Module) -> None:
        self._method = method
        frozen = {f"{path}.{name}" for path, each in method.named_modules() for name in frozen_tensors(each)}
        trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        self._frozen = frozen & method.state_dict().keys() - trained

    def get(self) -> dict[str, Any]:
        """Return it, with what `load_state_dict` reads beside the tensors."""
        return self.part_of(self._method.state_dict())

    def part_of(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole state without what is frozen."""
        trained: Any = copy.copy(state)
        for name in self._frozen:
            del trained[name]
        return trained

    def load(self, state: Mapping[str, Any]) -> None:
        """Put such a state into the method."""
        own, whole = self._method.state_dict(), copy.copy(state)
        whole.update({name: own[name] for name in self._frozen})  # type: ignore[attr-defined]
        self._method.load_state_dict(whole)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, hex."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
