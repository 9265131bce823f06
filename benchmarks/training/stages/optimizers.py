"""The protocol's optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.methods.stages import ParamGroups, Schedule, cosine_decay

_MOMENTUM = 0.9


def new_optimizer(protocol: Protocol, groups: ParamGroups) -> torch.optim.Optimizer:
    """Return the protocol's optimizer: Adam, AdamW, or SGD with momentum 0.9.

    Parameters
    ----------
    groups : each with `params` and `lr`; a group without a weight decay of its own gets the protocol's
    """
    decay = protocol.weight_decay
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if protocol.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=decay, fused=True)


def schedule_of(protocol: Protocol) -> Schedule:
    """Return the protocol's schedule: share of a stage that is done, in (0, 1), to a factor in (0, 1].

    `constant` is 1, `cosine` falls from 1 to 0 as (1 + cos(pi x)) / 2; before either the factor rises linearly from 0
    to 1 over the first `lr_warmup` of the stage, and x is the share of what follows.
    """

    def factor(done: float) -> float:
        if done < protocol.lr_warmup:
            return done / protocol.lr_warmup
        if protocol.schedule == "constant":
            return 1.0
        return cosine_decay((done - protocol.lr_warmup) / (1 - protocol.lr_warmup))

    return factor


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    """Set the learning rate of each group to its base rate times a factor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
