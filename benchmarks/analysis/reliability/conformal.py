"""Conformal sets: the classes that a network does not rule out, so that a promised share of them holds the true one.

Thresholds are quantiles of the scores of validation images, and the sets are of test images. The promise is about
images drawn like the validation images, which in this benchmark are class-balanced: there, marginal coverage and macro
coverage have the same expectation, unlike under the class frequencies of training. Scores and interpolation are those
of Ding, Fermanian and Salmon (2025), "Conformal prediction for long-tailed classification".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import bdtrc

from ltbench.benchmarks.analysis.metrics import class_recall
from ltbench.benchmarks.analysis.probabilities import Probabilities, class_members

ALPHA = 0.1
"""Share of sets that may miss the true class."""

RULES: Mapping[str, str] = {
    "standard": "score 1 − p of the class, one threshold for all classes",
    "prevalence-adjusted": "score 1 − p / share of the class in training, one threshold for all classes",
    "class-conditional": "score 1 − p, a threshold for each class from its images alone",
    "interpolated": "score 1 − p, thresholds halfway between standard and class-conditional",
}
"""Ways to make sets, and what each does."""

BY_CLASS, BY_PREVALENCE = ("class-conditional", "interpolated"), ("prevalence-adjusted",)
"""Rules that need validation images of each class, and those that need training images of each."""


class Coverage(NamedTuple):
    """What sets are worth.

    Attributes
    ----------
    set_size : mean number of classes in a set
    marginal_coverage : share of sets that hold the true class
    macro_coverage, worst_coverage : mean and smallest of the classes' shares, over the classes with an image
    """

    set_size: float
    marginal_coverage: float
    macro_coverage: float
    worst_coverage: float


UNKNOWN = Coverage(*[float("nan")] * 4)


def conformal_quantile(scores: np.ndarray, alpha: float = ALPHA) -> float:
    """Return the smallest score that is at least as large as ⌈(n + 1)(1 − alpha)⌉ of n; infinity where n is too small.

    A new score drawn like these is at most the quantile with a probability of at least 1 − alpha.

    Parameters
    ----------
    scores : float [n], larger where the true class fits worse
    alpha : between 0 and 1; n has to be at least 1 / alpha − 1
    """
    place = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else math.inf


def conformal_limits(
    labels: np.ndarray, logits: np.ndarray, class_counts: Sequence[int], alpha: float = ALPHA
) -> dict[str, np.ndarray | None]:
    """Return the largest score of each class that is in a set by each of `RULES`, float64 [K] or for all classes [].

    None where it is undefined: with fewer than 1 / alpha − 1 validation images, of each class where classes have their
    own threshold; for the adjusted score, with a class without a training image.

    Parameters
    ----------
    labels, logits : int [n] and float [n, K] of the validation images
    class_counts : training images of each class [K]
    """
    # Scores are -p, not 1 - p, which would have no digits left for small p; sets are the same.
    true, share = -Probabilities(logits).of_labels(labels), _shares(class_counts)
    marginal = np.array(conformal_quantile(true, alpha))
    adjusted = np.array(np.nan if np.isnan(share).any() else conformal_quantile(true / share[labels], alpha))
    members = class_members(labels, len(share))
    by_class = np.array([conformal_quantile(true[own], alpha) for own in members])
    limits = {
        "standard": marginal,
        "prevalence-adjusted": adjusted,
        "class-conditional": by_class,
        "interpolated": (marginal + by_class) / 2,
    }
    return {name: limit if np.isfinite(limit).all() else None for name, limit in limits.items()}


def conformal_sets(
    limits: Mapping[str, np.ndarray | None], probabilities: np.ndarray, class_counts: Sequence[int]
) -> dict[str, np.ndarray | None]:
    """Return which classes each test image's set holds by each rule: bool [m, K], or None; a set may be empty.

    Parameters
    ----------
    limits : as `conformal_limits` returns them
    probabilities : float64 [m, K] of the test images
    class_counts : training images of each class [K]
    """
    scores = dict.fromkeys(limits, -probabilities) | {BY_PREVALENCE[0]: -probabilities / _shares(class_counts)}
    return {rule: None if limit is None else scores[rule] <= limit for rule, limit in limits.items()}


def coverages(
    limits: Mapping[str, np.ndarray | None], labels: np.ndarray, logits: np.ndarray, class_counts: Sequence[int]
) -> dict[str, Coverage]:
    """Return size and coverage of the sets of test images by each rule.

    Parameters
    ----------
    limits, class_counts : as for `conformal_sets`
    labels, logits : int [m] and float [m, K] of the test images
    """
    probabilities = Probabilities(logits)
    sizes = {rule: np.empty(len(labels)) for rule in limits}
    held = {rule: np.empty(len(labels), dtype=bool) for rule in limits}
    for rows, block in probabilities.by_image():
        for rule, sets in conformal_sets(limits, block, class_counts).items():
            if sets is not None:
                sizes[rule][rows] = sets.sum(axis=1)
                held[rule][rows] = sets[np.arange(len(sets)), labels[rows]]
    return {
        rule: UNKNOWN if limit is None else coverage(labels, held[rule], sizes[rule], len(class_counts))
        for rule, limit in limits.items()
    }


def coverage(labels: np.ndarray, held: np.ndarray, sizes: np.ndarray, num_classes: int) -> Coverage:
    """Return size and coverage of sets.

    Parameters
    ----------
    labels : int [m]
    held, sizes : whether each image's set holds its class, bool [m], and how many classes, [m]
    """
    shares = class_recall(labels, np.where(held, labels, -1), num_classes)
    return Coverage(float(sizes.mean()), float(held.mean()), float(np.nanmean(shares)), float(np.nanmin(shares)))


def _shares(class_counts: Sequence[int]) -> np.ndarray:
    """Return the share of each class in training, float64 [K], NaN for a class without an image."""
    counts = np.asarray(class_counts, dtype=np.float64)
    return np.divide(counts, counts.sum(), out=np.full(len(counts), np.nan), where=counts > 0)


def expected_worst(test_counts: Sequence[int], alpha: float = ALPHA) -> float:
    """Return the expected smallest share of covered images of a class if each image is covered with 1 − alpha.

    It lies below 1 − alpha, the more, the more classes there are and the fewer test images they have.

    Parameters
    ----------
    test_counts : test images of each class [K]; those of 0 do not count
    """
    counts = [count for count in test_counts if count]
    shares = np.unique(np.concatenate([np.arange(count + 1) / count for count in counts]))
    larger = np.ones(len(shares))
    for count in counts:
        larger *= bdtrc(np.floor(shares * count + 1e-9), count, 1 - alpha)
    # The expectation of a share is the integral of the probability that it is larger.
    return float(np.sum(larger[:-1] * np.diff(shares)))
