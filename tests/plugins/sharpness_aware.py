"""SHARPNESS AWARE: each step takes the gradient at weights moved uphill by `radius` (SAM).

w' = w + radius g / |g|; the optimizer steps from w with the gradient at w'. Two passes a step.
Neutral: radius=0
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltbench.methods import Method, Stage, hp, register


class SharpnessAware(torch.optim.Optimizer):
    """Wraps an optimizer, whose groups and state are its own.

    Parameters
    ----------
    base : takes the steps
    radius : of the move uphill
    """

    def __init__(self, base: torch.optim.Optimizer, radius: float) -> None:
        super().__init__(base.param_groups, {})
        self.param_groups, self._base, self._radius = base.param_groups, base, radius

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` computes loss and gradients, and is called twice."""
        assert closure is not None
        loss = torch.enable_grad()(closure)()
        moved = self._uphill()
        if moved:
            torch.enable_grad()(closure)()
            for parameter, change in moved:
                parameter.sub_(change)
        self._base.step()
        return loss

    def _uphill(self) -> list[tuple[Tensor, Tensor]]:
        """Move the weights to where the loss is larger; return by how much."""
        if self._radius == 0:
            return []
        weights = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        length = torch.stack([weight.grad.norm() for weight in weights]).norm().clamp_min(1e-12)
        changes = [(weight, weight.grad * (self._radius / length)) for weight in weights]
        for weight, change in changes:
            weight.add_(change)
        return changes

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer within."""
        return self._base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the optimizer within."""
        self._base.load_state_dict(state_dict)
        self.param_groups = self._base.param_groups


@register("sharpness_aware")
class SharpnessAwareTraining(Method):
    """Overrides the optimizer only."""

    @dataclass(frozen=True)
    class Config:
        """How far uphill."""

        radius: float = hp(0.05, low=0.0, sweep=(0.01, 0.05, 0.1), source="Foret et al., ICLR 2021")

    def optimizer(self, groups: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
        """Return the protocol's optimizer, made aware of sharpness."""
        return SharpnessAware(super().optimizer(groups, stage), self.config.radius)
