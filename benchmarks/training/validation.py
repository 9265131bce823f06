"""What an epoch is judged by: predictions and losses of the validation images, without their logits at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import log_softmax


def predictions_and_losses(labels: np.ndarray, blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class, int64 [n], and the cross-entropy, float64 [n] in nats, of each image.

    Memory: two numbers an image, and one block in float64.

    Parameters
    ----------
    labels : int64 [n]
    blocks : logits of the images in order, float [b, K] each; the sizes sum to n
    """
    predicted, losses, start = np.empty(len(labels), dtype=np.int64), np.empty(len(labels)), 0
    for logits in blocks:
        stop = start + len(logits)
        right = np.arange(len(logits)), labels[start:stop]
        predicted[start:stop] = logits.argmax(axis=1)
        losses[start:stop] = -log_softmax(logits.astype(np.float64), axis=1)[right]
        start = stop
    return predicted, losses
