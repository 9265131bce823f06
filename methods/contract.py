"""What the hooks of a method must return. The trainer and `check_method` check it where they call them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.errors import UserError
from ltbench.methods import HOOKS
from ltbench.methods.base import Method
from ltbench.methods.stages import Batch, ParamGroups, Pool, Stage

_OPTIMIZER = ("step", "zero_grad", "param_groups", "state_dict", "load_state_dict")
_TAKEN = ("ids", "labels", "logits")  # names in the record


class ContractError(UserError):
    """A hook returned something that the contract does not allow: one line that names the hook, got and wanted."""


@dataclass(frozen=True)
class Contract:
    """Checks what the hooks of a method return; every check returns what it accepts.

    Attributes
    ----------
    method : name
    num_classes : K
    stage : name of the stage that is trained; empty outside one

    Raises
    ------
    ContractError : by every check
    """

    method: str
    num_classes: int
    stage: str = ""

    @classmethod
    def of(cls, method: Method, stage: str = "") -> Contract:
        """Return the checks of a method."""
        return cls(method.name, method.task.num_classes, stage)

    def breach(self, hook: str, got: str, wanted: str) -> ContractError:
        """Return the error for a hook that returned what `got` describes."""
        where = f"{self.method}, stage {self.stage!r}" if self.stage else self.method
        return ContractError(f"{where}: {hook} returned {got}, the contract wants {wanted}")

    def built(self, method: Method) -> Method:
        """Check `criterion` of a method that is built, and that no module hides a hook: torch keeps those elsewhere."""
        for hook in HOOKS:
            if hook in method._modules or hook in method._parameters or hook in method._buffers:
                got = f"a method with a module or tensor called {hook}, which the hook {hook} hides"
                raise self.breach("build", got, "another name for it, or the hook itself")
        if not isinstance(method.loss_function, nn.Module):
            raise self.breach("criterion", described(method.loss_function), "a torch.nn.Module")
        return method

    def logits(self, hook: str, values: Any, rows: int) -> Tensor:
        """Check logits of `rows` images."""
        return self._floats(hook, values, (rows, self.num_classes))

    def features(self, values: Any, rows: int) -> Tensor:
        """Check features of `rows` images."""
        width = values.shape[1] if isinstance(values, Tensor) and values.ndim == 2 else "D"
        return self._floats("features", values, (rows, width))

    def _floats(self, hook: str, values: Any, shape: tuple[Any, ...]) -> Tensor:
        if not isinstance(values, Tensor) or tuple(values.shape) != shape or not values.is_floating_point():
            raise self.breach(hook, described(values), f"a float tensor of shape [{', '.join(map(str, shape))}]")
        return values

    def inspected(self, returned: Any, rows: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Check what `inspect` returned of `rows` images."""
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Mapping):
            raise self.breach("inspect", described(returned), "a pair of logits [B, K] and a dict of tensors [B]")
        for name, values in returned[1].items():
            if name in _TAKEN:
                raise self.breach("inspect", f"the name {name!r}", f"other names than {', '.join(_TAKEN)}")
            if not isinstance(values, Tensor) or tuple(values.shape) != (rows,):
                raise self.breach(f"inspect, {name!r},", described(values), f"a tensor of shape [{rows}]")
        return self.logits("inspect", returned[0], rows), returned[1]

    def stream(self, hook: str, drawn: Any, pool: Pool) -> np.ndarray:
        """Check the positions that a sampler drew."""
        positions, wanted = np.asarray(drawn), f"whole numbers from 0 to {len(pool.labels) - 1} in one dimension"
        if positions.ndim != 1 or (len(positions) and not np.issubdtype(positions.dtype, np.integer)):
            raise self.breach(hook, described(drawn), wanted)
        outside = positions[(positions < 0) | (positions >= len(pool.labels))]
        if len(outside):
            raise self.breach(hook, described(int(outside[0])), wanted)
        return positions.astype(np.int64)

    def batch(self, changed: Any, given: Batch) -> Batch:
        """Check what `transform` made of a batch; class ids are looked at only where they are other ones."""
        if not isinstance(changed, Batch):
            raise self.breach("transform", described(changed), "a Batch")
        targets, classes = changed.targets, self.num_classes
        soft = isinstance(targets, Tensor) and targets.is_floating_point()
        shape = ("B", classes) if soft else ("B",)
        if not isinstance(targets, Tensor) or targets.shape[1:] != shape[1:] or targets.ndim != len(shape):
            raise self.breach("transform, targets", described(targets), f"int64 [B] or float [B, {classes}]")
        if not soft and targets is not given.targets:  # to look at values is to wait for the device
            outside = targets[(targets < 0) | (targets >= classes)]
            if len(outside) or targets.dtype != torch.int64:
                got = described(int(outside[0]) if len(outside) else targets)
                raise self.breach("transform, targets", got, f"int64 [B] from 0 to {classes - 1}")
        for view in (changed.views or (None,)) if isinstance(changed.views, tuple | list) else (None,):
            if not isinstance(view, Tensor) or not view.is_floating_point() or len(view) != len(targets):
                raise self.breach(
                    "transform, views", described(view), f"float tensors of {len(targets)} images, one a target"
                )
        return changed

    def terms(self, terms: Any) -> Mapping[str, Tensor]:
        """Check what a loss hook returned."""
        if not isinstance(terms, Mapping) or "loss" not in terms:
            raise self.breach("loss", described(terms), "a dict with the key 'loss'")
        for name, value in terms.items():
            scalar = isinstance(value, Tensor) and value.numel() == 1
            if not scalar and (name == "loss" or not isinstance(value, numbers.Real)):
                wanted = "a scalar tensor" if name == "loss" else "a scalar tensor or a number"
                raise self.breach(f"loss, {name!r},", described(value), wanted)
        if torch.is_grad_enabled() and not terms["loss"].requires_grad:
            raise self.breach("loss, 'loss',", "a tensor without gradient", "one that depends on trained parameters")
        return terms

    def groups(self, groups: Any) -> ParamGroups:
        """Check the parameter groups of an optimizer; return them with their parameters in lists."""
        wanted = "a list of dicts, each with `params` (parameters, none twice) and `lr` (a number, 0 or more)"
        if not isinstance(groups, list | tuple) or not all(isinstance(each, Mapping) for each in groups):
            raise self.breach("param_groups", described(groups), wanted)
        seen: set[Any] = set()
        checked = []
        for group in groups:
            params, lr = group.get("params"), group.get("lr")
            if not _is_number(lr) or lr < 0:
                raise self.breach("param_groups, `lr`", described(lr), wanted)
            params = [params] if isinstance(params, Tensor) else params
            listed = list(params) if hasattr(params, "__iter__") else [params]
            wrong = [each for each in listed if not isinstance(each, Tensor)]
            if wrong or len({*seen, *listed}) < len(seen) + len(listed):
                raise self.breach(
                    "param_groups, `params`", described(wrong[0]) if wrong else "a parameter twice", wanted
                )
            seen |= set(listed)
            checked.append({**group, "params": listed})
        return checked

    def optimizer(self, optimizer: Any) -> torch.optim.Optimizer:
        """Check what `optimizer` returned."""
        lacking = [name for name in _OPTIMIZER if not hasattr(optimizer, name)]
        if lacking:
            raise self.breach("optimizer", described(optimizer), f"an optimizer with {', '.join(_OPTIMIZER)}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise self.breach("optimizer", "LBFGS, whose step needs a closure", "an optimizer that steps by itself")
        return optimizer

    def factor(self, value: Any) -> float:
        """Check what a schedule returned."""
        if not _is_number(value) or not 0 <= value < math.inf:
            raise self.breach("schedule", described(value), "a finite number, 0 or more")
        return value

    def steps(self, value: Any) -> int:
        """Check what `most_steps` returned."""
        if not _is_whole(value, 0):
            raise self.breach("most_steps", described(value), "a whole number, 0 or more")
        return value

    def stops(self, value: Any) -> bool:
        """Check what a stop rule returned."""
        if not isinstance(value, bool | np.bool_):
            raise self.breach("stop", described(value), "True or False")
        return bool(value)

    def plan(self, stages: Any) -> Generator[Stage, Any, None]:
        """Check what `stages` returned."""
        if not isinstance(stages, Generator):
            raise self.breach("stages", described(stages), "a generator; write `yield Stage(...)`")
        return stages

    def yielded(self, stage: Any, images: int, method: Method, augmentation: Collection[str]) -> Stage:
        """Check a stage of a method for a training set of that many images; `augmentation` names its fields."""
        submodules, augmentation = {name for name, _ in method.named_modules()}, set(augmentation)
        if not isinstance(stage, Stage):
            raise self.breach("stages", described(stage), "a Stage in each yield")
        pool = None if stage.indices is None else np.asarray(stage.indices)
        modules: Sequence[Any] = (*stage.frozen, *([] if stage.modules is None else [stage.modules]))
        allowed = {
            "epochs": (_is_whole(stage.epochs, 0), "a whole number, 0 or more"),
            "views": (_is_whole(stage.views, 1), "a whole number, 1 or more"),
            "batch_size": (stage.batch_size is None or _is_whole(stage.batch_size, 2), "None or 2 or more"),
            "lr": (stage.lr is None or (_is_number(stage.lr) and stage.lr >= 0), "None or a number, 0 or more"),
            "indices": (
                pool is None or _are_positions(pool, images),
                f"None or whole numbers from 0 to {images - 1}, at least one",
            ),
            "modules": (all(isinstance(each, nn.Module) for each in modules), "modules in `modules` and `frozen`"),
            "params": (all(isinstance(each, Tensor) for each in stage.params or ()), "None or parameters"),
            "produces": (set(stage.produces) <= submodules, "names of submodules of the method"),
            "augmentation": (
                set(stage.augmentation) <= augmentation,
                f"fields among {', '.join(sorted(augmentation))}",
            ),
        }
        for name in (field.name for field in fields(stage) if field.name in allowed):
            holds, wanted = allowed[name]
            if not holds:
                raise self.breach(f"stages, {name} of stage {stage.name!r},", described(getattr(stage, name)), wanted)
        return stage


def described(value: Any) -> str:
    """Return what a value is, in a few words.

    Examples
    --------
    >>> described(torch.zeros(3, 2))
    'a float32 tensor of shape [3, 2]'
    """
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"a {str(value.dtype).removeprefix('torch.')} {kind} of shape {list(value.shape)}"
    if value is None or isinstance(value, bool | int | float | np.generic):
        return str(value)
    return f"the text {value!r}" if isinstance(value, str) else f"an object of type {type(value).__name__}"


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def _are_positions(values: np.ndarray, count: int) -> bool:
    whole = values.ndim == 1 and len(values) > 0 and np.issubdtype(values.dtype, np.integer)
    return bool(whole) and int(values.min()) >= 0 and int(values.max()) < count
