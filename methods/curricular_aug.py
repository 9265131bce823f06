"""CURRICULAR AUGMENTATION (CUDA): a class is augmented more strongly once it is learned at its present strength.

Each class has a level L_c in 0 .. 10, at first 0. With `probability` an image is augmented at a strength s drawn from
0 .. L_c: s operations are drawn with replacement, each at a magnitude s / 30 of its range. The share r_cs of right
answers is counted for each class and strength over the epoch. At its end

    L_c <- L_c + 1 where r_cs > threshold for all s <= L_c, else L_c - 1, within 0 .. 10

The probe is of training: the answers are those of the training batches, in training mode, which is free. The original
probes between epochs, with T (s + 1) images of each class and strength in evaluation mode, and augments at s = L_c;
here s must vary for r_cs to be known. Images that are left as they are count as strength 0. Strengths that no image of
the class had in an epoch do not count, and a class without an image keeps its level.

Operations: mirrored, upside down, rotated, sheared and shifted both ways, enlarged; brightness, contrast, saturation.
Those of place become one warp, those of colour one change of each image, as they commute. Of the original's 22 there
is none that changes colours as no camera does (invert, solarize, posterize, equalize), as a diagnosis rests on colour,
and no filter. Images arrive normalised, so brightness is a shift, and saturation acts on the normalised channels; what
needs the values of pixels could not be done here, and there is no option for it.

`objective`: cross-entropy by default, or another loss that the method stands on.
Defaults: probability 0.5, threshold 0.6, levels to 10, steps of 1 / 30, rotated by 30 degrees, sheared by 0.3 (original
code, sumyeongahn/CUDA_LTR f4c8d35f).
Differs: the set of operations, and ranges of ours: shift 0.3 of the side, enlarged 1.3 times, colours by 0.9.
Source: Ahn et al., ICLR 2023 (CUDA); not in the tables of Ju et al., MICCAI 2022.
Cost: one training.
Neutral: probability=0
Status: from a description of paper and code; the original was not run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.methods import hp, register
from ltbench.methods._objective import OBJECTIVES, ObjectiveMethod
from ltbench.methods.stages import Batch, EpochReport, Progress
from ltbench.uploads import upload

_HIGHEST = 10
_STEPS = 30  # strengths that a range is divided in
_PLACE = ("mirror", "flip", "rotate", "shear_x", "shear_y", "shift_x", "shift_y", "enlarge")
_COLOUR = ("brightness", "contrast", "saturation")
_OPERATIONS = (*_PLACE, *_COLOUR)


@dataclass(frozen=True, kw_only=True)
class StrengthBatch(Batch):
    """A batch of augmented images.

    Attributes
    ----------
    strengths : int64 [B], at which each image is augmented
    """

    strengths: Tensor


@dataclass(frozen=True)
class Draws:
    """Operations for each of some images, of which an image of strength s takes the first s.

    Attributes
    ----------
    operations : int64 [B, 10], positions in `_OPERATIONS`
    signs : float [B, 10], -1 or 1: direction of a change that has two
    """

    operations: Tensor
    signs: Tensor


def augmented(images: Tensor, strengths: Tensor, draws: Draws) -> Tensor:
    """Return images at their strengths; those of strength 0 as they are, to the bit.

    Parameters
    ----------
    images : float [B, 3, H, W]
    strengths : int64 [B], 0 to 10
    """
    with torch.autocast(images.device.type, enabled=False):
        changed = images.float()
        place, colours = _composed(strengths, draws)
        grid = functional.affine_grid(place, list(images.shape), align_corners=False)
        warped = functional.grid_sample(changed, grid, padding_mode="reflection", align_corners=False)
        brightness, contrast, saturation = (each.view(-1, 1, 1, 1) for each in colours.unbind(1))
        grey = warped.mean(dim=1, keepdim=True)
        saturated = grey + saturation * (warped - grey)
        middle = saturated.mean(dim=(1, 2, 3), keepdim=True)
        changed = middle + contrast * (saturated - middle) + brightness
        return torch.where((strengths > 0).view(-1, 1, 1, 1), changed.to(images.dtype), images)


def _composed(strengths: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return the warp [B, 2, 3] of each image and its brightness, contrast and saturation [B, 3]."""
    size, device = len(strengths), strengths.device
    magnitude = strengths.float() / _STEPS
    warp = torch.eye(3, device=device).repeat(size, 1, 1)
    colours = torch.stack([torch.zeros_like(magnitude), *2 * [torch.ones_like(magnitude)]], dim=1)
    for step in range(_HIGHEST):
        taken = (strengths > step).float()
        chosen = functional.one_hot(draws.operations[:, step], len(_OPERATIONS)).float() * taken.unsqueeze(1)
        signed = chosen * (magnitude * draws.signs[:, step]).unsqueeze(1)
        warp = warp @ _warp(chosen, signed, magnitude)
        change = 0.9 * signed[:, len(_PLACE) :]
        colours = torch.cat([colours[:, :1] + change[:, :1], colours[:, 1:] * (1 + change[:, 1:])], dim=1)
    return warp[:, :2], colours


def _warp(chosen: Tensor, signed: Tensor, magnitude: Tensor) -> Tensor:
    """Return the map [B, 3, 3] of output to input places of one operation each; those not chosen leave places alone.

    Parameters
    ----------
    chosen, signed : float [B, operations]: 1 for the chosen one, and its signed magnitude
    """
    mirror, flip = (1 - 2 * each for each in chosen[:, :2].unbind(1))
    angle = np.pi / 6 * signed[:, 2]
    scale = 1 / (1 + 0.3 * magnitude * chosen[:, 7])
    zero, one = torch.zeros_like(magnitude), torch.ones_like(magnitude)
    rows = [
        [scale * mirror * angle.cos(), 0.3 * signed[:, 3] - angle.sin(), 0.6 * signed[:, 5]],
        [0.3 * signed[:, 4] + angle.sin(), scale * flip * angle.cos(), 0.6 * signed[:, 6]],
        [zero, zero, one],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


@register("curricular_aug")
class CurricularAugmentation(ObjectiveMethod):
    """Levels and counts as buffers; hooks used: build, transform, loss, on_epoch_end."""

    levels: Tensor
    right: Tensor
    seen: Tensor

    @dataclass(frozen=True)
    class Config:
        """When levels rise, and how many images are augmented."""

        probability: float = hp(0.5, low=0.0, high=1.0, sweep=(0.3, 0.5, 0.7), source="CUDA code")
        threshold: float = hp(0.6, low=-1.0, high=1.0, sweep=(0.4, 0.6, 0.8), source="CUDA code")
        objective: Literal["ce", "balanced_softmax", "ldam_drw"] = hp("ce", sweep=OBJECTIVES, source="CUDA code")

    def build(self) -> None:
        """Set all levels to 0, beside the head."""
        super().build()
        classes = self.task.num_classes
        self.register_buffer("levels", torch.zeros(classes, dtype=torch.int64))
        for name in ("right", "seen"):
            self.register_buffer(name, torch.zeros(classes, _HIGHEST + 1))

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the augmented batch; all views of an image have its strength."""
        if self.config.probability == 0:
            return batch
        size, device = len(batch.targets), batch.targets.device
        chosen = upload(rng.random(size) < self.config.probability, device)
        uniform = upload(rng.random(size).astype(np.float32), device)
        levels = self.levels[batch.targets]
        strengths = torch.minimum((uniform * (levels + 1)).long(), levels) * chosen
        views = tuple(augmented(view, strengths, _draws(size, rng, device)) for view in batch.views)
        return batch.extended(StrengthBatch, views=views, strengths=strengths)

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return the objective; right answers are counted by class and strength."""
        scores = self.scores(self.features(batch.images))
        if isinstance(batch, StrengthBatch):
            self._count(scores.detach(), batch)
        level = self.levels.float().mean()
        return {"loss": self.objective_loss(scores, batch.targets, progress), "mean_level": level}

    @torch.no_grad()
    def on_epoch_end(self, report: EpochReport) -> None:
        """Raise or lower the levels, and count anew."""
        strengths = torch.arange(_HIGHEST + 1, device=self.levels.device)
        counted = (self.seen > 0) & (strengths <= self.levels.unsqueeze(1))
        learned = (self.right > self.config.threshold * self.seen) | ~counted
        change = torch.where(learned.all(dim=1), 1, -1) * counted.any(dim=1)
        self.levels.add_(change).clamp_(0, _HIGHEST)
        self.right.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def _count(self, scores: Tensor, batch: StrengthBatch) -> None:
        classes = functional.one_hot(batch.targets, self.task.num_classes).float()
        strengths = functional.one_hot(batch.strengths, _HIGHEST + 1).float()
        right = (scores.argmax(dim=1) == batch.targets).float().unsqueeze(1)
        with torch.autocast(scores.device.type, enabled=False):
            self.seen += classes.T @ strengths
            self.right += classes.T @ (right * strengths)


def _draws(size: int, rng: np.random.Generator, device: torch.device) -> Draws:
    operations = rng.integers(len(_OPERATIONS), size=(size, _HIGHEST))
    signs = (2 * rng.integers(2, size=(size, _HIGHEST)) - 1).astype(np.float32)
    return Draws(upload(operations, device), upload(signs, device))
