"""SAM: sharpness-aware minimisation, the gradient where the loss nearby is larger, of all or of rare classes.

    e = rho g / |g|,   step from w with the gradient at w + e,   g the gradient of the loss L at w

`scope` = all takes the whole loss (SAM). `scope` = tail (ImbSAM) takes rare classes alone: with

    L_H = (1 / B) sum_{y not in T} l,   L_T = (2 / B) sum_{y in T} l,   e = rho grad L_T / |grad L_T|,

the step is of grad L_H(w) + grad L_T(w + e); a batch without an image of T gives a plain step. T are the classes with
fewer than `tail_below` images in training; 0: the rarest third, as the tables cut it (three of eight). The factor 2
is the original's.

`objective`, of which l is an image's loss: LDAM with deferred weights, as in the source of SAM on long tails.
Predictions are the objective's.
Defaults: rho 0.05 (SAM; MONICA 9dc5c21f goes on to 0.1 and 0.5; Imbalanced_SAM c65f41eb), tail_below 20 there for
CIFAR-100-LT.
BatchNorm: at w + e its running averages stay. With scope = all the batch's own statistics are used there; with scope =
tail only images of T pass a second time, as in the original, and since they are a handful the running averages stand
in for theirs, which is our reading. What dropout draws is the same in both passes of scope = all.
Differs: with deferred weights, L_H and L_T are the two parts of the weighted mean over the whole batch.
Source: Foret et al., ICLR 2021; Zhou et al., ICCV 2023 (ImbSAM); not in the tables of Ju et al., MICCAI 2022.
Cost: two passes through the network a step; scope=tail: one, and the share of rare images of another.
Neutral: rho=0 objective=ce
Status: from the specification; original code not run
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.losses import SharpnessAware
from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, ObjectiveMethod
from ltbench.methods.base import Run
from ltbench.methods.stages import Batch, ParamGroups, Progress, Stage, StageResult
from ltbench.uploads import upload

_TAIL_FACTOR = 2.0  # the original's


def rare_classes(class_counts: np.ndarray, below: int) -> np.ndarray:
    """Return which classes have fewer than `below` images, bool [K]; 0: the rarest third, as the tables cut it."""
    if below:
        return class_counts < below
    classes = len(class_counts)
    frequent = classes // 3 + (classes - classes // 3) // 2
    rare = np.ones(classes, dtype=bool)
    rare[np.argsort(-class_counts, kind="stable")[:frequent]] = False
    return rare


@register("sam")
class SharpnessAwareMinimisation(ObjectiveMethod):
    """Overrides the optimizer; with scope = tail also the loss, whose parts the optimizer asks for."""

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
        self.part: Literal["whole", "first", "tail"] = "whole"
        self.tail_gradients: dict[Tensor, Tensor] = {}
        self._rare_images = np.zeros(0, dtype=bool)
        self._first_value: Tensor | float = 0.0

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield one stage."""
        self._rare_images = self.rare.cpu().numpy()[run.labels]
        yield from super().stages(run)

    def optimizer(self, groups: ParamGroups, stage: Stage) -> torch.optim.Optimizer:
        """Return the protocol's optimizer, made aware of sharpness."""
        base, config = super().optimizer(groups, stage), self.config
        if config.scope == "all":
            return SharpnessAware(base, config.rho, adaptive=config.adaptive, network=self)
        return _TailSharpnessAware(base, config.rho, adaptive=config.adaptive, method=self)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the objective; with scope = tail, L_H + L_T or the part that the optimizer asks for."""
        if self.config.scope == "all":
            return super().loss(batch, progress)
        if self.part == "tail":
            return {"loss": self._first_value + self._tail_loss(batch, progress)}
        scores = self.scores(self.features(batch.images))
        rare = self.rare[batch.targets].float()
        head = self.objective_loss(scores, batch.targets, progress, 1 - rare)
        tail = _TAIL_FACTOR * self.objective_loss(scores, batch.targets, progress, rare)
        if self.part == "whole":
            return {"loss": head + tail}
        self.tail_gradients = self._gradients(tail) if len(self._rare_rows(batch)) else {}
        self._first_value = head.detach()
        return {"loss": head}

    def _tail_loss(self, batch: Batch, progress: Progress) -> Tensor:
        """Return L_T from a pass of its images alone."""
        rows = upload(self._rare_rows(batch), batch.targets.device)
        targets = batch.targets.index_select(0, rows)
        with _running_averages_used(self):
            scores = self.scores(self.features(batch.images.index_select(0, rows)))
        weights, whole = (self.image_weights(each, progress).sum() for each in (targets, batch.targets))
        return _TAIL_FACTOR * self.objective_loss(scores, targets, progress, (weights / whole).to(scores.dtype))

    def _rare_rows(self, batch: Batch) -> np.ndarray:
        return np.flatnonzero(self._rare_images[batch.indices])

    def _gradients(self, value: Tensor) -> dict[Tensor, Tensor]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with torch.autocast(value.device.type, enabled=False):
            gradients = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
        return {each: slope for each, slope in zip(trained, gradients, strict=True) if slope is not None}


class _TailSharpnessAware(SharpnessAware):
    """Asks the method for L_H, which leaves the gradient of L_T at w behind, and for L_T at w + e."""

    def __init__(self, *arguments: Any, method: SharpnessAwareMinimisation, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._method = method

    def step(self, closure: Callable[[], Any] | None = None, steady: Callable[[], Any] | None = None) -> Any:
        assert closure is not None and steady is None
        method, parts = self._method, iter(("at w", "at w + e"))

        def tail() -> None:
            if next(parts) == "at w":
                self.zero_grad(set_to_none=True)
                self._add(method.tail_gradients)
            else:
                method.part = "tail"
                closure()

        method.part = "first"
        try:
            return super().step(tail, closure)
        finally:
            method.part, method.tail_gradients = "whole", {}


@contextmanager
def _running_averages_used(network: nn.Module) -> Iterator[None]:
    layers = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True
