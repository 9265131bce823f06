"""Features of a frozen network, computed once for all methods of a trial and kept like a shared stage.

Methods then train on features, in seconds. Images are whole and un-augmented; the cost of the pass is charged in full
to every method, as that of a shared stage is.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.device import autocast, compute_dtype, deciding_threads, place
from ltbench.benchmarks.training.journal import Journal
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.stages.features import FeaturePart, InPlaceOfBackbone
from ltbench.benchmarks.training.stages.states import state_digest, tensors_of
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.methods.base import Method, feature_width, full_precision
from ltbench.methods.stages import EpochReport, Stage, StageResult

_STAGE = Stage("features", 0, select=False, recipe={"objective": "features of the frozen network", "version": 1})


class FrozenBackbone(Backbones):
    """The backbone of a trial whose images go through it once; its method gets a stand-in that returns features.

    Parameters
    ----------
    protocol, seed : as for `Backbones`
    device : where the network runs
    """

    def __init__(self, protocol: Protocol, seed: int, device: torch.device) -> None:
        super().__init__(protocol, seed)
        self._device, self._network = device, super().new().eval()
        place(self._network, device)

    def new(self) -> nn.Module:
        """Return the stand-in."""
        return InPlaceOfBackbone(self._network, feature_width(self._network))

    def part(self, images: ImagePart, name: str, cache: StageCache, journal: Journal | None = None) -> FeaturePart:
        """Return the features of a part, from the cache where they are there."""
        with cache.entry(_STAGE, self._described(images)) as entry:
            stored = entry.load(self._device)
            if stored is None:
                features, report = self._features(images)
                entry.save({"features": features}, StageResult(_STAGE.name, False, (report,)))
            else:
                features, report = stored[0]["features"], stored[1].reports[0]
        if journal is not None:
            cost = {key: getattr(report, key) for key in ("seconds", "cpu_seconds", "forward_images")}
            journal.memo(f"frozen-features-{name}", lambda: None, lambda: cost, story=False)
        return FeaturePart(images, features)

    def _described(self, images: ImagePart) -> dict[str, Any]:
        protocol = self._protocol
        names = ("backbone", "image_size", "batch_size", "precision")
        return {
            "network": {name: getattr(protocol, name) for name in names},
            "augmentation": asdict(protocol.augmentation),
            "weights": state_digest(tensors_of(self._network)),
            "images": images.digest,
            "device": self._device.type,
            "threads": deciding_threads(self._device),
        }

    @torch.no_grad()
    def _features(self, images: ImagePart) -> tuple[Tensor, EpochReport]:
        """Return the features of images, float32 [n, D], and what they cost."""
        started, cpu_before, before = time.perf_counter(), time.process_time(), self.counter.images
        protocol, size = self._protocol, self._protocol.batch_size
        transform = BatchTransform(protocol.image_size, protocol.augmentation, compute_dtype(protocol.precision))
        chunks = [np.arange(start, min(start + size, len(images))) for start in range(0, len(images), size)]
        with autocast(self._device, protocol.precision):
            found = [full_precision(self._network(transform.evaluate(pixels))) for pixels in images.batches(chunks)]
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
        forward = self.counter.images - before
        report = EpochReport(_STAGE.name, 0, {}, 0, 0, seconds, cpu_seconds=cpu_seconds, forward_images=forward)
        return torch.cat(found), report


def backbones_of(protocol: Protocol, seed: int, device: torch.device) -> Backbones:
    """Return the networks of a trial."""
    return FrozenBackbone(protocol, seed, device) if protocol.frozen_features else Backbones(protocol, seed)


def completed(method: Method) -> Method:
    """Return a method with its network in the place of a stand-in."""
    if isinstance(method.backbone, InPlaceOfBackbone):
        (method.backbone,) = method.backbone.network
    return method
