"""Methods: one plug-in a file, `@register("<file stem>")`, chosen by name, never named by the trainer.

`available()` lists the names without importing anything; `create(name, task, backbone)` builds one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from ltbench.methods.base import Method, Run, Task
    from ltbench.methods.stages import Batch, EpochReport, Plateau, Progress, Stage, StageResult

__all__ = [
    "HOOKS",
    "Batch",
    "EpochReport",
    "Method",
    "Plateau",
    "Progress",
    "Run",
    "Stage",
    "StageResult",
    "Task",
    "available",
    "configure",
    "create",
    "hp",
    "register",
    "registry",
]

# What a method may override, in the order in which the trainer meets them.
HOOKS = (
    *(
        "check",
        "build",
        "criterion",
        "most_steps",
        "stages",
        "sampler",
        "transform",
        "features",
        "classify",
        "predict",
        "inspect",
    ),
    *("loss", "param_groups", "optimizer", "on_epoch_end"),
)

registry: Registry = Registry("method", __name__, Path(__file__).parent)
register = registry.register
available = registry.available

_HOMES = {
    **dict.fromkeys(("hp", "configure"), "hyperparameters"),
    **dict.fromkeys(("Method", "Run", "Task"), "base"),
}


def create(name: str, task: Task, backbone: nn.Module, *, preset: str = "paper", **hyperparameters: Any) -> Method:
    """Build a method on a backbone.

    Parameters
    ----------
    name : one of `available()`
    task : classes and class counts of the training set
    backbone : images [B, 3, H, W] to features [B, D]; D is its `head_hidden_size` or `num_features`
    preset : whose hyper-parameter defaults apply
    hyperparameters : of the method, overriding the defaults

    Raises
    ------
    UserError : unknown method, unknown or ill-typed hyper-parameter, or one that the task cannot give
    """
    from ltbench.methods.hyperparameters import configure

    method = registry.get(name)
    return method(configure(name, method.Config, preset, hyperparameters), task, backbone)


def __getattr__(name: str) -> Any:
    """Import the contract, and with it torch, only when a name of it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'stages')}"), name)
