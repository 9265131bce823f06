"""No training step waits for the device: on the CPU, whatever would make the host wait for a GPU is refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ltbench import methods
from ltbench.benchmarks.training import trainer
from ltbench.benchmarks.training.stages import batches
from ltbench.benchmarks.training.trial import run_trial
from ltbench.losses import _class_loss, early_exit, experts

READING = {"item", "tolist", "cpu", "cuda", "nonzero", "__bool__", "__float__", "__int__", "__index__"}
OF_VALUES = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "repeat_interleave"}


class Refusing(TorchFunctionMode):
    """Refuses what reads values or copies them synchronously."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        moves = name == "to" and any(isinstance(each, torch.device | str) for each in (*args[1:], *kwargs.values()))
        assert name not in READING and (name not in ("tensor", "as_tensor") or "device" not in kwargs), name
        assert not moves or kwargs.get("non_blocking"), "a copy that is not non_blocking"
        if name == "one_hot":  # looks at the values on the CPU alone
            with _disable_current_modes():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


class RefusingKernels(TorchDispatchMode):
    """Refuses kernels of whose result the host must know the size, boolean masks among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else ()
        assert name not in OF_VALUES and all(each is None or each.dtype != torch.bool for each in indices), func
        return func(*args, **(kwargs or {}))


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with RefusingKernels(), Refusing():
            return function(*args)

    return call


@pytest.mark.parametrize("name", methods.available())
def test_no_step_waits_for_the_device(
    name: str, spec_under: Any, tiny_protocol: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = batches.EpochBatches.__iter__

    def loaded(own: Any) -> Iterator[Any]:
        left = load(own)
        yield from iter(watched(lambda: next(left, None)), None)

    monkeypatch.setattr(batches.EpochBatches, "__iter__", loaded)
    monkeypatch.setattr(trainer.Trainer, "_step", watched(trainer.Trainer._step))
    for module in (_class_loss, early_exit, experts):
        monkeypatch.setattr(module, "check_class_ids", lambda targets, num_classes: None)  # on the CPU alone, too
    run_trial(spec_under(tmp_path, name, protocol=replace(tiny_protocol, epochs=1, batch_size=64)))
