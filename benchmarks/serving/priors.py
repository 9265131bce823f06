"""How frequent classes are where a network is used: which prior its scores stand for, and probabilities for another.

With p the probabilities of a network whose scores stand for the prior π, those for images in which classes have the
prior π' are p'_k ∝ p_k π'_k / π_k (Saerens et al. 2002).

After plain training scores stand for the shares of the classes in training, after re-balancing (sampling, weights,
logit adjustment, balanced softmax) for equal shares. Which of both is not told by the name of a method but by the
validation images, whose shares v are known: with each, the temperature T is fitted for which
softmax(z / T + log(v / π)) has the smallest cross-entropy, and the one with the smaller is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from ltbench.benchmarks.analysis.metrics import cross_entropy
from ltbench.benchmarks.analysis.reliability.calibration import TEMPERATURES
from ltbench.errors import UserError
from ltbench.registry import unknown

TRAINING, UNIFORM = "training", "uniform"
NAMED = (TRAINING, UNIFORM)
"""Priors that have a name: the shares of the classes in training, and equal shares."""

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities: softmax(logits / temperature + shift).

    Attributes
    ----------
    temperature : by which logits are divided
    shift : float64 [K]
    """

    temperature: float
    shift: np.ndarray

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 [n, K]."""
        return softmax(logits.astype(np.float64) / self.temperature + self.shift, axis=1)


class Source(NamedTuple):
    """The prior that scores stand for.

    Attributes
    ----------
    name : of `NAMED`
    temperature : fitted with it
    losses : cross-entropy on validation with each of `NAMED`, nats
    """

    name: str
    temperature: float
    losses: Mapping[str, float]


def shares(prior: str, class_counts: Sequence[int]) -> np.ndarray:
    """Return the shares of classes under a prior of `NAMED`, float64 [K]."""
    counts = np.asarray(class_counts, dtype=np.float64)
    return counts / counts.sum() if prior == TRAINING else np.full(len(counts), 1 / len(counts))


def source_prior(labels: np.ndarray, logits: np.ndarray, class_counts: Sequence[int]) -> Source:
    """Return the prior that scores stand for, as validation images tell it.

    Parameters
    ----------
    labels, logits : int [n] and float [n, K] of validation images
    class_counts : training images of each class [K]
    """
    with np.errstate(divide="ignore"):  # a class without validation images has probability 0 among them
        seen = np.log(np.bincount(labels, minlength=logits.shape[1]) / len(labels))
    fits = {name: _fitted(labels, logits, seen - np.log(shares(name, class_counts))) for name in NAMED}
    best = min(NAMED, key=lambda name: fits[name][1])
    return Source(best, fits[best][0], {name: loss for name, (_, loss) in fits.items()})


def _fitted(labels: np.ndarray, logits: np.ndarray, shift: np.ndarray) -> tuple[float, float]:
    """Return the temperature of the smallest cross-entropy of logits / temperature + shift, and that cross-entropy."""
    found = minimize_scalar(
        lambda log: cross_entropy(labels, logits / np.exp(log) + shift),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(found.x)), float(found.fun)


def calibration_for(prior: np.ndarray, source: Source, class_counts: Sequence[int]) -> Calibration:
    """Return the calibration for images in which classes have a prior, float64 [K]; a class of 0 is never predicted."""
    with np.errstate(divide="ignore"):
        return Calibration(source.temperature, np.log(prior) - np.log(shares(source.name, class_counts)))


def validation_prior(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the shares of classes among labels, float64 [K]; one without images counts as half an image."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 0.5)
    return counts / counts.sum()


def stated_prior(
    texts: Sequence[str], values: Mapping[str, float], class_names: Sequence[str], class_counts: Sequence[int]
) -> np.ndarray:
    """Return the prior that a user states, float64 [K]: one of `NAMED`, or shares by class.

    Classes that are not named share the rest as in training.

    Parameters
    ----------
    texts : as given, for a name of `NAMED` and for messages
    values : share of each named class; empty: `texts` is a name

    Raises
    ------
    UserError : an unknown class, a share outside 0 and 1, or shares that do not sum to 1
    """
    if not values:
        if len(texts) != 1 or texts[0] not in NAMED:
            raise UserError(
                f"--prior takes CLASS=SHARE for some classes, or {' or '.join(NAMED)}; got {' '.join(texts)!r}"
            )
        return shares(texts[0], class_counts)
    for name, value in values.items():
        if name not in class_names:
            raise unknown("class", name, class_names)
        if not 0 <= value <= 1:
            raise UserError(f"--prior {name}={value:g}: a share is from 0 to 1")
    named, total = [name in values for name in class_names], sum(values.values())
    if total > 1 + _TOLERANCE or (all(named) and total < 1 - _TOLERANCE):
        raise UserError(f"--prior: the shares sum to {total:g}, which must be {'1' if all(named) else 'at most 1'}")
    prior = np.where(named, 0.0, shares(TRAINING, class_counts))
    prior *= max(0.0, 1 - total) / max(prior.sum(), 1e-300)
    for name, value in values.items():
        prior[list(class_names).index(name)] = value
    return prior / prior.sum()
