"""The batches of one epoch: which images, in which order, and how they are augmented, each from a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.features import transform_of
from ltbench.benchmarks.training.stages.hooks import StageHooks
from ltbench.benchmarks.training.streams import numpy_stream, torch_stream
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.errors import UserError
from ltbench.methods.stages import Batch, Pool, Progress, SamplerHook, Stage


@dataclass(frozen=True)
class EpochBatches:
    """The batches of one epoch, loaded one after another in one pass."""

    streams: tuple[_Stream, ...]  # the epoch's, and that of the partners where there is one
    chunks: list[slice]

    def __len__(self) -> int:
        return len(self.chunks)

    @property
    def images(self) -> int:
        """Training images that are shown: every view, and those of the partners."""
        shown = sum(chunk.stop - chunk.start for chunk in self.chunks)
        return shown * sum(stream.views for stream in self.streams)

    def __iter__(self) -> Iterator[Batch]:
        loaded = [stream.batches(self.chunks) for stream in self.streams]
        for batch, *partners in zip(*loaded, strict=True):
            yield replace(batch, partner=partners[0]) if partners else batch


@dataclass(frozen=True)
class _Stream:
    """Training images in the order of an epoch, and how they are augmented."""

    part: ImagePart
    indices: np.ndarray
    augment: BatchTransform
    draws: torch.Generator
    views: int

    def batches(self, chunks: list[slice]) -> Iterator[Batch]:
        """Yield augmented batches: draws and class ids of the whole epoch go to the device at once."""
        indices, device = self.indices, self.part.device
        changes = self.augment.draw(len(indices) * self.views, self.part.side, self.draws).on(device)
        targets = self.part.targets(indices)
        for chunk, pixels in zip(chunks, self.part.batches([indices[chunk] for chunk in chunks]), strict=True):
            first = chunk.start * self.views
            rows = [slice(first + view * len(pixels), first + (view + 1) * len(pixels)) for view in range(self.views)]
            views = tuple(self.augment.apply(pixels, changes[own]) for own in rows)
            yield Batch(views, targets[chunk], indices[chunk])


def epoch_batches(
    part: ImagePart, protocol: Protocol, stage: Stage, hooks: StageHooks, progress: Progress, names: tuple[Any, ...]
) -> EpochBatches:
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
    augment = transform_of(protocol, augmentation)

    def stream(sampler: SamplerHook, purpose: str) -> _Stream:
        drawn = np.asarray(sampler(pool, progress, numpy_stream(*names, f"{purpose}sampler")))[:length]
        return _Stream(part, rows[drawn], augment, torch_stream(*names, f"{purpose}augmentation"), stage.views)

    streams = [stream(hooks.sampler, "")]
    count = len(streams[0].indices)
    if hooks.partner is not None:
        streams.append(stream(hooks.partner, "partner "))
        if len(streams[1].indices) < count:
            given = len(streams[1].indices)
            raise UserError(f"stage {stage.name!r}: its partner stream has {given} images, the epoch {count}")
    chunks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return EpochBatches(tuple(streams), [chunk for chunk in chunks if chunk.stop - chunk.start > 1])
