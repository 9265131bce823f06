"""Many rows against one, and against the best of them: p-values and detectable differences for all rows at once.

A table asks many questions, and the best row was chosen by looking. Both are allowed for: a difference to the baseline
is adjusted as by Dunnett (1955), one to the best row as by Tukey's studentized range, which holds for any pair of rows
and therefore also for the best and any other, whichever turns out to be the best (Hsu, Multiple Comparisons, 1996,
chapters 4 and 5). `ltbench coverage` shows by simulation how often equal methods are told from each other by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, nctdtrinc, ndtr, ndtri

from ltbench.benchmarks.analysis.statistics.intervals import Estimate, paired_differences
from ltbench.benchmarks.analysis.statistics.trial_variance import TrialVariance

LEVEL = 0.05
"""Family-wise error of all comparisons of a table with one reference."""
POWER = 0.8
"""With which a detectable difference would have been found."""

Adjustment = Callable[[np.ndarray, int, np.ndarray], np.ndarray]
"""From statistics [k], a number of rows and degrees of freedom [k] to adjusted p-values [k]."""

_GRID = np.linspace(-8.0, 8.0, 65)
_DENSITY = np.exp(-(_GRID**2) / 2) / np.sqrt(2 * np.pi) * (_GRID[1] - _GRID[0])
"""The trapezoidal rule for an integral over the standard normal distribution."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LEVELS, _LEVEL_WEIGHTS = (1 - _NODES) / 2, _WEIGHTS / 2
_NORMAL = 1e5  # degrees of freedom above which the standard error is as good as known
_NOTHING = float("nan")
_FEWEST = 3  # degrees of freedom of the trials' variance, with which two trials can be tested


@dataclass(frozen=True)
class Comparison:
    """A row against a reference, over the same trials and on the same test images.

    Attributes
    ----------
    delta, low, high : difference with its 95 % interval, for itself alone
    p_value : two-sided, adjusted for all rows that were compared; NaN for the reference itself and where there are too
        few trials to test
    standard_error, freedom : of the difference, and its degrees of freedom; NaN where unknown
    reference : whether the row is the reference
    trial_variance, luck_variance : of the difference, as `Estimate` has them
    """

    delta: float
    low: float
    high: float
    p_value: float
    standard_error: float = _NOTHING
    freedom: float = _NOTHING
    reference: bool = False
    trial_variance: float = 0.0
    luck_variance: float = 0.0

    @property
    def open(self) -> bool:
        """Whether the comparison was made and leaves it open which of the two is better."""
        return self.p_value >= LEVEL

    @property
    def untested(self) -> bool:
        """Whether there is a difference, of too few trials for an interval or a test of it."""
        return not (self.reference or math.isnan(self.delta)) and math.isnan(self.low)


UNKNOWN = Comparison(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
REFERENCE = Comparison(0.0, _NOTHING, _NOTHING, _NOTHING, reference=True)


def compared(
    scores: np.ndarray,
    reference: int,
    labels: np.ndarray,
    adjusted: Adjustment,
    class_weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    tested: np.ndarray | None = None,
    inflation: float = 1.0,
) -> list[Comparison]:
    """Return the differences of rows to one of them, with p-values that allow for all of them.

    Parameters
    ----------
    scores : float [M, T, n], as for `paired_differences`
    reference : index of the row in 0 ... M - 1
    labels, class_weights, clusters, tested, inflation : as for `paired_differences`
    adjusted : `dunnett` where the reference was named before the results were seen, `tukey` where it is the best row
    """
    rows, trials, _ = scores.shape
    if rows == 1:
        return [REFERENCE]
    by_trial = None
    if trials > 1:
        varied = TrialVariance.of(scores.sum(axis=2))
        by_trial = [varied.of_difference(row, reference) for row in range(rows)]
    estimates = paired_differences(
        scores,
        reference,
        labels,
        class_weights=class_weights,
        clusters=clusters,
        by_trial=by_trial,
        tested=tested,
        inflation=inflation,
    )
    enough = trials != 2 or (rows - 1) * (trials - 1) >= _FEWEST
    p_values = _p_values(estimates, rows, adjusted)
    found = [
        _comparison(each, p) if enough else replace(UNKNOWN, delta=each.value)
        for each, p in zip(estimates, p_values.tolist(), strict=True)
    ]
    found[reference] = REFERENCE
    return found


def _comparison(estimate: Estimate, p_value: float) -> Comparison:
    return Comparison(
        *(estimate.value, estimate.low, estimate.high, p_value),
        *(estimate.standard_error, estimate.degrees_of_freedom),
        trial_variance=estimate.trial_variance,
        luck_variance=estimate.luck_variance,
    )


def dunnett(statistic: np.ndarray, rows: int, freedom: np.ndarray) -> np.ndarray:
    """Return the probability that the largest |t| of `rows` - 1 rows against a reference of their kind exceeds a value.

    All have the same variance, so that the differences correlate by 1/2 (Dunnett, JASA 50, 1955, eq. 3).

    Parameters
    ----------
    statistic : |difference| / its standard error, float64 [k]
    rows : with the reference
    freedom : degrees of freedom of the standard error, float64 [k]
    """
    reach = _reach(statistic, freedom)
    return _outside((ndtr(_GRID + reach) - ndtr(_GRID - reach)) ** (rows - 1))


def tukey(statistic: np.ndarray, rows: int, freedom: np.ndarray) -> np.ndarray:
    """Return the probability that the largest |t| among all pairs of `rows` rows exceeds a value.

    Parameters
    ----------
    statistic, rows, freedom : as for `dunnett`
    """
    return _outside(rows * (ndtr(_GRID + _reach(statistic, freedom)) - ndtr(_GRID)) ** (rows - 1))


def best_of_chance(rows: int) -> float:
    """Return the expected largest of `rows` independent standard normal numbers."""
    return float(_DENSITY @ (rows * _GRID * ndtr(_GRID) ** (rows - 1)))


def detectable(comparisons: Sequence[Comparison], adjusted: Adjustment) -> float:
    """Return the true difference that a typical one of some comparisons would have found with the probability `POWER`.

    Parameters
    ----------
    comparisons : as `compared` returned them
    adjusted : `dunnett` or `tukey`, as they were made
    """
    made = [each for each in comparisons if each.standard_error > 0]
    if not made:
        return _NOTHING
    error = float(np.median([each.standard_error for each in made]))
    freedom = float(np.median([each.freedom for each in made]))
    rows = 1 + sum(not each.reference for each in comparisons)
    return detectable_by(error, freedom, rows, adjusted)


def detectable_by(error: float, freedom: float, rows: int, adjusted: Adjustment) -> float:
    """Return the true difference that a comparison among `rows` rows finds with the probability `POWER`.

    Parameters
    ----------
    error, freedom : standard error of the difference, above 0, and its degrees of freedom
    adjusted : `dunnett` or `tukey`
    """

    def excess(statistic: float) -> float:
        return float(adjusted(np.array([statistic]), rows, np.array([freedom]))[0]) - LEVEL

    critical = brentq(excess, 0.5, 1000.0, xtol=1e-3)
    if freedom >= _NORMAL:
        return float(critical + ndtri(POWER)) * error
    known = error / np.sqrt(chdtri(freedom, 0.5) / freedom)  # few degrees of freedom mostly give less than is true
    return float(nctdtrinc(freedom, 1 - POWER, critical) * known)


def _p_values(estimates: Sequence[Estimate], rows: int, adjusted: Adjustment) -> np.ndarray:
    """Return the adjusted p-value of each difference, NaN where its standard error is unknown, float64 [M]."""
    value, error, freedom = np.array([(e.value, e.standard_error, e.degrees_of_freedom) for e in estimates]).T
    found, known = np.where(error == 0, value == 0, _NOTHING), error > 0
    found[known] = adjusted(np.abs(value[known]) / error[known], rows, freedom[known])
    return found


def _reach(statistic: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return √2 times the statistic at the levels of the standard error's distribution, float64 [k, 32, 1]."""
    known = np.minimum(freedom, _NORMAL)[:, None]
    return np.sqrt(2 * chdtri(known, _LEVELS) / known)[:, :, None] * statistic[:, None, None]


def _outside(inside: np.ndarray) -> np.ndarray:
    """Return 1 - the mean, over both distributions, of probabilities given them, [k, 32, 65] to [k]."""
    return np.clip(1 - inside @ _DENSITY @ _LEVEL_WEIGHTS, 0.0, 1.0)
