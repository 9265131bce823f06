"""The images of one part of a split, gathered by index onto the training device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.datasets.images.prefetch import prefetched
from ltbench.datasets.images.store import ImageStore
from ltbench.uploads import upload

_RESIDENT_SHARE = 0.5  # of the device's free memory; the rest is the network's


class ImagePart:
    """Images and labels of one part; on a GPU the pixels stay there where they fit.

    Parameters
    ----------
    store : where the images are decoded
    ids : str [n]
    labels : int64 [n]
    device : where `gather` puts the pixels
    """

    def __init__(self, store: ImageStore, ids: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        self.ids, self.labels, self.device = ids, labels, device
        self._rows = store.rows(ids)
        self._pixels = store.pixels
        self._store = store
        self._resident: Tensor | None = None
        if device.type == "cuda":
            needed = len(ids) * self._pixels[0].nbytes
            if needed <= torch.cuda.mem_get_info(device)[0] * _RESIDENT_SHARE:
                self._resident = torch.from_numpy(self._pixels[self._rows]).to(device)
        self._targets = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of what the images are, ids and pixels in their order."""
        return self._store.digest(self.ids)

    @property
    def side(self) -> int:
        """Of the stored images, pixels."""
        return self._pixels.shape[-1]

    def gather(self, indices: np.ndarray) -> Tensor:
        """Return pixels: int64 [B] positions in this part to uint8 [B, 3, S, S] on the device."""
        if self._resident is not None:
            return self._resident[upload(indices, self.device)]
        return self._read(indices).to(self.device, non_blocking=True)

    def batches(self, chunks: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield `gather` of each chunk of positions; what has to be uploaded is so before it is asked for."""
        if self._resident is not None or self.device.type == "cpu":
            return map(self.gather, chunks)
        return prefetched(self._read, chunks, self.device)

    def targets(self, indices: np.ndarray) -> Tensor:
        """Return class ids, int64 [B], on the device."""
        return self._targets[upload(indices, self.device)]

    def _read(self, indices: np.ndarray) -> Tensor:
        """Return pixels in host memory, pinned where they are to be uploaded."""
        rows = self._rows[indices]
        shape = (len(rows), *self._pixels.shape[1:])
        read = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.take(self._pixels, rows, axis=0, out=read.numpy(), mode="clip")  # "raise" would go through a second copy
        return read
