"""Features in the place of images: a part of a split whose images went through the network beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.device import compute_dtype
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.images.augmentation import Augmentation
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.transforms import BatchTransform, Changes
from ltbench.uploads import upload


class FeaturePart(ImagePart):
    """The features and labels of a part.

    Parameters
    ----------
    images : the part
    features : float32 [n, D], on its device
    """

    def __init__(self, images: ImagePart, features: Tensor) -> None:
        self.ids, self.labels, self.device = images.ids, images.labels, images.device
        self._features, self._targets = features, torch.from_numpy(images.labels).to(images.device)

    @property
    def side(self) -> int:
        """Width D of the features."""
        return self._features.shape[1]

    def gather(self, indices: np.ndarray) -> Tensor:
        """Return features: int64 [B] positions in this part to float32 [B, D] on the device."""
        return self._features[upload(indices, self.device)]

    def batches(self, chunks: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield `gather` of each chunk of positions."""
        return map(self.gather, chunks)


class AsTheyAre(BatchTransform):
    """Leaves features as they are, whatever is asked for."""

    def draw(self, count: int, side: int, generator: torch.Generator) -> Changes:
        """Return no changes."""
        return Changes(torch.empty(count, 0), torch.empty(count, 0))

    def apply(self, pixels: Tensor, changes: Changes) -> Tensor:
        """Return the features."""
        return pixels

    def evaluate(self, pixels: Tensor) -> Tensor:
        """Return the features."""
        return pixels


class InPlaceOfBackbone(nn.Module):
    """What a method has for a backbone where its images are features: it returns them.

    Parameters
    ----------
    network : that gave them; not a part of the method's state while it trains
    width : of the features
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.num_features = (network,), width

    def forward(self, features: Tensor) -> Tensor:
        """Return the features: [B, D] to [B, D]."""
        return features


def transform_of(protocol: Protocol, augmentation: Augmentation) -> BatchTransform:
    """Return what batches go through on the way to the network."""
    kind = AsTheyAre if protocol.frozen_features else BatchTransform
    return kind(protocol.image_size, augmentation, compute_dtype(protocol.precision))
