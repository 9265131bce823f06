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
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtrit

from ltbench.benchmarks.analysis.metrics import frequency_groups
from ltbench.benchmarks.analysis.statistics.comparisons import LEVEL, Comparison, compared, detectable, dunnett, tukey
from ltbench.benchmarks.analysis.statistics.intervals import Estimate, class_interval, image_weights, interval

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
    lesion_images : images of a lesion, in one class
    lesion_correlation : share of an image's variance that is its lesion's
    patients : whether a lesion, then a patient, has images of every class
    unlike : standard deviation, between methods, of the logarithm by which a method's trial effects are larger
    """

    sizes: tuple[int, ...]
    trials: int
    trial_sd: float
    class_sd: float
    image_sd: float
    lesion_images: int = 1
    lesion_correlation: float = 0.0
    unlike: float = 0.0
    patients: bool = False

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], sorted."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def lesions(self) -> np.ndarray:
        """Lesion of each image, int64 [n]: neighbours of one class, and of patients the same of each class."""
        within = np.concatenate([np.arange(size) // self.lesion_images for size in self.sizes])
        return within if self.patients else self.labels * (max(self.sizes) + 1) + within

    @property
    def clusters(self) -> np.ndarray | None:
        """Lesion of each image, int64 [n]; None where each image is of another."""
        return self.lesions if self.patients or self.lesion_images > 1 else None

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
        truths = np.stack([self.expected(gain) for gain in gains])
        scale = np.exp(self.unlike * rng.standard_normal((len(gains), 1, 1)))
        shape = (len(gains), self.trials)
        trial = self.trial_sd * rng.standard_normal((*shape, 1))
        trial = scale * (trial + self.class_sd * rng.standard_normal((*shape, len(self.sizes))))
        means = self._base + np.asarray(gains)[:, None]
        if self.unlike:  # larger effects draw the expectation to 1/2
            means = _centres(truths, np.hypot(scale[:, 0] * self._trial_spread, self.image_sd))
        centre = trial + means[:, None]
        chance = self._chances(rng, centre)
        scores = self.shares * (rng.random(chance.shape, dtype=np.float32) < chance)
        return scores, _expected(centre, self.image_sd)[:, 0] if self.trials == 1 else truths

    def expected(self, gain: float) -> np.ndarray:
        """Return the true accuracy of each class, of a method that is better by `gain` logits, float64 [K]."""
        return _expected(self._base + gain, np.hypot(self._trial_spread, self.image_sd))

    def gain(self, difference: float) -> float:
        """Return the gain in logits by which the true mean accuracy is higher by a difference."""
        goal = self.expected(0.0).mean() + difference
        return float(brentq(lambda gain: self.expected(gain).mean() - goal, 0.0, 20.0))

    @property
    def _base(self) -> np.ndarray:
        return logit(np.linspace(0.9, 0.3, len(self.sizes)))

    @property
    def _trial_spread(self) -> float:
        return float(np.hypot(self.trial_sd, self.class_sd))

    def _chances(self, rng: np.random.Generator, centre: np.ndarray) -> np.ndarray:
        """Return the probability that an image is right, float32 [m, T, n], from the class's logits [m, T, K]."""
        centre = centre.astype(np.float32)
        if not self.image_sd:
            return expit(centre)[..., self.labels]
        image = rng.standard_normal(len(self.labels)) * np.sqrt(1 - self.lesion_correlation)
        if self.lesion_correlation:
            _, members = np.unique(self.lesions, return_inverse=True)
            image = image + rng.standard_normal(members.max() + 1)[members] * np.sqrt(self.lesion_correlation)
        return expit(centre[..., self.labels] + (self.image_sd * image).astype(np.float32))


def interval_rates(regime: Regime, replicates: int, seed: int) -> dict[str, float]:
    """Return how often intervals of means, of a difference and of each class hold the truth, in percent.

    `rejections` are of two equal methods at 5 %, in a table of these two; `over trials` is Student's t over
    the trials' means, which takes the images as given, `by image` is ours with the lesions unknown; NaN where there is
    none. `classes` is the mean over the classes whose accuracy has an interval.

    Parameters
    ----------
    replicates : data sets drawn
    seed : of all draws
    """
    rng = np.random.default_rng(seed)
    labels, clusters = regime.labels, regime.clusters
    counted: list[dict[str, float]] = []
    for _ in range(replicates):
        both, truths = regime.draw(rng, (0.0, 0.0))
        own, truth = both[1], truths[1]
        difference = compared(both, 1, labels, dunnett, clusters=clusters)[0]
        counted.append(
            {
                "mean": _holds(interval(own, labels, clusters=clusters), truth.mean()),
                "by image": _holds(interval(own, labels), truth.mean()) if clusters is not None else np.nan,
                "over trials": _holds(_over_trials(own), truth.mean()),
                "difference": _holds((difference.low, difference.high), float(np.diff(truths[::-1].mean(axis=1))[0])),
                **_groups_hold(regime, own, truth, clusters),
                **_classes_hold(regime, own, truth, clusters),
                "rejections": float(difference.p_value < LEVEL) if difference.p_value >= 0 else np.nan,
            }
        )
    return _percentages(counted)


def _groups_hold(
    regime: Regime, scores: np.ndarray, truth: np.ndarray, clusters: np.ndarray | None
) -> dict[str, float]:
    """Return whether the interval of the mean over head, medium and tail classes holds the truth."""
    found = {}
    for name, members in frequency_groups(regime.sizes).items():
        own = np.isin(regime.labels, members)
        scale = len(regime.sizes) / len(members)
        estimate = interval(
            scores[:, own] * scale, regime.labels[own], clusters=None if clusters is None else clusters[own]
        )
        found[name] = _holds(estimate, truth[list(members)].mean())
    return found


def _classes_hold(
    regime: Regime, scores: np.ndarray, truth: np.ndarray, clusters: np.ndarray | None
) -> dict[str, float]:
    """Return in which share of the classes the interval holds the truth, and whether in the smallest class."""
    found = []
    for label, accuracy in enumerate(truth):
        own = regime.labels == label
        estimate = class_interval(scores[:, own] > 0, None if clusters is None else clusters[own])
        found.append(_holds(estimate, accuracy))
    known = [each for each in found if not np.isnan(each)]
    return {
        "classes": float(np.mean(known)) if known else np.nan,
        "smallest class": found[int(np.argmin(regime.sizes))],
    }


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
        baseline = compared(scores, 0, regime.labels, dunnett, clusters=regime.clusters)
        best = compared(scores, int(means.argmax()), regime.labels, tukey, clusters=regime.clusters)
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


def power(regime: Regime, difference: float, replicates: int, seed: int, rows: int = ROWS) -> float:
    """Return how often a row that is better than all others, which are equal, is told from the baseline, in percent.

    Parameters
    ----------
    difference : of the true mean accuracies, above 0
    replicates, seed, rows : as for `leaderboard_rates`
    """
    rng = np.random.default_rng(seed)
    gains = (0.0, regime.gain(difference), *(0.0,) * (rows - 2))
    found = []
    for _ in range(replicates):
        scores, _ = regime.draw(rng, gains)
        made = compared(scores, 0, regime.labels, dunnett, clusters=regime.clusters)
        found.append(made[1].p_value < LEVEL)
    return 100 * float(np.mean(found))


def found_if_detectable(regime: Regime, replicates: int, seed: int) -> dict[str, float]:
    """Return the difference to the baseline that tables call detectable, in points, and how often it is found.

    Parameters
    ----------
    replicates, seed : as for `leaderboard_rates`; half as many leaderboards tell what is detectable
    """
    stated = leaderboard_rates(regime, max(replicates // 2, 1), seed)["detectable, baseline"]
    return {"detectable": stated, "found": power(regime, stated / 100, replicates, seed)}


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


def _expected(centre: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """Return the mean of the logistic function over normal distributions, by Gauss-Hermite quadrature."""
    nodes, weights = _quadrature()
    return expit(centre[..., None] + np.asarray(spread)[..., None] * nodes) @ weights


def _centres(means: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the centres of normal distributions over which the logistic function has given means [m, K]."""
    found = logit(means)
    for _ in range(20):
        found = found + logit(means) - logit(_expected(found, spread))
    return found


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return nodes, weights / weights.sum()
