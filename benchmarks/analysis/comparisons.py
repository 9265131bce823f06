"""Many rows against one, and against the best of them: p-values and detectable differences for all rows at once.

A table asks many questions, and the best row was chosen by looking. Both are allowed for: a difference to the baseline
is adjusted as by Dunnett (1955), one to the best row as by Tukey's studentized range, which holds for any pair of rows
and therefore also for the best and any other, whichever turns out to be the best (Hsu, Multiple Comparisons, 1996,
chapters 4 and 5). `ltbench coverage` shows by simulation how often equal methods are told from each other by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, stdtrit

from ltbench.benchmarks.analysis.intervals import Estimate, PooledVariance, paired_difference

LEVEL = 0.05
"""Family-wise error of all comparisons of a table with one reference."""
POWER = 0.8
"""With which a detectable difference would have been found."""

Adjustment = Callable[[float, int, float], float]
"""From a statistic, a number of rows and degrees of freedom to an adjusted p-value."""

_GRID = np.linspace(-8.0, 8.0, 257)
_DENSITY = np.exp(-(_GRID**2) / 2) / np.sqrt(2 * np.pi) * (_GRID[1] - _GRID[0])
"""The trapezoidal rule for an integral over the standard normal distribution."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
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
    """

    delta: float
    low: float
    high: float
    p_value: float
    standard_error: float = _NOTHING
    freedom: float = _NOTHING
    reference: bool = False

    @property
    def open(self) -> bool:
        """Whether the comparison was made and leaves it open which of the two is better."""
        return self.p_value >= LEVEL


UNKNOWN = Comparison(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
REFERENCE = Comparison(0.0, _NOTHING, _NOTHING, _NOTHING, reference=True)


def with_one(
    scores: np.ndarray,
    reference: int,
    labels: np.ndarray,
    class_weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    tested: np.ndarray | None = None,
) -> list[Comparison]:
    """Return the differences of rows to one of them that was named before the results were seen: Dunnett's test.

    Parameters
    ----------
    scores : float [M, T, n], as for `paired_difference`
    reference : index of the row in 0 ... M - 1
    labels, class_weights, clusters, tested : as for `paired_difference`
    """
    return _compared(scores, reference, labels, class_weights, clusters, tested, dunnett)


def with_best(
    scores: np.ndarray,
    best: int,
    labels: np.ndarray,
    class_weights: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    tested: np.ndarray | None = None,
) -> list[Comparison]:
    """Return the differences of rows to the one that has the highest mean, by the studentized range of all rows.

    Parameters
    ----------
    scores : float [M, T, n], as for `paired_difference`
    best : index of that row
    labels, class_weights, clusters, tested : as for `paired_difference`
    """
    return _compared(scores, best, labels, class_weights, clusters, tested, tukey)


def dunnett(statistic: float, rows: int, freedom: float) -> float:
    """Return the probability that the largest |t| of `rows` - 1 rows against a reference of their kind exceeds a value.

    All have the same variance, so that the differences correlate by 1/2 (Dunnett, JASA 50, 1955, eq. 3).

    Parameters
    ----------
    statistic : |difference| / its standard error
    rows : with the reference
    freedom : degrees of freedom of the standard error
    """
    reach = np.sqrt(2) * statistic * _scales(freedom)
    inside = (ndtr(_GRID[:, None] + reach) - ndtr(_GRID[:, None] - reach)) ** (rows - 1)
    return _outside(_DENSITY @ inside)


def tukey(statistic: float, rows: int, freedom: float) -> float:
    """Return the probability that the largest |t| among all pairs of `rows` rows exceeds a value.

    Parameters
    ----------
    statistic, rows, freedom : as for `dunnett`
    """
    width = np.sqrt(2) * statistic * _scales(freedom)
    inside = rows * (ndtr(_GRID[:, None] + width) - ndtr(_GRID[:, None])) ** (rows - 1)
    return _outside(_DENSITY @ inside)


def best_of_chance(rows: int) -> float:
    """Return the expected largest of `rows` independent standard normal numbers."""
    return float(_DENSITY @ (rows * _GRID * ndtr(_GRID) ** (rows - 1)))


def _compared(
    scores: np.ndarray,
    reference: int,
    labels: np.ndarray,
    class_weights: np.ndarray | None,
    clusters: np.ndarray | None,
    tested: np.ndarray | None,
    adjusted: Adjustment,
) -> list[Comparison]:
    rows, trials, _ = scores.shape
    if rows == 1:
        return [REFERENCE]
    pooled = PooledVariance.of(scores.sum(axis=2)) if trials > 1 else None
    enough = trials != 2 or (rows - 1) * (trials - 1) >= _FEWEST
    found = []
    for index, own in enumerate(scores):
        if index == reference:
            found.append(REFERENCE)
            continue
        estimate, _ = paired_difference(own, scores[reference], labels, 0.95, class_weights, clusters, pooled, tested)
        found.append(_comparison(estimate, rows, adjusted) if enough else replace(UNKNOWN, delta=estimate.value))
    return found


def _comparison(estimate: Estimate, rows: int, adjusted: Adjustment) -> Comparison:
    value, error, freedom = estimate.value, estimate.standard_error, estimate.degrees_of_freedom
    if error > 0:
        return Comparison(
            value, estimate.low, estimate.high, adjusted(abs(value) / error, rows, freedom), error, freedom
        )
    return Comparison(value, estimate.low, estimate.high, float(value == 0) if error == 0 else _NOTHING)


def detectable(comparisons: Sequence[Comparison], adjusted: Adjustment) -> float:
    """Return the true difference that a typical one of some comparisons would have found with the probability `POWER`.

    Parameters
    ----------
    comparisons : as `with_one` or `with_best` returned them
    adjusted : `dunnett` or `tukey`, as they were made
    """
    made = [each for each in comparisons if each.standard_error > 0]
    if not made:
        return _NOTHING
    error = float(np.median([each.standard_error for each in made]))
    freedom = float(np.median([each.freedom for each in made]))
    rows = 1 + sum(not each.reference for each in comparisons)
    critical = brentq(lambda statistic: adjusted(statistic, rows, freedom) - LEVEL, 0.5, 1000.0, xtol=1e-3)
    return float(critical + stdtrit(freedom, POWER)) * error


def _scales(freedom: float) -> np.ndarray:
    """Return √(χ²_ν / ν) at the levels of `_outside`, float64 [64]."""
    return np.sqrt(chdtri(freedom, _LEVELS) / freedom) if freedom < _NORMAL else np.ones_like(_LEVELS)


def _outside(inside: np.ndarray) -> float:
    """Return 1 - the mean over the standard error's distribution of probabilities given it, float64 [64]."""
    return float(np.clip(1 - _LEVEL_WEIGHTS @ inside, 0.0, 1.0))
