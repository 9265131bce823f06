"""What samplers share: refusals, and the images of each class."""

from __future__ import annotations

import numpy as np


def checked_labels(labels: np.ndarray, num_classes: int | None = None, length: int | None = None) -> np.ndarray:
    """Return class ids as int64 [n].

    Parameters
    ----------
    num_classes : K that the ids must stay below; None: any
    length : n; None: any

    Raises
    ------
    ValueError : not one-dimensional whole numbers, another length, or an id outside [0, `num_classes`)
    """
    values = np.asarray(labels)
    if values.ndim != 1 or (values.size and not np.issubdtype(values.dtype, np.integer)):
        raise ValueError(f"labels must be whole numbers [n], got {values.dtype} of shape {list(values.shape)}")
    if length is not None and len(values) != length:
        raise ValueError(f"one label for each image is needed, got {len(values)} labels for {length}")
    beyond = np.zeros(len(values), dtype=bool) if num_classes is None else values >= num_classes
    wrong = values[(values < 0) | beyond]
    if wrong.size:
        raise ValueError(f"labels must be in [0, {'K' if num_classes is None else num_classes}), got {wrong[0]}")
    return values.astype(np.int64)


def members_by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Return the positions of the images of each class: K arrays, int64, ascending.

    Parameters
    ----------
    labels : int64 [n], class ids in [0, K)
    """
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])
