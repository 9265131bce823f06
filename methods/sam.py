"""SAM: sharpness-aware minimisation, the gradient where the loss nearby is larger, of all or of rare classes.

    e = rho g / |g|,   step from w with the gradient at w + e,   g the gradient of the loss L at w

`scope` = all takes the whole loss (SAM). `scope` = tail (ImbSAM) takes rare classes alone: with

    L_H = (1 / B) sum_{y not in T} l,   L_T = (2 / B) sum_{y in T} l,   e = rho grad L_T / |grad L_T|,

the step is of grad L_H(w) + grad L_T(w + e), a plain step where the batch has no image of T. T are the classes with
fewer than `tail_below` images in training; 0: the rarest third by frequency (three of eight), also where a data set has
groups of its own. The factor 2 is the original's.

`objective`, of which l is an image's loss: LDAM with deferred weights, as in the source of SAM on long tails.
Predictions are the objective's.
Defaults: rho 0.05 (SAM; MONICA 9dc5c21f goes on to 0.1 and 0.5; Imbalanced_SAM c65f41eb), tail_below 20 there for
CIFAR-100-LT.
BatchNorm uses the statistics of the whole batch in both passes; at w + e its running averages stay. What dropout draws
is the same in both.
Differs: the original's second pass with scope = tail is of rare images alone. With running averages in the place of
their statistics, all images were predicted as rare in trials of six epochs on made-up images, at a falling training
loss. Here the whole batch passes again, and the loss alone is of rare images. With deferred weights L_H and L_T are the
two parts of the weighted mean.
Source: Foret et al., ICLR 2021; Zhou et al., ICCV 2023 (ImbSAM); not in the tables of Ju et al., MICCAI 2022.
Cost: one training, two passes through the network a step.
Neutral: rho=0 objective=ce
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ltbench.losses import SharpnessAware
from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, ObjectiveMethod
from ltbench.methods.stages import Batch, ParamGroups, Progress, Stage

_TAIL_FACTOR = 2.0  # the original's


def rare_classes(class_counts: np.ndarray, below: int) -> np.ndarray:
    """Return which classes have fewer than `below` images, bool [K]; 0: the rarest third."""
    if below:
        return class_counts < below
    classes = len(class_counts)
    frequent = classes // 3 + (classes - classes // 3) // 2
    rare = np.ones(classes, dtype=bool)
    rare[np.argsort(-class_counts, kind="stable")[:frequent]] = False
    return rare


@register("sam")
class SharpnessAwareMinimisation(ObjectiveMethod):
    """Overrides the optimizer; with scope = tail also the loss.

    Attributes
    ----------
    steady : within a step with scope = tail, the gradient of L_H at w, empty before it is known; else None
    """

    needs = "features"

    rare: Tensor

    @dataclass(frozen=True)
    class Config:
        """How far uphill, and which classes."""

        scope: Literal["all", "tail"] = hp("all", sweep=("all", "tail"), source="all: Foret 2021; tail: Zhou 2023")
        rho: float = hp(0.05, low=0.0, sweep=(0.05, 0.1, 0.5), source="SAM; MONICA code: 0.05, later 0.1 and 0.5")
        adaptive: bool = hp(False, sweep=(False, True), source="Kwon et al., ICML 2021: true")
        tail_below: int = hp(0, low=0, source="our reading: the rarest third; Imbalanced_SAM code: 20 on CIFAR-100-LT")
        objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp(
            "ldam_drw", sweep=OBJECTIVES, source="MONICA code: LDAM-DRW"
        )

    def build(self) -> None:
        """Add which classes are rare to the objective's head."""
        super().build()
        self.register_buffer("rare", torch.from_numpy(rare_classes(self.task.class_counts, self.config.tail_below)))
        self.steady: dict[Tensor, Tensor] | None = None

    def optimizer(self, groups: ParamGroups, stage: Stage) -> torch.optim.Optimizer:
        """Return the protocol's optimizer, made aware of sharpness."""
        base, config = super().optimizer(groups, stage), self.config
        if config.scope == "all":
            return SharpnessAware(base, config.rho, adaptive=config.adaptive, network=self)
        return _TailSharpnessAware(base, config.rho, adaptive=config.adaptive, method=self)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the objective; with scope = tail, L_H + L_T, in a step with the gradient of L_T alone."""
        if self.config.scope == "all":
            return super().loss(batch, progress)
        scores = self.scores(self.features(batch.images))
        rare = self.rare[batch.targets].float()
        tail = _TAIL_FACTOR * self.objective_loss(scores, batch.targets, progress, rare)
        rest = self.objective_loss(scores, batch.targets, progress, 1 - rare)
        if self.steady is None:
            return {"loss": rest + tail}
        self.steady = self.steady or self._gradients(rest)
        return {"loss": rest.detach() + tail}

    def _gradients(self, value: Tensor) -> dict[Tensor, Tensor]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with torch.autocast(value.device.type, enabled=False):
            gradients = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
        return {each: slope for each, slope in zip(trained, gradients, strict=True) if slope is not None}


class _TailSharpnessAware(SharpnessAware):
    """Climbs with the gradient of L_T; that of L_H is of w, where the method keeps it in passing."""

    def __init__(self, *arguments: Any, method: SharpnessAwareMinimisation, **options: Any) -> None:
        super().__init__(*arguments, network=method, **options)
        self._method = method

    def step(self, closure: Callable[[], Any] | None = None, steady: Callable[[], Any] | None = None) -> Any:
        method = self._method
        method.steady = {}
        try:
            return super().step(closure, lambda: self._set(method.steady or {}))
        finally:
            method.steady = None
