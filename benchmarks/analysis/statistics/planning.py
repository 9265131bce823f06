"""How much more data a question takes: test images and trials that tell two rows apart, test images of a class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from ltbench.benchmarks.analysis.statistics.comparisons import Adjustment, Comparison, detectable_by


@dataclass(frozen=True)
class Growth:
    """By how much one thing alone must grow for a question to be answered; infinite where it alone cannot do it.

    Attributes
    ----------
    images, trials : multiples of what there is, NaN where that is not known
    """

    images: float
    trials: float


def growth(comparison: Comparison, rows: int, adjusted: Adjustment, trials: int) -> Growth:
    """Return what would show the difference of a comparison in 80 % of cases, were it the true one.

    The least difference that is seen so often is proportional to the standard error, √V, if degrees of freedom stay as
    they are. Of V (see `interval`), V_T shrinks with the number of trials, and all but V_T - V_E, what trials differ
    beyond luck, with the number of test images.

    Parameters
    ----------
    rows : of the table, for which the comparison is adjusted
    adjusted : `dunnett` or `tukey`, as it was made
    trials : of each row; one says nothing of others
    """
    if not comparison.standard_error > 0:
        return Growth(math.nan, math.nan)
    least = detectable_by(comparison.standard_error, comparison.freedom, rows, adjusted)
    variance = comparison.standard_error**2
    wanted = variance * (comparison.delta / least) ** 2
    beyond_luck = min(max(comparison.trial_variance - comparison.luck_variance, 0.0), variance)
    by_images = _multiple(variance - beyond_luck, beyond_luck, wanted)
    by_trials = _multiple(comparison.trial_variance, variance - comparison.trial_variance, wanted)
    return Growth(by_images, by_trials if trials > 1 else math.nan)


def images_for_recall(recall: float, images: float, half_width: float, confidence: float = 0.95) -> int:
    """Return the test images of a class that give its recall a Wilson interval of a half-width.

    The recall of few images may be 0 or 1 by chance, so the centre of their own Wilson interval is taken for it.

    Parameters
    ----------
    recall, images : what there is: the share of so many images that is right
    half_width : in (0, 1/2)
    """
    z = float(ndtri((1 + confidence) / 2))
    centre = (recall * images + z**2 / 2) / (images + z**2)
    spread, square = centre * (1 - centre), half_width**2
    root = math.sqrt(spread**2 - 4 * spread * square + square)
    return math.ceil(z**2 / (2 * square) * (spread - 2 * square + root))


def _multiple(shrinks: float, stays: float, wanted: float) -> float:
    """Return f of shrinks / f + stays = wanted, infinite where that cannot be."""
    return shrinks / (wanted - stays) if wanted > stays else math.inf
