"""What a stage is trained with: each hook its own or the method's; and what a shared stage must say of them.

A shared stage is computed once for all methods of this package that describe it alike. A hook that the stage gives is
described by its code and by what it was built with; a hook that it leaves to the method must be the base class's. A
method from outside shares with itself alone.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ltbench.errors import UserError
from ltbench.files import content_digest, file_hash
from ltbench.methods import HOOKS, registry
from ltbench.methods.base import Method
from ltbench.methods.contract import Contract
from ltbench.methods.stages import (
    LossHook,
    OptimizerHook,
    ParamGroups,
    SamplerHook,
    Schedule,
    Stage,
    StopRule,
    TransformHook,
)
from ltbench.plugin_sources import code_digest

_OWN = "ltbench."
_SPECIAL = ("__init__", "__call__", "__getattr__", "__setattr__")  # of what every class may define
_DESCRIBED = ("loss", "sampler", "partner", "transform", "optimizer", "predict", "schedule", "stop")
_NEEDS: Mapping[str, tuple[str, ...]] = {  # hooks of the method that stand in for a field of the stage
    "loss": ("loss", "criterion", "features", "classify"),
    "sampler": ("sampler",),
    "transform": ("transform",),
    "optimizer": ("optimizer",),
    "params": ("param_groups",),
    "predict": ("predict", "features", "classify"),
}
_TRAINING = (*dict.fromkeys(hook for hooks in _NEEDS.values() for hook in hooks), "on_epoch_end")


@dataclass(frozen=True)
class StageHooks:
    """What a stage is trained with; each hook raises a `ContractError` where it returns what it must not."""

    loss: LossHook
    sampler: SamplerHook
    partner: SamplerHook | None
    transform: TransformHook
    optimizer: OptimizerHook
    schedule: Schedule
    stop: StopRule | None

    @classmethod
    def of(cls, method: Method, stage: Stage, schedule: Schedule) -> StageHooks:
        """Return the stage's own hooks, and the method's where it has none.

        Parameters
        ----------
        schedule : the protocol's

        Raises
        ------
        UserError : a shared stage that leaves a hook to the method which that overrides
        """
        if stage.recipe is not None:
            _require_shareable(method, stage)
        contract, partner = Contract.of(method, stage.name), stage.partner
        loss, sampler = stage.loss or method.loss, stage.sampler or method.sampler
        transform, optimizer = stage.transform or method.transform, stage.optimizer or method.optimizer
        factor = stage.schedule or schedule
        return cls(
            loss=lambda batch, progress: contract.terms(loss(batch, progress)),
            sampler=lambda pool, *rest: contract.stream("sampler", sampler(pool, *rest), pool),
            partner=partner and (lambda pool, *rest: contract.stream("partner", partner(pool, *rest), pool)),
            transform=lambda batch, rng: contract.batch(transform(batch, rng), batch),
            optimizer=lambda groups, stage: contract.optimizer(optimizer(groups, stage)),
            schedule=lambda done: contract.factor(factor(done)),
            stop=stage.stop and (lambda reports: contract.stops(stage.stop(reports))),  # type: ignore[misc]
        )


def param_groups(method: Method, stage: Stage, lr: float) -> ParamGroups:
    """Return the parameters that a stage trains: its own or the method's, and those of its modules; frozen ones not.

    Parameters
    ----------
    lr : the protocol's

    Raises
    ------
    ContractError : groups that no optimizer takes
    """
    rate = lr if stage.lr is None else stage.lr
    own = stage.params is not None
    given: Any = [{"params": list(stage.params or ()), "lr": rate}] if own else method.param_groups(rate)
    if stage.modules is not None and isinstance(given, list | tuple):
        given = [*given, {"params": [p for p in stage.modules.parameters() if p.requires_grad], "lr": rate}]
    groups = Contract.of(method, stage.name).groups(given)
    frozen = {parameter for module in stage.frozen for parameter in module.parameters()}
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad and p not in frozen]
    return [group for group in groups if group["params"]]


def _require_shareable(method: Method, stage: Stage) -> None:
    """Refuse a shared stage whose numbers would depend on hooks that its description does not hold."""
    left = [name for name in _NEEDS if getattr(stage, name) is None and (name != "predict" or stage.validate)]
    hooks = _TRAINING if stage.select else tuple(dict.fromkeys(hook for name in left for hook in _NEEDS[name]))
    overridden = [hook for hook in hooks if _overrides(method, hook)]
    if stage.select and not getattr(stage.predict, "__module__", _OWN).startswith(_OWN):
        reason = "is reported as it is shared, so validation images must be classified as the method does"
        raise UserError(f"shared stage {stage.name!r} {reason}; drop predict, or yield a stage without a recipe")
    if not overridden:
        return
    named = ", ".join(overridden)
    if stage.select:
        reason = f"is reported as it is shared, and {method.name} overrides {named}, which it would not use"
        raise UserError(f"shared stage {stage.name!r} {reason}; yield a stage without a recipe, or drop the hook")
    raise UserError(
        f"shared stage {stage.name!r} would use {named} of {method.name}, which its recipe does not hold; "
        f"give the stage its own (Stage({overridden[0]}=...)) or yield it without a recipe"
    )


def _overrides(method: Method, hook: str) -> bool:
    return hook in vars(method) or getattr(type(method), hook) is not getattr(Method, hook)


def describe_hooks(method: Method, stage: Stage) -> dict[str, Any]:
    """Return a JSON value that changes when a hook that the stage gives is another one."""
    given = {name: describe(getattr(stage, name)) for name in _DESCRIBED}
    structure = {name: _structure(method.get_submodule(name)) for name in stage.produces}
    names = {module: name for name, module in method.named_modules()}
    frozen = [names.get(module, type(module).__qualname__) for module in stage.frozen]
    modules = None if stage.modules is None else [type(stage.modules).__qualname__, repr(stage.modules)]
    return {"given": given, "structure": structure, "frozen": frozen, "modules": modules, "owner": _owner(method)}


def _structure(module: nn.Module) -> list[Any]:
    """Return what a network is built of, which of it is trained, and whether hooks of torch change what it computes."""
    hooked = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())
    return [repr(module), [parameter.requires_grad for parameter in module.parameters()], hooked]


def _owner(method: Method) -> Any:
    """Return None for a method of this package that keeps to its hooks; of any other, its code and hyper-parameters.

    What a class from outside does in `build`, or one that overrides what is no hook (`train`, `forward`), cannot be
    described in full, so its shared stages are its own: it computes them anew, with the same random streams, and nobody
    takes them for others. The code of a registered class is that of its registration, as in the name of its row: a file
    may have been edited since, and another one be imported later.
    """
    classes = [cls for cls in type(method).__mro__ if issubclass(cls, Method) and cls is not Method]
    foreign = [cls for cls in classes if not cls.__module__.startswith(_OWN) or _beyond_hooks(cls)]
    if not foreign:
        return None
    registered = registry.source_digest(getattr(method, "name", ""))
    sources = [_sources(cls) if registered is None else registered for cls in foreign]
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in foreign]
    return [*map(list, zip(names, sources, strict=True)), repr(method.config)]


def _beyond_hooks(cls: type) -> bool:
    """Return whether a class overrides what a network has and is no hook of the contract."""
    own = (name for name in vars(cls) if name not in HOOKS and (name in _SPECIAL or not name.startswith("__")))
    return any(hasattr(nn.Module, name) for name in own)


def _sources(cls: type) -> Any:
    """Return digests of the loaded files in the folder of a class and below; of its functions where it has no file."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None or not Path(file).is_file():
        return [describe(value) for value in vars(cls).values() if isinstance(value, FunctionType)]
    folder = Path(file).resolve().parent
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    near = {Path(each).resolve() for each in loaded if each and Path(each).suffix == ".py"}
    files = sorted(path for path in near if path.is_relative_to(folder) and path.is_file())
    return {path.name: file_hash(path) for path in files}


def describe(value: Any) -> Any:
    """Return a JSON value of what a hook is: its code, what it closes over, what it is bound to.

    A function of this package that closes over a method stands for itself: its recipe says what it takes from it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, MethodType):
        return [describe(value.__func__), _described_object(value.__self__)]
    if isinstance(value, FunctionType):
        return _described_function(value)
    if isinstance(value, functools.partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): describe(each) for name, each in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return content_digest(np.ascontiguousarray(value).tobytes())
    return _described_object(value)


def _described_function(function: FunctionType) -> Any:
    own = function.__module__.startswith(_OWN)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    closed = ["method" if own and isinstance(cell, Method) else describe(cell) for cell in cells]
    name = f"{function.__module__}.{function.__qualname__}"
    defaults = [describe(function.__defaults__), describe(function.__kwdefaults__)]
    return [name, code_digest(function.__code__), _source(function.__module__), closed, defaults]


def _described_object(value: Any) -> Any:
    kind = value if isinstance(value, type) else type(value)
    described: list[Any] = [f"{kind.__module__}.{kind.__qualname__}", _source(kind.__module__)]
    if isinstance(value, Method):
        return [*described, repr(value.config)]
    if isinstance(value, nn.Module):
        return [*described, repr(value), {name: describe(each) for name, each in value.state_dict().items()}]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [*described, {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}]
    return described


def _source(module: str) -> str | None:
    """Return a digest of a module's file; None for modules of this package, whose version is in every key."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith(_OWN) or file is None or not Path(file).is_file():
        return None
    return file_hash(Path(file))
