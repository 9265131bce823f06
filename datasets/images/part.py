"""The images of one part of a split, gathered by index onto the training device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ltbench.datasets.images.store import ImageStore

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
        self._resident: Tensor | None = None
        if device.type == "cuda":
            needed = len(ids) * self._pixels[0].nbytes
            if needed <= torch.cuda.mem_get_info(device)[0] * _RESIDENT_SHARE:
                self._resident = torch.from_numpy(self._pixels[self._rows]).to(device)
        self._targets = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, indices: np.ndarray) -> Tensor:
        """Return pixels: int64 [B] positions in this part to uint8 [B, 3, S, S] on the device."""
        if self._resident is not None:
            return self._resident[self._upload(indices)]
        return self._upload(self._pixels[self._rows[indices]])

    def targets(self, indices: np.ndarray) -> Tensor:
        """Return class ids, int64 [B], on the device."""
        return self._targets[self._upload(indices)]

    def _upload(self, values: np.ndarray) -> Tensor:
        """Copy to the device; pinned, so that the host need not wait for what the device is doing."""
        tensor = torch.from_numpy(values)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)
