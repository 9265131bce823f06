"""How `predictions.npz` keeps logits: as they are where they are few, else in fewer bytes with the same decisions.

- Up to 2^22 of a part: as they are.
- More, of at most 2,000 classes: float16 of each logit less the largest of its image.
- More, of more classes: the same of the 1,000 largest of each image, with their classes, and the logarithm of the sum
  of the exponentials of the others, which share it evenly when they are read.

The class that has the largest logit of an image, the first of equal ones, has it also in what is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ltbench.benchmarks.analysis.probabilities import blocks

PLAIN_NUMBERS = 2**22
"""Most logits of a part that are kept as they are."""

DENSE_CLASSES = 2000
"""Most classes of which each has a logit of its own for every image."""

KEPT = 1000
"""Classes of each image that have a logit of their own where there are more than `DENSE_CLASSES`."""

_PLAIN, _BELOW = "logits", "logits_below_largest"
_CLASSES, _TOP, _REST, _NUMBER = "largest_classes", "largest_logits", "log_rest", "class_count"
_ROWS = 64  # images that are handled at once: few enough for the caches, and for memory that is used again
_MOST_FOLD = 1100  # numbers that are read for each that is stored


def stored(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays that stand for logits float32 [n, K], by the names that they have behind that of the part."""
    images, classes = logits.shape
    if logits.size <= PLAIN_NUMBERS:
        return {_PLAIN: logits}
    if not is_cut(images, classes):
        below = np.empty(logits.shape, dtype=np.float16)
        for rows in blocks(images, _ROWS):
            below[rows] = _halved(logits[rows] - logits[rows].max(axis=1, keepdims=True))
        return {_BELOW: below}
    kept, top, rest = (
        np.empty((images, KEPT), dtype=np.min_scalar_type(classes)),
        np.empty((images, KEPT), dtype=np.float16),
        np.empty(images, dtype=np.float32),
    )
    for rows in blocks(images, _ROWS):
        kept[rows], top[rows], rest[rows] = _largest(logits[rows])
    return {_CLASSES: kept, _TOP: top, _REST: rest, _NUMBER: np.array(classes)}


def is_cut(images: int, classes: int) -> bool:
    """Return whether logits [n, K] are stored without those of most classes, which is why AUROC comes out too low."""
    return images * classes > PLAIN_NUMBERS and classes > DENSE_CLASSES


def restored(arrays: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    """Return the logits of a part from the arrays of a file, float [n, K]; where they are not plain, the largest is 0.

    Parameters
    ----------
    arrays : by their names in the file, `<part>_` and a name that `stored` gave

    Raises
    ------
    KeyError : there are none
    ValueError : arrays that do not fit each other, or claim more classes than a file of their size holds
    """
    if (name := f"{part}_{_PLAIN}") in arrays:
        return arrays[name]
    if (name := f"{part}_{_BELOW}") in arrays:
        return arrays[name].astype(np.float32)
    kept, top, rest, number = (arrays[f"{part}_{name}"] for name in (_CLASSES, _TOP, _REST, _NUMBER))
    fits = top.ndim == 2 and kept.shape == top.shape and rest.shape == top.shape[:1] and number.shape == ()
    if not fits or kept.dtype.kind != "u" or number.dtype.kind not in "iu":
        raise ValueError(f"{part}: classes {kept.shape}, logits {top.shape} and rest {rest.shape} do not fit")
    classes = int(number)
    if not top.shape[1] < classes <= _MOST_FOLD * top.shape[1] or (kept >= classes).any():
        raise ValueError(f"{part}: {classes} classes do not fit {top.shape[1]} of each image")
    top = top.astype(np.float32)
    each = np.minimum(rest - np.float32(np.log(classes - top.shape[1])), top.min(axis=1))
    logits = np.repeat(each[:, None], classes, axis=1)
    np.put_along_axis(logits, kept.astype(np.int64), top, axis=1)
    return logits


def names(part: str) -> tuple[str, ...]:
    """Return the names of the arrays in a file that may stand for the logits of a part."""
    return tuple(f"{part}_{name}" for name in (_PLAIN, _BELOW, _CLASSES, _TOP, _REST, _NUMBER))


def _halved(below: np.ndarray) -> np.ndarray:
    """Return float16 of numbers up to 0: those below 0 stay below 0 and finite, so that the largest stays the only."""
    limits = np.finfo(np.float16)
    halved = np.maximum(below, limits.min).astype(np.float16)
    halved[(halved == 0) & (below < 0)] = -limits.smallest_subnormal
    return halved


def _largest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return classes and logits of the `KEPT` largest of each image, less the largest, and the log-sum-exp of the rest.

    Among them is the first of the largest, which the decision is; they are in the order of the classes.
    """
    below = logits - logits.max(axis=1, keepdims=True)
    ranked = below.copy()
    np.put_along_axis(ranked, logits.argmax(axis=1)[:, None], np.inf, axis=1)
    order = np.argpartition(ranked, -KEPT, axis=1)
    kept, others = np.sort(order[:, -KEPT:], axis=1), order[:, :-KEPT]
    rest = np.exp(np.take_along_axis(below, others, axis=1).astype(np.float64)).sum(axis=1)
    log_rest = np.log(np.maximum(rest, np.finfo(np.float64).tiny))
    return kept, _halved(np.take_along_axis(below, kept, axis=1)), log_rest.astype(np.float32)
