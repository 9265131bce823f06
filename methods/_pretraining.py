"""Encoders that are trained before a method's own stages: of `--init`, for every method of a trial, and of flex.

The stage of `--init` depends on nothing of the method: all hooks are its own and it trains the backbone alone, so that
every method describes it alike and it is computed once in a trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltbench.methods._contrast import MomentumContrast
from ltbench.methods._self_supervision import SCHEMES
from ltbench.methods.base import Method, Run, feature_width, full_precision
from ltbench.methods.hyperparameters import configure, hp
from ltbench.methods.stages import Batch, ParamGroups, Pool, Progress, Stage
from ltbench.samplers import shuffled_stream

_MOMENTUM_CONTRAST = {"objective": "momentum_contrast", "version": 3}

INITIAL = "initial"
"""Of the stage that trains the encoder of `--init`."""


@dataclass(frozen=True)
class Contrast:
    """Settings of self-supervised pre-training; queue, momentum and temperature are of momentum contrast and `kcl`."""

    ssl_budget: float = hp(
        1.0, low=1e-6, presets={"quick": 0.5}, source="our reading: as long as training", pretraining=True
    )
    ssl_lr: float = hp(2e-4, low=1e-9, presets={"quick": 1e-3}, source="section 3.2", pretraining=True)
    ssl_batch_size: int = hp(16, low=2, presets={"quick": 64}, source="section 3.2", pretraining=True)
    ssl_temperature: float = hp(0.07, low=1e-3, sweep=(0.05, 0.07, 0.1, 0.2), source="MoCo", pretraining=True)
    ssl_queue: int = hp(
        8192, low=1, presets={"quick": 512}, source="our reading; at most the training set", pretraining=True
    )
    ssl_momentum: float = hp(0.999, low=0.0, high=1.0, presets={"quick": 0.99}, source="MoCo", pretraining=True)
    ssl_dimension: int = hp(128, low=1, source="MoCo", pretraining=True)
    ssl_crop_area: float = hp(
        0.2, low=0.01, high=1.0, source="MoCo: smallest crop, as a share of the image", pretraining=True
    )
    ssl_jitter: float = hp(0.4, low=0.0, high=1.0, source="MoCo: brightness, contrast, saturation", pretraining=True)

    def epochs_of(self, run: Run) -> int:
        """Return how long it takes, epochs."""
        return max(1, round(self.ssl_budget * run.epochs))


def contrast_stage(name: str, method: Method, run: Run, config: Contrast, scheme: str = "") -> Stage:
    """Return the stage that trains a method's backbone without labels; `kcl` takes them.

    Parameters
    ----------
    name : of the stage, and so of its random streams
    scheme : of `SCHEMES`
    """
    kind, settings = SCHEMES[scheme], dict[str, Any](dimension=config.ssl_dimension)
    if issubclass(kind, MomentumContrast):
        queue_size = max(1, min(config.ssl_queue, len(run.labels) - config.ssl_batch_size))
        momentum, temperature = config.ssl_momentum, config.ssl_temperature
        settings = {"queue_size": queue_size, "momentum": momentum, "temperature": temperature, **settings}
    contrast: Any = kind(method.backbone, **settings)
    version: dict[str, Any] = {"objective": scheme, "version": 1} if scheme else _MOMENTUM_CONTRAST
    jitter = dict.fromkeys(("brightness", "contrast", "saturation"), config.ssl_jitter)
    return Stage(
        name,
        epochs=config.epochs_of(run),
        loss=contrast.loss_on(method.backbone),
        modules=contrast,
        params=list(method.backbone.parameters()),
        views=2,
        augmentation={"crop_scale": (config.ssl_crop_area, 1.0), **jitter},
        lr=config.ssl_lr,
        batch_size=config.ssl_batch_size,
        validate=False,
        select=False,
        recipe={**version, **settings},
    )


def initial_stage(kind: str, preset: str, method: Method, run: Run) -> Stage | None:
    """Return the stage that trains the encoder which every method of a trial starts from.

    Parameters
    ----------
    kind : of the protocol's `INITS`: `scratch` needs no stage
    preset : whose settings of pre-training apply
    """
    if kind == "scratch":
        return None
    settings = configure("ssl", Contrast, preset, {})
    family, _, scheme = kind.partition(":")
    if family == "ssl":
        stage = contrast_stage(INITIAL, method, run, settings, scheme)
    else:
        stage = _supervised_stage(method, run)

    def optimizer(groups: ParamGroups, stage: Stage) -> torch.optim.Optimizer:
        return method.task.new_optimizer(groups)

    return replace(stage, sampler=_shuffled, transform=_as_it_is, optimizer=optimizer)


def _supervised_stage(method: Method, run: Run) -> Stage:
    """Return plain training of a method's backbone under a linear head of the stage's own, which is dropped."""
    head = nn.Linear(feature_width(method.backbone), len(run.class_counts))

    def logits(images: Tensor) -> Tensor:
        features = full_precision(method.backbone(images))
        with torch.autocast(features.device.type, enabled=False):
            return head(features)

    def loss(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": functional.cross_entropy(logits(batch.images), batch.targets)}

    return Stage(
        INITIAL,
        run.epochs,
        loss=loss,
        predict=logits,
        modules=head,
        params=list(method.backbone.parameters()),
        stop=run.early_stopping(),
        keep="best",
        select=False,
        recipe={"objective": "cross_entropy of the encoder", "version": 1},
    )


def _shuffled(pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
    return shuffled_stream(len(pool.labels), pool.length, rng)


def _as_it_is(batch: Batch, rng: np.random.Generator) -> Batch:
    return batch
