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
class Proportion:
    """A share of images, as counts.

    Attributes
    ----------
    right, count : images that have what is asked for, and images there are
    independent : how many independent images the `count` are worth
    """

    right: int
    count: int
    independent: float

    @classmethod
    def of(cls, right: np.ndarray, lesions: np.ndarray | None = None) -> Proportion:
        """Return the share of true values, bool [n].

        Images of one lesion are taken to be right or wrong together, so that n images are worth n^2 / Σ m^2 of lesions
        with m of them each.

        Parameters
        ----------
        lesions : of each image, str [n]; None: each has its own
        """
        count = len(right)
        sizes = np.ones(count) if lesions is None else np.unique(lesions, return_counts=True)[1]
        return cls(int(right.sum()), count, count**2 / float((sizes**2).sum()) if count else 0.0)

    def text(self) -> str:
        """Return it in percent with Wilson's 95 % interval; n/a of no images."""
        if self.count == 0:
            return "n/a"
        share = self.right / self.count
        low, high = wilson_interval(share * self.independent, self.independent)
        return f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Reached:
    """What a threshold reaches on some images."""

    sensitivity: Proportion
    specificity: Proportion

    def text(self) -> str:
        """Return both with their intervals."""
        return f"{SENSITIVITY} {self.sensitivity.text()}, {SPECIFICITY} {self.specificity.text()}"


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


def reached(
    value: float, label: int, labels: np.ndarray, probabilities: np.ndarray, lesions: np.ndarray | None = None
) -> Reached:
    """Return what a threshold reaches on images, int [n], float64 [n, K] and, where they are known, str [n]."""
    positive, called = labels == label, probabilities[:, label] >= value

    def share(right: np.ndarray, own: np.ndarray) -> Proportion:
        return Proportion.of(right[own], None if lesions is None else lesions[own])

    return Reached(share(called, positive), share(~called, ~positive))


def set_limits(
    labels: np.ndarray, probabilities: np.ndarray, alpha: float, weights: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the smallest probability with which each class is in a conformal set, float64 [K].

    The standard score -p of the true class; a class is in the set unless it fits worse than 1 - alpha of the
    validation images. With weights, the shares of classes among the images that are to come relative to validation,
    images count by the weight of their class, and the new one by that of the class that is asked about (Podkopaev and
    Ramdas 2021). A class for which there are too few validation images is in every set (0); None where all are.

    Parameters
    ----------
    labels, probabilities : int [n] and float64 [n, K] of validation images
    alpha : share of sets that may miss the true class
    weights : float64 [K]; None: all 1
    """
    classes = probabilities.shape[1]
    weights = np.ones(classes) if weights is None else weights
    scores = -probabilities[np.arange(len(labels)), labels]
    order = np.argsort(scores, kind="stable")
    reached_weight = np.cumsum(weights[labels[order]])
    needed = (1 - alpha) * (reached_weight[-1] + weights)
    places = np.searchsorted(reached_weight, needed * (1 - 1e-9), "left")
    limits = np.append(-scores[order], 0.0)[places]
    return limits if limits.any() else None
