"""A simulation of what error bars and comparisons promise: how often they hold the truth, or see what is not there.

The truth is known: right or wrong is drawn with a probability of the class, moved on the logit scale by normal effects
of the trial, of the trial in the class, of the lesion and of the image. It is the expectation over new trials and new
images; for one trial the expectation over new images, of that trial. Two networks of equally good methods do differ, so
the rejections of one trial are errors only where trials have no effect: elsewhere they show why one trial does not
compare methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import expit, logit, stdtrit

from ltbench.benchmarks.analysis.comparisons import (
    LEVEL,
    Comparison,
    detectable,
    dunnett,
    tukey,
    with_best,
    with_one,
)
from ltbench.benchmarks.analysis.intervals import Estimate, image_weights, interval

SIZES = {
    "8 x 100": (100,) * 8,
    "8 x 30": (30,) * 8,
    "8 x 10": (10,) * 8,
    "14: 2575 to 3": (2575, 1531, 911, 542, 322, 192, 114, 68, 40, 24, 14, 8, 5, 3),
}
TRIAL_EFFECTS = {"none": (0.0, 0.0), "usual": (0.1, 0.3), "strong": (0.5, 0.5)}
IMAGE_EFFECTS = {"none": 0.0, "usual": 1.5, "strong": 3.0}
EFFECTS = (("none", "none"), ("none", "strong"), ("usual", "usual"), ("strong", "usual"), ("strong", "strong"))
ROWS = 17
"""Methods of a leaderboard."""


@dataclass(frozen=True)
class Regime:
    """Where outcomes come from.

    Attributes
    ----------
    sizes : test images of each class
    trials : number of trials
    trial_sd, class_sd, image_sd : standard deviations, in logits, of a trial, of a trial in one class, of an image
    lesion_images : images of a lesion
    lesion_correlation : share of an image's variance that is its lesion's
    """

    sizes: tuple[int, ...]
    trials: int
    trial_sd: float
    class_sd: float
    image_sd: float
    lesion_images: int = 1
    lesion_correlation: float = 0.0

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], sorted."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def lesions(self) -> np.ndarray:
        """Lesion of each image, int64 [n]: neighbours of one class."""
        within = np.concatenate([np.arange(size) // self.lesion_images for size in self.sizes])
        return self.labels * (max(self.sizes) + 1) + within

    @property
    def shares(self) -> np.ndarray:
        """float64 [n], 1 / (K n_c)."""
        return image_weights(self.labels)

    def draw(self, rng: np.random.Generator, gains: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of methods on the same images, float64 [m, T, n], and their true class accuracies [m, K].

        Parameters
        ----------
        rng : draws all effects; trial effects are each method's own, image effects are shared
        gains : logits [m] by which a method is better in every class; 0 is .9 to .3 from the first class to the last
        """
        shape = (len(gains), self.trials)
        base = logit(np.linspace(0.9, 0.3, len(self.sizes))) + np.asarray(gains)[:, None, None]
        trial = self.trial_sd * rng.standard_normal((*shape, 1))
        trial = trial + self.class_sd * rng.standard_normal((*shape, len(self.sizes)))
        image = rng.standard_normal(len(self.labels)) * np.sqrt(1 - self.lesion_correlation)
        if self.lesion_correlation:
            _, members = np.unique(self.lesions, return_inverse=True)
            image = image + rng.standard_normal(members.max() + 1)[members] * np.sqrt(self.lesion_correlation)
        chance = expit((base + trial)[..., self.labels] + self.image_sd * image)
        scores = self.shares * (rng.random(chance.shape) < chance)
        if self.trials == 1:
            return scores, _expected(base + trial, self.image_sd)[:, 0]
        return scores, _expected(base, np.hypot(np.hypot(self.trial_sd, self.class_sd), self.image_sd))[:, 0]


def interval_rates(regime: Regime, replicates: int, seed: int) -> dict[str, float]:
    """Return how often intervals of a mean, of a difference and of each class hold the truth, in percent.

    `rejections` are of two equal methods at 5 %, in a table of these two; `over trials` is Student's t over
    the trials' means, which takes the images as given, `by image` is ours with the lesions unknown; NaN where there is
    none.

    Parameters
    ----------
    replicates : data sets drawn
    seed : of all draws
    """
    rng = np.random.default_rng(seed)
    labels, several = regime.labels, regime.lesion_images > 1
    clusters = regime.lesions if several else None
    smallest = int(np.argmin(regime.sizes))
    counted: list[dict[str, float]] = []
    for _ in range(replicates):
        (first, second), truths = regime.draw(rng, (0.0, 0.0))
        truth, true_difference = truths[1].mean(), truths[0].mean() - truths[1].mean()
        estimate = interval(second, labels, clusters=clusters)
        compared = with_one(np.stack([first, second]), 1, labels, clusters=clusters)[0]
        own = labels == smallest
        of_class = interval(
            second[:, own] * len(regime.sizes), labels[own], clusters=None if clusters is None else clusters[own]
        )
        counted.append(
            {
                "mean": _holds(estimate, truth),
                "by image": _holds(interval(second, labels), truth) if several else np.nan,
                "over trials": _holds(_over_trials(second), truth),
                "difference": _holds((compared.low, compared.high), true_difference),
                "smallest class": _holds(of_class, truths[1][smallest]),
                "rejections": float(compared.p_value < LEVEL) if compared.p_value >= 0 else np.nan,
            }
        )
    return _percentages(counted)


def leaderboard_rates(regime: Regime, replicates: int, seed: int, rows: int = ROWS) -> dict[str, float]:
    """Return, of leaderboards of equally good methods, how often some row is told from the baseline and from the best.

    Both in percent; and in points the differences to both that would have been seen in 80 % of cases, as tables state
    them, and by how much the best row is too high.

    Parameters
    ----------
    replicates : leaderboards drawn
    seed : of all draws
    rows : methods of each; the first is the baseline
    """
    rng = np.random.default_rng(seed)
    counted: list[dict[str, float]] = []
    for _ in range(replicates):
        scores, truths = regime.draw(rng, (0.0,) * rows)
        means = scores.sum(axis=2).mean(axis=1)
        baseline = with_one(scores, 0, regime.labels)
        best = with_best(scores, int(means.argmax()), regime.labels)
        counted.append(
            {
                "wrong, baseline": _some_differ(baseline),
                "wrong, best": _some_differ(best),
                "detectable, baseline": detectable(baseline, dunnett),
                "detectable, best": detectable(best, tukey),
                "best too high": float(means.max() - truths[0].mean()),
            }
        )
    return _percentages(counted)


def power(regime: Regime, gain: float, replicates: int, seed: int, rows: int = ROWS) -> tuple[float, float]:
    """Return how often a row that is better by `gain` logits is told from the baseline, and by how much it is better.

    Parameters
    ----------
    gain : of one method over all others, which are equal
    replicates, seed, rows : as for `leaderboard_rates`
    """
    rng = np.random.default_rng(seed)
    found, difference = [], 0.0
    for _ in range(replicates):
        scores, truths = regime.draw(rng, (0.0, gain, *(0.0,) * (rows - 2)))
        difference = float(truths[1].mean() - truths[0].mean())
        found.append(with_one(scores, 0, regime.labels)[1].p_value < LEVEL)
    return float(np.mean(found)), difference


def _some_differ(comparisons: Iterable[Comparison]) -> float:
    return float(any(each.p_value < LEVEL for each in comparisons))


def _percentages(counted: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: 100 * float(np.mean([each[name] for each in counted])) for name in counted[0]}


def _over_trials(scores: np.ndarray) -> tuple[float, float]:
    """Return the ends of Student's t over trials at 95 %, NaN for one trial."""
    trials, sums = len(scores), scores.sum(axis=1)
    if trials == 1:
        return float("nan"), float("nan")
    half = stdtrit(trials - 1, 0.975) * sums.std(ddof=1) / np.sqrt(trials)
    return float(sums.mean() - half), float(sums.mean() + half)


def _holds(ends: Estimate | tuple[float, float], truth: float) -> float:
    low, high = (ends.low, ends.high) if isinstance(ends, Estimate) else ends
    return float("nan") if np.isnan(low) else float(low <= truth <= high)


def _expected(centre: np.ndarray, spread: float | np.floating) -> np.ndarray:
    """Return the mean of the logistic function over a normal distribution, by Gauss-Hermite quadrature."""
    nodes, weights = _quadrature()
    return expit(np.asarray(centre)[..., None] + spread * nodes) @ weights


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return nodes, weights / weights.sum()
