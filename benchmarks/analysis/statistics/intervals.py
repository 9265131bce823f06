"""Honest error bars, and paired comparison of methods, over trials and test images.

All trials are scored on the same test images. A mean over them varies for three reasons: another training run would be
better or worse (the trial), other test images would be easier or harder (the image), and whether this run gets this
image right is partly luck. Averaging over more trials does not make the images more, nor the other way round, so the
three are estimated separately. `python benchmarks/coverage.py` shows by simulation how often the intervals hold the
truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from ltbench.benchmarks.analysis.metrics import wilson_interval

_ROUNDING = 1e-13  # what is smaller than this share of the scores is 0 but for rounding
FEW_IMAGES = 10
"""Of a class, up to which images do not show how much they differ."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes
    ----------
    value : the mean
    low, high : ends of the interval; NaN where one image alone leaves it unknown
    standard_error, degrees_of_freedom : of the t distribution behind it
    trial_variance, luck_variance : V_T and V_E, as `interval` has them, 0 for one trial
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    trial_variance: float = 0.0
    luck_variance: float = 0.0


def fold_inflation(folds: int) -> float:
    """Return by how much the variance of K pooled folds exceeds that of their images: (2 K - 1) / (K - 1).

    The images of a fold are tested by a network that shares training images with those of the other folds, and they are
    training images of these. Nadeau and Bengio, Inference for the generalization error, Machine Learning 52 (2003),
    take ρ = 1 / K, the share of the images that is tested, for the correlation of folds: the variance of the mean of K
    folds of variance σ² is then (1 + (K - 1) ρ) σ² / K, where their images show (1 - ρ) σ² / K. No estimate of it is
    unbiased for all data and methods (Bengio and Grandvalet, JMLR 5, 2004).

    Parameters
    ----------
    folds : K, at least 2
    """
    return (2 * folds - 1) / (folds - 1)


def image_weights(
    labels: np.ndarray, class_weights: np.ndarray | None = None, tested: np.ndarray | None = None
) -> np.ndarray:
    """Return what an image that is right adds to a mean over classes: float64 [n], w_c / n_c.

    Parameters
    ----------
    labels : int64 [n]
    class_weights : float [number of classes], w_c by class id; None: 1 / K for each of the K classes that have images
    tested : bool [T, n], the images of each trial, where trials have their own; the weights are then [T, n], 0 for
        other images

    Raises
    ------
    ValueError : a class that has images and no weight above 0
    """
    counts = np.bincount(labels)
    weights = np.full(len(counts), 1 / (counts > 0).sum()) if class_weights is None else np.asarray(class_weights)
    if len(weights) < len(counts) or not (weights[: len(counts)][counts > 0] > 0).all():
        raise ValueError("every class that has images needs a weight above 0")
    if tested is None:
        return weights[labels] / counts[labels]
    of_trial = np.stack([np.bincount(labels[own], minlength=len(counts)) for own in tested])
    return tested * weights[labels] / np.maximum(of_trial, 1)[:, labels]


def interval(
    scores: np.ndarray,
    labels: np.ndarray,
    confidence: float = 0.95,
    class_weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    tested: np.ndarray | None = None,
    inflation: float = 1.0,
) -> Estimate:
    """Return the mean over trials of the scores' sum over images, with its interval over new trials and new images.

    Let y[t, i] be the scores, S_t = Σ_i y[t, i], and s² a variance with n - 1 in the denominator. Then

    - V_T = s²(S_t) / T is what differs between trials: trial effects, and luck;
    - V_I = Σ_c n_c s²(mean_t y[t, i] of the images i of class c) is what differs between images: difficulty, and luck;
    - V_E = Σ_c n_c s²(what trial and image leave of y) / T is luck alone;

    and the variance is V = V_T + V_I - V_E, in which luck counts once; at least V_T. (If V is 0 because the trials have
    equal sums by chance, it is V_E.) The interval is the mean ± the quantile of Student's t times √V, with ν degrees
    of freedom,

        1 / ν = (1 - κ) / (T - 1) + κ / ν_I,   κ = (1 - V_T / V)^(T / (T - 1)),   ν_I = V_I² / Σ_c (V_Ic² / (n_c - 1)).

    So few trials make it wide only if it is the trials that differ. (Satterthwaite's squares of these two shares of V,
    for 1 - κ and κ, cover 89 to 95 % with two trials, this 93 to 97 %: normal effects.)

    One trial says nothing of others: V = V_I and ν = ν_I, the interval of this trained network. s² of a class counts as
    if one image more differed as much as images of the mean class do: three images that are all right are no certainty.
    If no class has two images, all are taken as one class.

    With `clusters`, as the images of one lesion or one patient, the cluster is what is drawn: Σ_c n_c s² becomes
    Σ_g (Σ_c √(G_c / (G_c - 1)) u_gc)² of the sums u_gc over its images of class c of y less the mean of the class, of
    G_c clusters a class. So what classes have in common in a cluster of several is in it; of clusters of one class each
    it is Σ_c G_c / (G_c - 1) Σ_g u². V_Ic is the part that goes with u_gc, and 1 / ν_I is then
    Σ_g (Σ_c V_Ic / √(G_c (G_c - 1)))² / V_I², c the classes of cluster g.
    If every trial draws test images of its own (`tested`), n_c is of a trial, y less the class's mean is 0 for other
    images, and the same sums hold: an image that trials share counts in V_I once; where they share none, V is V_T.

    Scores within 0 and w_c / n_c, as those of right answers, have ends within 0 and 1. If they show no variance because
    all are at the same end, Wilson's interval of 1 / Σ_c (w_c² / n_c) images is taken (with clusters, of
    1 / Σ_g (Σ_c w_c / G_c)²); if because every class is either all right or all wrong, the variance is that of classes
    of which two more images were the other way: V = Σ_c 2 w_c² / ((n_c + 1) (n_c + 2)), as Agresti and Coull add two.

    Parameters
    ----------
    scores : float [T, n], of each trial `image_weights` where the image is right, else 0
    labels, class_weights : int64 [n]; float [number of classes], w_c by class id, None: equal ones
    clusters : [n], equal for images that belong together, as those of a lesion do; None: each image by itself
    tested : bool [T, n], the images of each trial, whose scores of others are 0; None: all have the same
    inflation : factor of V, for `fold_inflation`

    Raises
    ------
    ValueError : shapes that do not fit, scores that are not finite, a confidence outside 0 and 1
    """
    scores, labels = _checked(scores, labels, confidence)
    weights = image_weights(labels, class_weights, tested)
    strata = _Strata(labels, weights, clusters, tested)
    estimate = _estimate(scores, strata, confidence, inflation=inflation)
    return _within(estimate, scores, weights, strata.effective_images / inflation, confidence)


def _within(estimate: Estimate, scores: np.ndarray, weights: np.ndarray, images: float, confidence: float) -> Estimate:
    """Return an estimate with ends that scores of right answers can have; of other scores, as it is."""
    if (scores < 0).any() or (scores > weights * (1 + _ROUNDING)).any():
        return estimate
    if not scores.any() or np.allclose(scores, weights, rtol=_ROUNDING, atol=0):
        return _of_equal_images(estimate, images, confidence)
    low, high = (float(np.clip(end, 0, 1)) for end in (estimate.low, estimate.high))
    return replace(estimate, low=low, high=high)


def class_interval(
    right: np.ndarray,
    clusters: np.ndarray | None = None,
    tested: np.ndarray | None = None,
    confidence: float = 0.95,
    inflation: float = 1.0,
) -> Estimate:
    """Return the accuracy of one class with its interval: over trials and images, of one trial Wilson's.

    Up to 10 images (or clusters) may be equally easy, or hard, by chance, and then show no variance; the interval of
    theirs is at least Wilson's, which needs none. Two trials of fewer do not give one: the interval is NaN.

    Parameters
    ----------
    right : bool [T, n], of the images of the class
    clusters, tested, confidence, inflation : as for `interval`
    """
    trials, images = right.shape
    size = images if clusters is None else len(np.unique(clusters))
    labels = np.zeros(images, dtype=np.int64)
    scores = right * image_weights(labels, tested=tested)
    found = interval(scores, labels, confidence, clusters=clusters, tested=tested, inflation=inflation)
    low, high = wilson_interval(found.value * size / inflation, size / inflation, confidence)
    if trials == 1:
        return replace(found, low=low, high=high)
    if trials == 2 and size < FEW_IMAGES:
        return replace(found, low=float("nan"), high=float("nan"))
    return replace(found, low=min(low, found.low), high=max(high, found.high)) if size <= FEW_IMAGES else found


def paired_differences(
    scores: np.ndarray,
    reference: int,
    labels: np.ndarray,
    confidence: float = 0.95,
    class_weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    by_trial: Sequence[tuple[float, float]] | None = None,
    tested: np.ndarray | None = None,
    inflation: float = 1.0,
) -> list[Estimate]:
    """Return the difference in mean per-class accuracy of each row to one of them, with its interval within -1 and 1.

    As `interval`, of the differences of the scores: what both methods share of an image cancels, and of a trial too.
    If images differ by luck alone, it is that of the paired t-test over trials; for one trial and one class that of the
    paired t-test over images. If two methods differ on all images of some classes and on none of the others, the
    variance is that of two more images each, as for `interval`. If they never differ, the interval is [0, 0].

    One trial compares two trained networks, not two methods: it distinguishes them although the next two may be the
    other way round.

    Parameters
    ----------
    scores : float [M, T, n], scores as for `interval` of M rows, of the same trials on the same images
    reference : index of the row in 0 ... M - 1
    labels : int64 [n]
    class_weights, clusters : as for `interval`
    by_trial : of each row V_T and its degrees of freedom, where more is known of them (`TrialVariance.of_difference`)
    tested, inflation : as for `interval`

    Raises
    ------
    ValueError : as `interval`
    """
    labels = np.asarray(labels)
    strata = _Strata(labels, image_weights(labels, class_weights, tested), clusters, tested)
    found = []
    for row, own in enumerate(scores):
        difference, _ = _checked(own - scores[reference], labels, confidence)
        known = by_trial[row] if by_trial is not None else None
        estimate = _estimate(difference, strata, confidence, known, inflation)
        low, high = max(estimate.low, -1.0), min(estimate.high, 1.0)  # NaN stays, as the first argument
        found.append(replace(estimate, low=low, high=high))
    return found


def _checked(scores: np.ndarray, labels: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[1:] or scores.size == 0:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} are not [T, n] and [n], T and n at least 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, not between 0 and 1")
    return scores, labels


class _Strata:
    """The test images by class, and within a class by cluster.

    The images of one class and one cluster are a cell; a cluster of several classes has as many cells.

    Parameters
    ----------
    labels : int64 [n]
    weights : float64 [n] or [T, n], `image_weights`
    clusters, tested : as for `interval`

    Attributes
    ----------
    sizes : clusters of each class that has images, G_c, float64; all images in one class where no class has two
    """

    def __init__(
        self, labels: np.ndarray, weights: np.ndarray, clusters: np.ndarray | None, tested: np.ndarray | None
    ) -> None:
        _, strata = np.unique(labels, return_inverse=True)
        every = np.ones((1, len(labels)), dtype=bool) if tested is None else tested
        images = np.stack([np.bincount(strata[own], minlength=strata.max() + 1) for own in every]).astype(np.float64)
        # Σ over a class's images of w_c / n_c is w_c in every trial.
        self._class_weights = np.bincount(strata, np.atleast_2d(weights).mean(axis=0))
        self._class_cells = self._cells = _Cells(strata, clusters)
        self._shares = self._class_weights / images.mean(axis=0)  # w_c / n_c
        if self._cells.sizes.max() == 1:
            strata, images = np.zeros_like(strata), images.sum(axis=1, keepdims=True)
            self._cells, self._shares = _Cells(strata, clusters), self._shares[:1]
        self.sizes = self._cells.sizes
        self._strata, self._images, self._tested = strata, np.maximum(images, 1), tested

    @property
    def clusters(self) -> int:
        """Number of clusters of all classes."""
        return self._cells.clusters

    @property
    def effective_images(self) -> float:
        """1 / Σ_g (Σ_c w_c / G_c)², c the classes of cluster g: as many images of one class would say as much.

        Where each cluster has one class, this is 1 / Σ_c (w_c² / G_c).
        """
        return 1 / float(self._class_cells.joint(self._class_weights / self._class_cells.sizes).sum())

    def two_more(self) -> tuple[float, float]:
        """Return V and ν where no class shows a variance: as if two more images of each were other than the rest.

        The classes of a cluster are taken to be right and wrong together.
        """
        cells = self._class_cells
        of_class = 2 * self._class_weights**2 / ((cells.sizes + 1) * (cells.sizes + 2))
        parts = cells.joint(np.sqrt(of_class / cells.sizes))
        return float(parts.sum()), 1 / cells.inverse_freedom(parts)

    def variances(self, scores: np.ndarray) -> tuple[float, float, float]:
        """Return V_I, V_E (0 for one trial) and 1 / ν_I (NaN where V_I is 0).

        Classes of one cluster are in it: their share of the variance is in what the mean class lends (see `interval`).

        Parameters
        ----------
        scores : float64 [T, n]
        """
        trials, known, cells = len(scores), self.sizes > 1, self._cells
        totals = np.stack([np.bincount(self._strata, row, len(self.sizes)) for row in scores])
        centred = scores - (totals / self._images)[:, self._strata]
        if self._tested is not None:
            centred = centred * self._tested
        # In units of right and wrong, y n_c / w_c, a class has the variance ((G_c - 1) s_c² + mean of s² over classes)
        # / G_c, and V is Σ_c of it w_c² / G_c. Written as Σ_c part s_c², the mean's part goes to its classes.
        freedom, share, parts = self.sizes - 1, self._shares, np.zeros(len(self.sizes))
        parts[known] = 1 + (share**2).sum() / (known.sum() * share[known] ** 2 * freedom[known])
        sums = np.sqrt(parts)[cells.classes] * np.stack([cells.sums(row) for row in centred])
        of_image = sums.mean(axis=0)
        images = cells.joint_of(of_image)
        luck = sum(float(cells.joint_of(left).sum()) for left in sums - of_image)
        return float(images.sum()), luck / (trials * max(trials - 1, 1)), cells.inverse_freedom(images)


class _Cells:
    """Which clusters have images of which classes.

    Parameters
    ----------
    strata : class of each image, int64 [n], 0 ... K - 1 without a gap
    clusters : [n]; None: each image by itself

    Attributes
    ----------
    classes : of each cell, int64
    sizes : cells, and so clusters, of each class, G_c, float64 [K]
    """

    def __init__(self, strata: np.ndarray, clusters: np.ndarray | None) -> None:
        if clusters is None:
            self._members, self.classes, self._clusters = None, strata, None
        else:
            _, inverse = np.unique(clusters, return_inverse=True)
            keys, self._members = np.unique(strata * (inverse.max() + 1) + inverse, return_inverse=True)
            self.classes, self._clusters = np.divmod(keys, inverse.max() + 1)
        self.sizes = np.bincount(self.classes).astype(np.float64)

    @property
    def clusters(self) -> int:
        """Number of clusters of all classes."""
        return len(self.classes) if self._clusters is None else len(np.unique(self._clusters))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums over the images of each cell, of values [n]."""
        return values if self._members is None else np.bincount(self._members, values, len(self.classes))

    def joint_of(self, values: np.ndarray) -> np.ndarray:
        """Return, by class, what is its own of the sum over clusters of (the sum of a cluster's cells)², float64 [K].

        Parameters
        ----------
        values : of each cell
        """
        every = values if self._clusters is None else np.bincount(self._clusters, values)[self._clusters]
        return np.bincount(self.classes, values * every, len(self.sizes))

    def joint(self, by_class: np.ndarray) -> np.ndarray:
        """Return `joint_of` values that all cells of a class share, float64 [K]."""
        return self.joint_of(by_class[self.classes])

    def inverse_freedom(self, parts: np.ndarray) -> float:
        """Return 1 / ν of a variance: Σ_g (Σ_c V_c / √(G_c (G_c - 1)))² / (Σ_c V_c)², c the classes of cluster g.

        That is Satterthwaite's approximation, a cluster having the variance Σ_c V_c / G_c. A class of one cluster
        counts as if it had two.

        Parameters
        ----------
        parts : V_c, float64 [K]
        """
        total = float(parts.sum())
        if not total > 0:
            return float("nan")
        return float(self.joint(parts / np.sqrt(self.sizes * np.maximum(self.sizes - 1, 1))).sum()) / total**2


def _estimate(
    scores: np.ndarray,
    strata: _Strata,
    confidence: float,
    by_trial: tuple[float, float] | None = None,
    inflation: float = 1.0,
) -> Estimate:
    """Return the mean and its interval, not yet cut to the range that the scores can have."""
    value, scale = float(scores.sum(axis=1).mean()), float(np.abs(scores).sum(axis=1).max())
    variance, freedom, of_trials, of_luck = _variance(scores, strata, (_ROUNDING * scale) ** 2, by_trial)
    value = 0.0 if abs(value) <= _ROUNDING * scale else value
    error = float(np.sqrt(inflation * variance))
    half = error * float(stdtrit(freedom, (1 + confidence) / 2)) if error else 0.0
    return Estimate(value, value - half, value + half, error, freedom, of_trials, of_luck)


def _variance(
    scores: np.ndarray, strata: _Strata, rounding: float, known: tuple[float, float] | None
) -> tuple[float, float, float, float]:
    """Return V, ν, V_T and V_E of `interval`; V and ν are 0 and infinity where all scores are 0, NaN for one cluster.

    Parameters
    ----------
    scores : float64 [T, n]
    rounding : a variance up to this is 0
    known : V_T and its degrees of freedom; None: of these trials
    """
    trials = len(scores)
    if not scores.any():
        return 0.0, float("inf"), 0.0, 0.0
    if strata.clusters == 1:
        return float("nan"), float("nan"), 0.0, 0.0
    by_image, luck, of_images = strata.variances(scores)
    by_trial, trial_freedom = known if known is not None else (_between_trials(scores), float(trials - 1))
    by_trial = by_trial if by_trial > rounding else 0.0
    beyond_luck = by_image - luck
    variance = by_trial + (beyond_luck if beyond_luck > _ROUNDING * by_image else 0.0)
    if variance <= rounding:
        variance = luck
    if variance <= rounding:
        return (*strata.two_more(), 0.0, 0.0)
    share = (1 - by_trial / variance) ** (1 + 1 / trial_freedom) if by_trial else 1.0
    inverse = (1 - share) / trial_freedom if by_trial else 0.0
    if by_image > rounding:
        inverse += share * of_images
    return variance, 1 / inverse if inverse else float("inf"), by_trial, luck


def _between_trials(scores: np.ndarray) -> float:
    """Return V_T of scores [T, n], 0 for one trial."""
    return float(scores.sum(axis=1).var(ddof=1)) / len(scores) if len(scores) > 1 else 0.0


def _of_equal_images(estimate: Estimate, images: float, confidence: float) -> Estimate:
    """Return Wilson's interval for a method that is right, or wrong, on every image in every trial."""
    value = round(estimate.value)
    low, high = wilson_interval(value * images, images, confidence)
    return replace(estimate, value=float(value), low=low, high=high)
