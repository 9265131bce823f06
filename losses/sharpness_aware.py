"""Sharpness-aware steps: the gradient is taken where the loss is larger nearby (Foret et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ltbench.losses._class_loss import checked_number

_SMALLEST_NORM = 1e-12

Closure = Callable[[], Any]


class SharpnessAware(torch.optim.Optimizer):
    """Wraps an optimizer, which steps from w with the gradient at w + e, e = rho g / (|g| + 1e-12).

    g is the gradient at w of all parameters of all groups together, |g| its Euclidean norm. With `adaptive` (Kwon et
    al., ICML 2021) e = rho w^2 g / (|w g| + 1e-12), entry by entry. Groups and state are the wrapped optimizer's.

    Parameters
    ----------
    base : takes the steps
    rho : length of e, at least 0; 0: the wrapped optimizer's own step, after one evaluation
    adaptive : whether e scales with the weights
    network : its BatchNorm layers leave their running averages alone at w + e; they use the batch's statistics, as at w

    Raises
    ------
    ValueError : `rho` negative or not finite
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(base.param_groups, {})
        self.param_groups, self.base = base.param_groups, base
        self.rho, self.adaptive, self.network = checked_number("rho", rho), adaptive, network

    def step(self, closure: Closure | None = None, steady: Closure | None = None) -> Any:
        """Take one step; what is drawn at random is the same in all evaluations of it.

        Parameters
        ----------
        closure : sets the gradients of a loss, which it returns; called at w, and at w + e unless `rho` is 0 or no
            parameter has a gradient
        steady : does so of a second loss; called once, at w. Its gradient is added to that of the first at w + e

        Returns
        -------
        the first loss at w

        Raises
        ------
        ValueError : no `closure`
        """
        if closure is None:
            raise ValueError("a sharpness-aware step needs a closure that computes loss and gradients anew")
        with self._draws_put_back():
            loss = closure()
        gradients, rest = self._gradients(), {}
        if steady is not None:
            with self._draws_put_back():
                steady()
            rest = self._gradients()
        before = self._climb(gradients)
        if before:
            with _averages_kept(self.network):
                closure()
            with torch.no_grad():
                torch._foreach_copy_(list(before), list(before.values()))
            gradients = self._gradients()
        both = {each: gradients[each] + rest[each] for each in gradients if each in rest}
        self._set({**gradients, **rest, **both})
        self.base.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapped optimizer."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the wrapped optimizer."""
        self.base.load_state_dict(state_dict)
        self.param_groups = self.base.param_groups

    def _gradients(self) -> dict[Tensor, Tensor]:
        parameters = [each for group in self.param_groups for each in group["params"]]
        return {each: each.grad for each in parameters if each.grad is not None}

    @torch.no_grad()
    def _climb(self, gradients: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Move the weights to w + e; return what they were, nothing where they stay."""
        if self.rho == 0 or not gradients:
            return {}
        weights, slopes = list(gradients), list(gradients.values())
        if self.adaptive:
            slopes = list(torch._foreach_mul(slopes, torch._foreach_abs(weights)))
        length = torch.stack(torch._foreach_norm(slopes)).norm() + _SMALLEST_NORM
        if self.adaptive:
            slopes = list(torch._foreach_mul(slopes, torch._foreach_abs(weights)))
        before = {weight: weight.clone() for weight in weights}
        torch._foreach_add_(weights, torch._foreach_mul(slopes, self.rho / length))
        return before

    def _set(self, gradients: dict[Tensor, Tensor]) -> None:
        self.zero_grad(set_to_none=True)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient

    @contextmanager
    def _draws_put_back(self) -> Iterator[None]:
        """Put the random generators back after an evaluation that is not the last one of the step."""
        devices = {each.device.index for group in self.param_groups for each in group["params"] if each.is_cuda}
        with torch.random.fork_rng(sorted(devices), enabled=self.rho > 0):
            yield


@contextmanager
def _averages_kept(network: nn.Module | None) -> Iterator[None]:
    modules = () if network is None else network.modules()
    layers = [
        each for each in modules if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.track_running_stats
    ]
    for layer in layers:
        layer.track_running_stats = False  # in training it then uses the batch's and keeps no averages
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
