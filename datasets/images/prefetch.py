"""Images that do not fit on the training device: the next batches are read and uploaded while one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ltbench.processes import in_order

_AHEAD = 2  # batches on their way


def prefetched(
    read: Callable[[np.ndarray], Tensor], chunks: Sequence[np.ndarray], device: torch.device
) -> Iterator[Tensor]:
    """Yield what is read for each chunk, on the device and in order.

    A thread reads and uploads. On a GPU it does so on a stream of its own, beside the kernels of the stream that is
    current where the batches are used; that stream waits for the upload, the host does not.

    Parameters
    ----------
    read : positions to a tensor in host memory, pinned for a GPU
    """
    uploads = torch.cuda.Stream(device) if device.type == "cuda" else None

    def load(chunk: np.ndarray) -> tuple[Tensor, torch.cuda.Event | None]:
        if uploads is None:
            return read(chunk), None
        with torch.cuda.stream(uploads):
            return read(chunk).to(device, non_blocking=True), uploads.record_event()

    for pixels, uploaded in in_order(load, chunks, workers=1, ahead=_AHEAD):
        if uploaded is not None:
            user = torch.cuda.current_stream(device)
            user.wait_event(uploaded)
            pixels.record_stream(user)  # its memory is given to later uploads when `user` has done with it
        yield pixels
