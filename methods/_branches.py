"""Networks that share their first layers: the part of a network up to a cut, and the part after it.

A part is a network of the same class in which the modules of the other part do nothing; its modules are the network's
own. This holds for networks that run their modules one after the other, as convolutional ones do; `checked` sees to it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from ltbench.errors import UserError
from ltbench.methods.base import Method


def stage_cut(method: Method, own_stages: int) -> str:
    """Return the module of a method's backbone after which its last `own_stages` resolutions begin.

    Raises
    ------
    UserError : a backbone without timm's feature interface, or with no more stages than that
    """
    stages = {info["reduction"]: info["module"] for info in getattr(method.backbone, "feature_info", ())}
    names = [stages[reduction] for reduction in sorted(stages)]
    if len(names) <= own_stages:
        reason = f"{method.name} needs a timm backbone of more than {own_stages} stages, this one has {len(names)}"
        raise UserError(f"{reason}; choose another --backbone or fewer stages of their own")
    return checked(method, names[-1 - own_stages])


def block_cut(method: Method) -> str:
    """Return the module after which the last residual block begins; the last stage where that is no list of blocks.

    Raises
    ------
    UserError : as `stage_cut`
    """
    stage = stage_cut(method, 1)
    last = method.backbone.feature_info[-1]["module"]
    blocks = method.backbone.get_submodule(last)
    names = [name for name, _ in blocks.named_children()] if isinstance(blocks, nn.Sequential) else []
    return checked(method, f"{last}.{names[-2]}") if len(names) > 1 else stage


def checked(method: Method, cut: str) -> str:
    """Return a cut if the two parts of the backbone, one after the other, are the backbone.

    Raises
    ------
    UserError
    """
    size, backbone = method.task.image_size, method.backbone
    images = torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size)
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad():
            same = torch.allclose(after(backbone, cut)(before(backbone, cut)(images)), backbone(images), atol=1e-4)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        same = False
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not same:
        reason = f"{method.name}: this backbone cannot be cut after {cut!r}, its parts do not follow one another"
        raise UserError(f"{reason}; choose a convolutional --backbone such as resnet18")
    return cut


def before(network: nn.Module, cut: str) -> nn.Module:
    """Return the part of a network up to the module `cut`: images [B, 3, H, W] to a map."""
    return _part(network, cut.split("."), first=True)


def after(network: nn.Module, cut: str, *, counted: bool = False) -> nn.Module:
    """Return the part after the module `cut`: a map to features [B, D].

    Parameters
    ----------
    counted : whether its calls count as passes of an encoder, as those of the network do
    """
    part = _part(network, cut.split("."), first=False)
    if counted:
        part._forward_hooks, part._forward_pre_hooks = network._forward_hooks, network._forward_pre_hooks
    return part


def _part(network: nn.Module, path: list[str], *, first: bool) -> nn.Module:
    part = copy.copy(network)
    # A part is called within its network's pass: hooks on the whole, such as counters of passes, are not its own.
    part._forward_hooks, part._forward_pre_hooks = OrderedDict(), OrderedDict()
    modules: dict[str, Any] = {}
    reached = False
    for name, module in network._modules.items():
        if name == path[0]:
            reached = True
            whole = module if first else nn.Identity()
            modules[name] = _part(module, path[1:], first=first) if len(path) > 1 and module is not None else whole
        else:
            modules[name] = module if reached != first or module is None else nn.Identity()
    part._modules = modules
    return part
