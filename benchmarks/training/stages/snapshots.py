"""Copies of tensors as of one moment: taken where the tensors lie, brought to the host beside training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Snapshot:
    """A copy of nested states, which training may change at once.

    On a GPU the copy lies on it, so that taking one costs no transfer; `on_host` transfers it.

    Parameters
    ----------
    values : tensors and plain values in nested mappings and sequences
    device : of the training
    """

    def __init__(self, values: Any, device: torch.device) -> None:
        self.values = _mapped(values, lambda tensor: tensor.detach().clone())
        self._device = device
        self._taken = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def on_host(self) -> Any:
        """Return the values with all tensors in host memory; another thread than that of the training may ask for them.

        On a GPU the transfer runs on a stream of its own, into pinned memory, beside the kernels of the training.
        """
        if self._taken is None:
            return self.values
        stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(stream):
            stream.wait_event(self._taken)
            values = _mapped(self.values, _begin_transfer)
        stream.synchronize()
        return values


def _begin_transfer(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _mapped(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return nested values with every tensor changed; mappings keep their attributes, which `load_state_dict` reads."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, Mapping):
        changed: Any = copy.copy(values)
        for name, value in values.items():
            changed[name] = _mapped(value, change)
        return changed
    if isinstance(values, list | tuple):
        return type(values)(_mapped(value, change) for value in values)
    return values
