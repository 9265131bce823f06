"""Index streams of one epoch: which training images a method sees, in which order.

A stream is an int64 array of positions into `labels`; the trainer cuts it into batches.
"""

from __future__ import annotations

import numpy as np

from ltbench.samplers._checks import checked_labels, members_by_class


def shuffled_stream(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return `length` positions: shuffled passes over all `count` images, without replacement inside a pass.

    Raises
    ------
    ValueError : no image, or no position wanted
    """
    _check_size(count, length)
    passes = -(-length // count)
    return np.concatenate([rng.permutation(count) for _ in range(passes)])[:length]


def reweighted_stream(
    labels: np.ndarray, class_probabilities: np.ndarray, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `length` independent draws with replacement: a class by its probability, then an image evenly.

    Parameters
    ----------
    labels : int64 [n], class ids in [0, K)
    class_probabilities : [K], not negative; classes that are absent from `labels` are left out and the rest
        scaled to sum to 1

    Raises
    ------
    ValueError : a probability that is negative or not finite, none above 0 on any class that is present, a label
        outside [0, K), no image, or no position wanted
    """
    given = np.asarray(class_probabilities, dtype=np.float64)
    labels = checked_labels(labels, len(given))
    _check_size(len(labels), length)
    counts = np.bincount(labels, minlength=len(given))
    probabilities = np.where(counts > 0, given, 0.0)
    if not (np.isfinite(given) & (given >= 0)).all() or not probabilities.sum() > 0:
        raise ValueError(f"class probabilities must be finite, >= 0 and not all 0, got {class_probabilities}")
    weights = probabilities[labels] / counts[labels]
    return rng.choice(len(labels), size=length, p=weights / weights.sum())


def class_aware_stream(labels: np.ndarray, images_per_class: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return `length` positions: classes in shuffled rounds, `images_per_class` consecutive images a turn.

    Every class walks through a shuffled list of its own images and is shuffled anew when the list ends (Shen et
    al., ECCV 2016, as in OLTR's and Decoupling's class-aware samplers).

    Parameters
    ----------
    labels : int64 [n], class ids; absent classes get no turn
    images_per_class : at least 1

    Raises
    ------
    ValueError : `images_per_class` below 1, no image, or no position wanted
    """
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
    labels = checked_labels(labels)
    _check_size(len(labels), length)
    classes = np.unique(labels)
    rounds = -(-length // (len(classes) * images_per_class))
    order = np.concatenate([rng.permutation(len(classes)) for _ in range(rounds)])
    wanted = rounds * images_per_class
    streams = []
    for members in filter(len, members_by_class(labels, classes[-1] + 1)):
        streams.append(members[shuffled_stream(len(members), wanted, rng)].reshape(rounds, images_per_class))
    turn = np.repeat(np.arange(rounds), len(classes))
    return np.stack(streams)[order, turn].reshape(-1)[:length]


def _check_size(count: int, length: int) -> None:
    if count < 1 or length < 1:
        raise ValueError(f"a stream needs at least one image and one position, got {count} images, length {length}")
