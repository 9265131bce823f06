"""Paired comparison of two methods on the same test images."""

from __future__ import annotations

import numpy as np

_RESAMPLES = 2000
_SEED = 20220918


def class_balanced_scores(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return float64 [n] that sum to the mean per-class accuracy: 1 / (K n_c) for an image that is right, else 0."""
    counts = np.bincount(labels)
    share = 1.0 / ((counts > 0).sum() * counts[labels])
    return share * (logits.argmax(axis=1) == labels)


def paired_interval(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a bootstrap interval of the difference in mean per-class accuracy, first minus second.

    Trials and, within each class, test images are drawn with replacement, the same for both methods.

    Parameters
    ----------
    first, second : float [trials, n], `class_balanced_scores` of the same trials on the same images
    labels : int64 [n]
    """
    rng = np.random.default_rng(_SEED)
    difference = first - second
    trials = rng.multinomial(len(difference), np.full(len(difference), 1 / len(difference)), size=_RESAMPLES)
    images = np.zeros((_RESAMPLES, len(labels)))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        images[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=_RESAMPLES)
    drawn = ((trials / len(difference)) @ difference * images).sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
