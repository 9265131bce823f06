"""Index streams of one epoch: which training images a method sees, in which order.

A stream is an int64 array of positions into `labels`; the trainer cuts it into batches.
"""

from __future__ import annotations

import numpy as np


def shuffled_stream(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return `length` positions: shuffled passes over all `count` images, without replacement inside a pass."""
    passes = -(-length // count)
    return np.concatenate([rng.permutation(count) for _ in range(passes)])[:length]


def reweighted_stream(
    labels: np.ndarray, class_probabilities: np.ndarray, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `length` independent draws with replacement: a class by its probability, then an image evenly.

    Parameters
    ----------
    labels : int64 [n], class ids
    class_probabilities : [K], not negative; classes that are absent from `labels` are left out and the rest
        scaled to sum to 1

    Raises
    ------
    ValueError : a negative probability, or no probability on any class that is present
    """
    given = np.asarray(class_probabilities, dtype=np.float64)
    counts = np.bincount(labels, minlength=len(given))
    probabilities = np.where(counts > 0, given, 0.0)
    if (given < 0).any() or not probabilities.sum() > 0:
        raise ValueError(f"class probabilities must be >= 0 and not all 0, got {class_probabilities}")
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
    ValueError : `images_per_class` below 1
    """
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
    classes = np.unique(labels)
    rounds = -(-length // (len(classes) * images_per_class))
    order = np.concatenate([rng.permutation(len(classes)) for _ in range(rounds)])
    wanted = rounds * images_per_class
    streams = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        streams.append(members[shuffled_stream(len(members), wanted, rng)].reshape(rounds, images_per_class))
    turn = np.repeat(np.arange(rounds), len(classes))
    return np.stack(streams)[order, turn].reshape(-1)[:length]
