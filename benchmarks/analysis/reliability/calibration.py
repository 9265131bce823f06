"""What validation images decide after training: the temperature of the logits, and thresholds of special classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from ltbench.benchmarks.analysis.metrics import cross_entropy, threshold_at_specificity
from ltbench.benchmarks.analysis.probabilities import Probabilities, expected_calibration_error

TEMPERATURES = (0.01, 100.0)
"""Smallest and largest temperature that is tried."""

AT_BOUND = "the temperature is at its bound: too few validation images to fit one"
_NEAR = 1.001  # the search ends beside a bound, not on it
_VANISHED = 1e-9  # nats; validation images are separated, and the loss is the same down to the bound


def fitted_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the temperature, within `TEMPERATURES`, by which logits are divided for the smallest cross-entropy.

    Cross-entropy is convex in the inverse of the temperature, so the search finds its minimum (Guo et al. 2017).

    Parameters
    ----------
    labels : int [n]
    logits : float [n, K]
    """
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log: cross_entropy(labels, logits, np.exp(log)), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def at_bound(temperature: float, loss: float) -> bool:
    """Return whether the search for a temperature went to a bound, given the cross-entropy that it reached, nats."""
    low, high = TEMPERATURES
    return loss < _VANISHED or not low * _NEAR < temperature < high / _NEAR


def scaled_calibration_error(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    """Return the expected calibration error of logits [n, K] that are divided by a temperature."""
    confidence = Probabilities(logits, temperature).confidence
    return expected_calibration_error(confidence, logits.argmax(axis=1) == labels)


class OperatingPoint(NamedTuple):
    """What a threshold reaches: shares of the negative images below it and of the positive ones at or above it."""

    specificity: float
    sensitivity: float


def operating_point(positive: np.ndarray, scores: np.ndarray, threshold: float) -> OperatingPoint:
    """Return what a threshold reaches; NaN twice without positive or without negative images, or of a NaN threshold.

    Parameters
    ----------
    positive : bool [n], whether the image is of the class
    scores : float [n], larger where that is likelier
    """
    if np.isnan(threshold) or not positive.any() or positive.all():
        return OperatingPoint(float("nan"), float("nan"))
    called = scores >= threshold
    return OperatingPoint(float((~called[~positive]).mean()), float(called[positive].mean()))


def transferred_point(
    validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], label: int, specificity: float
) -> OperatingPoint:
    """Return what the threshold that has a specificity on validation images reaches on test images.

    Parameters
    ----------
    validation, test : labels int [n] and logits float [n, K] of each; a class is scored by its softmax probability
    label : the class
    specificity : at least this on validation images, 0 to 1
    """
    (val_positive, val_scores), (positive, scores) = (
        (labels == label, Probabilities(logits).of_class(label)) for labels, logits in (validation, test)
    )
    return operating_point(positive, scores, threshold_at_specificity(val_positive, val_scores, specificity))
