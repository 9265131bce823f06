"""What validation images decide for new ones: thresholds of a class, and sets that hold the true class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ltbench.benchmarks.analysis.metrics import threshold_at_specificity, wilson_interval
from ltbench.errors import UserError

SENSITIVITY, SPECIFICITY = "sensitivity", "specificity"
KINDS = (SENSITIVITY, SPECIFICITY)
"""What a threshold may be asked to reach."""


@dataclass(frozen=True)
class Wanted:
    """A threshold that is asked for: of the probability of a class, so that a share is reached on validation images.

    Attributes
    ----------
    class_name : of the class
    kind : of `KINDS`
    share : above 0, at most 1
    """

    class_name: str
    kind: str
    share: float

    @property
    def title(self) -> str:
        """What the column of its answers is called."""
        return f"{self.class_name} at {self.kind} {self.share:g}"


@dataclass(frozen=True)
class Reached:
    """What a threshold reaches on some images, as counts: images called rightly, and images there are."""

    true_positives: int
    positives: int
    true_negatives: int
    negatives: int

    def text(self) -> str:
        """Return sensitivity and specificity with Wilson's 95 % intervals."""
        pairs = ((SENSITIVITY, self.true_positives, self.positives), (SPECIFICITY, self.true_negatives, self.negatives))
        return ", ".join(f"{kind} {proportion(right, count)}" for kind, right, count in pairs)


def proportion(right: int, count: int) -> str:
    """Return a share in percent with Wilson's 95 % interval; n/a of a count of 0."""
    if count == 0:
        return "n/a"
    low, high = wilson_interval(right, count)
    return f"{100 * right / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def threshold(wanted: Wanted, label: int, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the threshold of a class's probability that reaches a share on validation images, with most of the other.

    An image is called positive if its probability is at least the threshold; infinity: no image may be.

    Parameters
    ----------
    label : of the class
    labels, probabilities : int [n] and float64 [n, K] of validation images

    Raises
    ------
    UserError : no validation image is of the class, or all are
    """
    positive, scores = labels == label, probabilities[:, label]
    if not positive.any() or positive.all():
        what = "no validation image is" if not positive.any() else "all validation images are"
        raise UserError(f"{wanted.title}: {what} of this class, so that no threshold can be chosen; leave it out")
    if wanted.kind == SPECIFICITY:
        return threshold_at_specificity(positive, scores, wanted.share)
    own = np.sort(scores[positive])[::-1]
    return float(own[math.ceil(wanted.share * len(own) - 1e-9) - 1])


def reached(value: float, label: int, labels: np.ndarray, probabilities: np.ndarray) -> Reached:
    """Return what a threshold reaches on images, int [n] and float64 [n, K]."""
    positive, called = labels == label, probabilities[:, label] >= value
    return Reached(
        int((called & positive).sum()), int(positive.sum()), int((~called & ~positive).sum()), int((~positive).sum())
    )


def set_limits(
    labels: np.ndarray, probabilities: np.ndarray, alpha: float, weights: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the smallest probability with which each class is in a conformal set, float64 [K].

    The standard score -p of the true class; a class is in the set unless it fits worse than 1 - alpha of the
    validation images. With weights, the shares of classes among the images that are to come relative to validation,
    images count by the weight of their class, and the new one by that of the class that is asked about (Podkopaev and
    Ramdas 2021). None where there are too few validation images for this.

    Parameters
    ----------
    labels, probabilities : int [n] and float64 [n, K] of validation images
    alpha : share of sets that may miss the true class
    weights : float64 [K]; None: all 1
    """
    classes = probabilities.shape[1]
    weights = np.ones(classes) if weights is None else weights
    if not np.isfinite(weights).all():
        return None
    scores = -probabilities[np.arange(len(labels)), labels]
    order = np.argsort(scores, kind="stable")
    reached_weight = np.cumsum(weights[labels[order]])
    needed = (1 - alpha) * (reached_weight[-1] + weights)
    places = np.searchsorted(reached_weight, needed - 1e-9 * needed, "left")
    return None if (places >= len(order)).any() else -scores[order][places]
