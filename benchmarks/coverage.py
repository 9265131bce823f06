"""Simulate how often the intervals hold the truth, and how often the paired test sees what is not there.

    ltbench coverage --replicates 1000

Beside the intervals of `comparison.py` stand the percentile bootstrap over trials and images, which draws both with
replacement, images within their class, and Student's t over the trials' means alone, which takes the images as given.
The truth is known: right or wrong is drawn with a probability of the class, moved on the logit scale by normal effects
of the trial, of the trial in the class, and of the image. It is the expectation over new trials and new images; for one
trial the expectation over new images, of that trial. Two networks of equally good methods do differ, so the rejections
of one trial are errors only where trials have no effect: elsewhere they show why one trial does not compare methods.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import expit, logit, stdtrit

from ltbench.benchmarks.analysis.intervals import image_weights, interval, paired_difference
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script

SIZES = {
    "8 x 100": (100,) * 8,
    "8 x 30": (30,) * 8,
    "8 x 10": (10,) * 8,
    "14: 2575 to 3": (2575, 1531, 911, 542, 322, 192, 114, 68, 40, 24, 14, 8, 5, 3),
}
TRIALS = (1, 2, 3, 5, 10)
TRIAL_EFFECTS = {"none": (0.0, 0.0), "usual": (0.1, 0.3), "strong": (0.5, 0.5)}
IMAGE_EFFECTS = {"none": 0.0, "usual": 1.5, "strong": 3.0}
EFFECTS = (("none", "none"), ("none", "strong"), ("usual", "usual"), ("strong", "usual"), ("strong", "strong"))
_LEVEL = 0.05
_RESAMPLES = 400


@dataclass(frozen=True)
class Regime:
    """Where outcomes come from.

    Attributes
    ----------
    sizes : test images of each class
    trials : number of trials
    trial_sd, class_sd, image_sd : standard deviations, in logits, of a trial, of a trial in one class, of an image
    """

    sizes: tuple[int, ...]
    trials: int
    trial_sd: float
    class_sd: float
    image_sd: float

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], sorted."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def shares(self) -> np.ndarray:
        """float64 [n], 1 / (K n_c)."""
        return image_weights(self.labels)

    def draw(self, rng: np.random.Generator, gains: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of methods on the same images, float64 [m, T, n], and their true mean class accuracies [m].

        Parameters
        ----------
        rng : draws all effects; trial effects are each method's own, image effects are shared
        gains : logits [m] by which a method is better in every class; 0 is .9 to .3 from the first class to the last
        """
        shape = (len(gains), self.trials)
        base = logit(np.linspace(0.9, 0.3, len(self.sizes))) + np.asarray(gains)[:, None, None]
        trial = self.trial_sd * rng.standard_normal((*shape, 1))
        trial = trial + self.class_sd * rng.standard_normal((*shape, len(self.sizes)))
        image = self.image_sd * rng.standard_normal(len(self.labels))
        chance = expit((base + trial)[..., self.labels] + image)
        scores = self.shares * (rng.random(chance.shape) < chance)
        if self.trials == 1:
            return scores, _expected(base + trial, self.image_sd).mean(axis=(1, 2))
        return scores, _expected(base, np.hypot(np.hypot(self.trial_sd, self.class_sd), self.image_sd)).mean(
            axis=(1, 2)
        )


@dataclass(frozen=True)
class Rates:
    """Shares of replicates, of a regime.

    Attributes
    ----------
    coverage : of the interval, of the bootstrap, of Student's t over trials (NaN for one trial)
    rejections : the same of the paired tests at 5 %
    """

    coverage: np.ndarray
    rejections: np.ndarray


def simulate(regime: Regime, replicates: int, seed: int, gain: float = 0.0, resamples: int = _RESAMPLES) -> Rates:
    """Return the rates of a regime.

    Parameters
    ----------
    replicates : data sets drawn
    seed : of all draws
    gain : logits by which the first of the two paired methods is better
    resamples : of the bootstrap; 0 leaves it out, NaN
    """
    rng = np.random.default_rng(seed)
    labels, bootstrap = regime.labels, Bootstrap(regime, resamples, rng) if resamples else None
    covered, rejected = np.zeros((replicates, 3)), np.zeros((replicates, 3))
    for replicate in range(replicates):
        scores, truth = regime.draw(rng, (gain, 0.0))
        estimate = interval(scores[1], labels)
        _, p = paired_difference(scores[0], scores[1], labels)
        ends = np.array([(estimate.low, estimate.high), *_others(scores[1], bootstrap)])
        paired = np.array(_others(scores[0] - scores[1], bootstrap))
        covered[replicate] = _holds(ends, truth[1])
        rejected[replicate] = [p <= _LEVEL, *(1 - _holds(paired, 0.0))]
    return Rates(covered.mean(axis=0), rejected.mean(axis=0))


class Bootstrap:
    """The percentile bootstrap over trials and, within classes, images; its resamples are shared by all replicates.

    Parameters
    ----------
    regime : whose trials and images are drawn
    resamples : how many times
    rng : draws them
    """

    def __init__(self, regime: Regime, resamples: int, rng: np.random.Generator) -> None:
        by_class = [rng.multinomial(size, np.full(size, 1 / size), resamples) for size in regime.sizes]
        self._images = np.concatenate(by_class, axis=1).astype(np.float32)
        self._trials = rng.multinomial(regime.trials, np.full(regime.trials, 1 / regime.trials), resamples)

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """Return the ends at 95 % of the mean over trials of the scores' sum; scores are float [T, n]."""
        sums = (self._images @ scores.T.astype(np.float32) * self._trials).mean(axis=1)
        low, high = np.quantile(sums, (_LEVEL / 2, 1 - _LEVEL / 2))
        return float(low), float(high)


def _others(scores: np.ndarray, bootstrap: Bootstrap | None) -> list[tuple[float, float]]:
    """Return the ends of the bootstrap and of Student's t over trials, NaN where there is none."""
    ends = [bootstrap.interval(scores) if bootstrap else (np.nan, np.nan), (np.nan, np.nan)]
    trials = len(scores)
    if trials > 1:
        sums = scores.sum(axis=1)
        half = stdtrit(trials - 1, 1 - _LEVEL / 2) * sums.std(ddof=1) / np.sqrt(trials)
        ends[1] = (sums.mean() - half, sums.mean() + half)
    return ends


def _holds(ends: np.ndarray, truth: float) -> np.ndarray:
    """Return 1 or 0 for each interval [m, 2], NaN for one that is not; 1e-6 is rounding of the bootstrap's float32."""
    holds = (ends[:, 0] <= truth + 1e-6) & (truth - 1e-6 <= ends[:, 1])
    return np.where(np.isnan(ends).any(axis=1), np.nan, holds)


def _expected(centre: np.ndarray, spread: float | np.floating) -> np.ndarray:
    """Return the mean of the logistic function over a normal distribution, by Gauss-Hermite quadrature."""
    nodes, weights = _quadrature()
    return expit(np.asarray(centre)[..., None] + spread * nodes) @ weights


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return nodes, weights / weights.sum()


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("coverage"), description=about(__doc__, "coverage"))
    parsed.add_argument("--replicates", type=int, default=1000, metavar="N", help="data sets a regime; default: 1000")
    parsed.add_argument("--trials", type=int, nargs="+", default=TRIALS, metavar="T", help="default: 1 2 3 5 10")
    parsed.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="test sets; default: all")
    parsed.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from tabulate import tabulate

    from ltbench.errors import UserError

    if min(options.replicates, *options.trials) < 1 or options.seed < 0:
        raise UserError("--replicates and --trials must be at least 1, --seed at least 0")
    rows = []
    for name, trials, (trial, image) in itertools.product(options.sizes, options.trials, EFFECTS):
        regime = Regime(SIZES[name], trials, *TRIAL_EFFECTS[trial], IMAGE_EFFECTS[image])
        rates = simulate(regime, options.replicates, options.seed)
        shown = [f"{100 * rate:.1f}" for rate in (*rates.coverage, *rates.rejections)]
        rows.append([name, trials, trial, image, *(cell.replace("nan", "n/a") for cell in shown)])
    print(f"Percent of {options.replicates} replicates; coverage at 95 %, rejections of equal methods at 5 %")
    headers = ["classes x images", "trials", "trial effect", "image effect", "coverage", "bootstrap", "t over trials"]
    headers += ["rejections", "bootstrap", "t over trials"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    script(__file__)
