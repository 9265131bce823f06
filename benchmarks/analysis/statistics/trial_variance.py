"""How much trials differ, estimated from all rows of a table together: for comparisons of few trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import polygamma

_USUAL = 1.0  # variance, and its standard error, of the logarithm of the variance between trials, from row to row
_LEAST = 1e-6  # share of the mean variance that a row's is taken to have at least, for its logarithm


@dataclass(frozen=True)
class TrialVariance:
    """What the rows of a table together say of how much trials of each differ, for the difference of any two.

    Two or three trials say little of a variance: it is small by chance in one of many comparisons, which then looks
    significant. So the variance of each row is drawn towards the mean of all rows, the more the more alike the rows
    are: the moderated variance of Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3
    (2004), eq. (4). A trial of one row is taken to vary independently of that of another, but for what all rows share.

    How unlike the rows are, few trials hardly show either: neither alike nor unlike is certain. What their variances
    show is therefore averaged with what is usual, standard deviations that differ by a factor of exp(±1/2).

    Attributes
    ----------
    variances : of a trial's score, of each row, float64 [M]
    freedom : degrees of freedom of each, infinite where it is the mean of all rows
    trials : T
    """

    variances: np.ndarray
    freedom: float
    trials: int

    @classmethod
    def of(cls, sums: np.ndarray) -> TrialVariance:
        """Return what the rows of a table say.

        Parameters
        ----------
        sums : float [M, T], each row's score in each trial, M and T at least 2
        """
        rows, trials = sums.shape
        left = sums - sums.mean(axis=1, keepdims=True) - sums.mean(axis=0) + sums.mean()
        own = (left**2).sum(axis=1) * rows / ((rows - 1) * (trials - 1))
        common = float(own.mean())
        if rows == 2 or not common:
            return cls(np.full(rows, common), float("inf"), trials)
        prior = _prior_freedom(np.maximum(own / common, _LEAST), trials - 1)
        share = 1 / (1 + (trials - 1) / prior)
        return cls(share * common + (1 - share) * own, prior + trials - 1, trials)

    def of_difference(self, first: int, second: int) -> tuple[float, float]:
        """Return the variance of the mean difference of two rows over trials, and its degrees of freedom."""
        ours, theirs = float(self.variances[first]), float(self.variances[second])
        most = float((len(self.variances) - 1) * (self.trials - 1))
        if not ours + theirs:
            return 0.0, most
        freedom = self.freedom * (ours + theirs) ** 2 / (ours**2 + theirs**2)
        return (ours + theirs) / self.trials, min(freedom, most)


def _prior_freedom(ratios: np.ndarray, freedom: int) -> float:
    """Return the degrees of freedom of the common variance, infinite where rows are alike (Smyth 2004, section 6.2).

    The logarithms of rows' variances vary by trigamma(ν / 2) by chance; what is more, they vary indeed. That is
    averaged with `_USUAL`, each weighted by the inverse of its variance.

    Parameters
    ----------
    ratios : float64 [M], variance of each row over the mean of all
    freedom : ν of each
    """
    rows, by_chance = len(ratios), float(polygamma(1, freedom / 2))
    unlike = float(np.log(ratios).var(ddof=1)) - by_chance
    error = 2 * by_chance**2 / (rows - 1) + float(polygamma(3, freedom / 2)) / rows
    unlike = (unlike * _USUAL**2 + _USUAL * error) / (_USUAL**2 + error)
    return 2 * _inverse_trigamma(unlike) if unlike > 0 else float("inf")


def _inverse_trigamma(value: float) -> float:
    """Return x > 0 with trigamma(x) = value, by Newton's method on the reciprocal (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x
