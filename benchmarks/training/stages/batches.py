"""The batches of one epoch: which images, in which order, and how they are augmented, each from a stream of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ltbench.benchmarks.training.device import compute_dtype
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.hooks import StageHooks
from ltbench.benchmarks.training.streams import numpy_stream, torch_stream
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.errors import UserError
from ltbench.methods.stages import Batch, Pool, Progress, SamplerHook, Stage


@dataclass(frozen=True)
class EpochBatch:
    """Positions of a batch and of its partner, not yet loaded."""

    indices: np.ndarray
    loader: _Loader
    partner: np.ndarray | None
    partner_loader: _Loader | None

    @property
    def images(self) -> int:
        """Training images that it shows: every view, and those of the partner."""
        return len(self.indices) * self.loader.views * (1 if self.partner is None else 2)

    def load(self) -> Batch:
        """Return the augmented batch; batches are loaded once each, in order."""
        batch = self.loader(self.indices)
        if self.partner is None or self.partner_loader is None:
            return batch
        return replace(batch, partner=self.partner_loader(self.partner))


@dataclass(frozen=True)
class _Loader:
    """Loads training images by position, augmented: draws go on from batch to batch."""

    part: ImagePart
    augment: BatchTransform
    draws: torch.Generator
    views: int

    def __call__(self, indices: np.ndarray) -> Batch:
        pixels = self.part.gather(indices)
        views = tuple(self.augment.train(pixels, self.draws) for _ in range(self.views))
        return Batch(views, self.part.targets(indices), indices)


def epoch_batches(
    part: ImagePart, protocol: Protocol, stage: Stage, hooks: StageHooks, progress: Progress, names: tuple[Any, ...]
) -> list[EpochBatch]:
    """Return the batches of an epoch, at most ceil(n / batch_size).

    A last batch of one image is dropped: BatchNorm cannot train on it.

    Parameters
    ----------
    part : the training images
    names : seed and names of the epoch's random streams

    Raises
    ------
    UserError : a partner stream that is shorter than the epoch
    """
    rows = np.arange(len(part.labels)) if stage.indices is None else np.asarray(stage.indices, dtype=np.int64)
    labels = part.labels[rows]
    length = len(part.labels) if protocol.epoch_length == "steps" else len(rows)
    pool = Pool(labels, np.bincount(labels, minlength=int(part.labels.max()) + 1), length)
    size = protocol.batch_size if stage.batch_size is None else stage.batch_size
    augmentation = replace(protocol.augmentation, **stage.augmentation)
    augment = BatchTransform(protocol.image_size, augmentation, compute_dtype(protocol.precision))

    def stream(sampler: SamplerHook, purpose: str) -> tuple[np.ndarray, _Loader]:
        drawn = np.asarray(sampler(pool, progress, numpy_stream(*names, f"{purpose}sampler")))[:length]
        draws = torch_stream(*names, f"{purpose}augmentation")
        return rows[drawn], _Loader(part, augment, draws, stage.views)

    first, loader = stream(hooks.sampler, "")
    second, partner_loader = (None, None) if hooks.partner is None else stream(hooks.partner, "partner ")
    if second is not None and len(second) < len(first):
        raise UserError(f"stage {stage.name!r}: its partner stream has {len(second)} images, the epoch {len(first)}")
    chunks = [slice(start, min(start + size, len(first))) for start in range(0, len(first), size)]
    return [
        EpochBatch(first[chunk], loader, None if second is None else second[chunk], partner_loader)
        for chunk in chunks
        if chunk.stop - chunk.start > 1
    ]
