"""Metrics of one set of predictions, each under its exact name.

What is undefined is NaN (null in records, n/a in tables) with the reason beside it, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.probabilities import Probabilities, class_members, expected_calibration_error

METRICS: Mapping[str, str] = {
    "mean_class_accuracy": "mean per-class accuracy",
    "top1": "micro top-1",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "mean_of_group_means": "mean of group means",
    "macro_f1": "macro-F1",
    "macro_auroc": "macro AUROC",
    "macro_auprc": "macro AUPRC",
    "ece": "ECE",
    "classwise_ece": "class-wise ECE",
    "cross_entropy": "cross-entropy",
}
"""Name and label of each metric of all data that is one number, in the order of tables."""

FURTHER = ("confusion", "per_class_interval")
"""What `evaluate` gives of classes when it is asked to: tables and pictures compute it where they show it."""

SPECIFICITIES = (90, 95)
"""Specificities at which the sensitivity to a special class is measured, percent."""

_LOWER_IS_BETTER = ("ece", "classwise_ece", "cross_entropy")
_SENSITIVITY = re.compile(r"sensitivity_at_\d+/(?P<name>.*)", re.DOTALL)


def metric_labels(special_classes: Sequence[str] = ()) -> dict[str, str]:
    """Return name and label of each metric that is one number, in the order of tables.

    Parameters
    ----------
    special_classes : classes of special interest, whose sensitivity at given specificities is among the metrics
    """
    labels: dict[str, str] = {}
    for metric, label in METRICS.items():
        if metric == "ece":
            labels |= {
                sensitivity_name(name, percent): f"{name} sensitivity at {percent} % specificity"
                for name in special_classes
                for percent in SPECIFICITIES
            }
        labels[metric] = label
    return labels


def higher_is_better(metric: str) -> bool:
    """Return whether more is better."""
    return metric not in _LOWER_IS_BETTER


def class_recall(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the accuracy of each class: float64 [K], 0 to 1, NaN for a class without an image.

    Parameters
    ----------
    labels, predicted : int [n], 0 to K - 1
    num_classes : K
    """
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[labels == predicted], minlength=num_classes)
    return np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def class_precision_and_f1(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and F1 of each class: float64 [K] each, 0 to 1, NaN for a class without an image.

    Precision is 0 for a class that is never predicted; F1 = 2 right / (images + predictions of the class).

    Parameters
    ----------
    labels, predicted : int [n], 0 to K - 1
    num_classes : K
    """
    counts, named = (np.bincount(values, minlength=num_classes) for values in (labels, predicted))
    right = np.bincount(labels[labels == predicted], minlength=num_classes)
    present = counts > 0
    nothing = np.full(num_classes, np.nan)
    precision = np.divide(right, np.maximum(named, 1), out=nothing.copy(), where=present)
    return precision, np.divide(2 * right, counts + named, out=nothing.copy(), where=present)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the images by true and predicted class: int64 [K, K], rows are true classes.

    Parameters
    ----------
    labels, predicted : int [n], 0 to K - 1
    num_classes : K
    """
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def cross_entropy(labels: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood, nats: -Σ_i log softmax(logits_i / temperature)[y_i] / n.

    Parameters
    ----------
    labels : int [n]
    logits : float [n, K]; computed in float64
    """
    return float(-Probabilities(logits, temperature).log_likelihood(labels).mean())


def frequency_groups(class_counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return head, medium and tail: a third of the classes each by training frequency, rounded towards the tail.

    For 8 classes that is 2, 3, 3, the cut that the field uses on ISIC-2019-LT. Classes of equal frequency keep the
    order of their ids; of fewer than three classes, head is empty.

    Parameters
    ----------
    class_counts : training images of each class [K]
    """
    order = np.argsort(-np.asarray(class_counts), kind="stable").tolist()
    head = len(order) // 3
    medium = head + (len(order) - head) // 2
    return {"head": tuple(order[:head]), "medium": tuple(order[head:medium]), "tail": tuple(order[medium:])}


def wilson_interval(successes: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, within 0 and 1; NaN twice of a count of 0.

    Parameters
    ----------
    successes : 0 to count
    count : need not be whole, like the successes, as of means over trials
    confidence : between 0 and 1
    """
    from statsmodels.stats.proportion import proportion_confint

    if count == 0:
        return float("nan"), float("nan")
    low, high = proportion_confint(successes, count, alpha=1 - confidence, method="wilson")
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == count else float(high))


def threshold_at_specificity(positive: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    """Return the lowest threshold whose specificity is at least the given one, which has the largest sensitivity.

    An image is called positive if its score is at least the threshold; images of equal scores are called alike. The
    threshold is infinite where no image may be called positive, and NaN without positive or without negative images.

    Parameters
    ----------
    positive : bool [n], whether the image is of the class
    scores : float [n], larger where that is likelier
    specificity : 0 to 1

    Raises
    ------
    ValueError : shapes that do not fit, a specificity outside 0 and 1
    """
    positive, scores = np.asarray(positive, dtype=bool), np.asarray(scores)
    if positive.ndim != 1 or positive.shape != scores.shape:
        raise ValueError(f"positive {positive.shape} and scores {scores.shape} are not both [n]")
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity is {specificity}, not within 0 and 1")
    if not positive.any() or positive.all():
        return float("nan")
    thresholds, negative = np.append(np.unique(scores), np.inf), np.sort(scores[~positive])
    reached = np.searchsorted(negative, thresholds, "left") / len(negative)
    return float(thresholds[reached >= specificity - 1e-12].min())


def sensitivity_at_specificity(positive: np.ndarray, scores: np.ndarray, specificity: float) -> float:
    """Return the largest sensitivity of any threshold whose specificity is at least the given one.

    NaN without positive or without negative images. Parameters and errors as for `threshold_at_specificity`.
    """
    threshold = threshold_at_specificity(positive, scores, specificity)
    return float("nan") if np.isnan(threshold) else float((scores[positive] >= threshold).mean())


def evaluate(
    labels: np.ndarray,
    logits: np.ndarray,
    groups: Mapping[str, Sequence[int]],
    class_names: Sequence[str] | None = None,
    special_classes: Sequence[str] = (),
    further: Collection[str] = (),
) -> dict[str, Any]:
    """Return all metrics of one part.

    Time and memory grow with n K; beside the logits, no array of that size is made.

    Parameters
    ----------
    labels : int64 [n], 0 to K - 1
    logits : float [n, K]; probabilities are their softmax, in float64
    groups : class ids of head, medium and tail
    class_names : K names; without them reasons name class ids
    special_classes : of `class_names`, those whose sensitivity is asked for
    further : of `FURTHER`, what is asked for besides: the `confusion` matrix [K][K] (rows: true class), and Wilson's
        95 % `per_class_interval` [K][2]

    Returns
    -------
    All of `metric_labels`: micro top-1, mean per-class accuracy (over the classes with images), accuracy of each group
    (mean over its classes), the mean of the group means (the paper's "All" on ISIC-Archive-LT), macro-F1 (over the
    classes with images), macro one-vs-rest AUROC and AUPRC (average precision), expected and class-wise calibration
    error (15 bins; the latter is the mean over all K classes, as a class without an image has a frequency of 0),
    cross-entropy, and of each special class the sensitivity at 90 and 95 % specificity.
    Further `per_class_accuracy` and `per_class_count` [K], what is asked for, and `undefined`: for each metric that is
    NaN, in whole or for a class, why.

    Raises
    ------
    ValueError : shapes that do not fit, no image, labels outside 0 to K - 1, logits that are not numbers
    """
    _check_predictions(labels, logits, class_names, special_classes)
    num_classes = logits.shape[1]
    predicted, probabilities = logits.argmax(axis=1), Probabilities(logits)
    recall = class_recall(labels, predicted, num_classes)
    _, f1 = class_precision_and_f1(labels, predicted, num_classes)
    by_group = {name: float(np.mean(recall[list(classes)])) for name, classes in groups.items() if len(classes)}
    auroc, auprc, calibration = probabilities.against_rest(labels)
    measured: dict[str, Any] = {
        "top1": float((predicted == labels).mean()),
        "mean_class_accuracy": float(np.nanmean(recall)),
        "per_class_accuracy": recall.tolist(),
        "per_class_count": np.bincount(labels, minlength=num_classes).tolist(),
        **{name: by_group.get(name, np.nan) for name in ("head", "medium", "tail")},
        "mean_of_group_means": float(np.mean(list(by_group.values()))) if by_group else np.nan,
        "macro_f1": float(np.nanmean(f1)),
        "macro_auroc": float(auroc.mean()),
        "macro_auprc": float(auprc.mean()),
        "ece": expected_calibration_error(probabilities.confidence, predicted == labels),
        "classwise_ece": float(calibration.mean()),
        "cross_entropy": float(-probabilities.log_likelihood(labels).mean()),
        **_sensitivities(labels, probabilities, class_names or (), special_classes),
    }
    measured |= _asked(further, labels, predicted, num_classes)
    return {**measured, "undefined": _reasons(measured, groups, class_names)}


def _asked(further: Collection[str], labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Return what `evaluate` is asked for besides the metrics."""
    found: dict[str, Any] = {}
    if "confusion" in further:
        found["confusion"] = confusion_matrix(labels, predicted, num_classes).tolist()
    if "per_class_interval" in further:
        right, counts = (np.bincount(each, minlength=num_classes) for each in (labels[predicted == labels], labels))
        pairs = zip(right, counts, strict=True)
        found["per_class_interval"] = [list(wilson_interval(*pair)) for pair in pairs]
    return found


def _check_predictions(
    labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str] | None, special_classes: Sequence[str]
) -> None:
    _check_shapes(labels, logits)
    num_classes = logits.shape[1]
    if not len(labels) or (class_names is not None and len(class_names) != num_classes):
        raise ValueError(f"logits {logits.shape} of no image, or not of {class_names}")
    if not set(special_classes) <= set(class_names or ()):
        raise ValueError(f"special classes {special_classes} are not all among {class_names}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels outside 0 to {num_classes - 1}")


def by_class(labels: np.ndarray, values: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Return what a per-image quantity [n] is in each class.

    Whole numbers give {"values": the distinct ones, "counts": images [K][len(values)]}; others {"mean": [K]}, NaN
    for a class without an image.

    Parameters
    ----------
    labels : int [n], 0 to K - 1
    values : int or float [n]
    num_classes : K
    """
    members = [values[own] for own in class_members(labels, num_classes)]
    if np.issubdtype(values.dtype, np.integer):
        distinct = np.unique(values)
        return {
            "values": distinct.tolist(),
            "counts": [[int((own == value).sum()) for value in distinct] for own in members],
        }
    return {"mean": [float(own.mean()) if len(own) else float("nan") for own in members]}


def _check_shapes(labels: np.ndarray, columns: np.ndarray) -> None:
    if np.ndim(labels) != 1 or np.ndim(columns) != 2 or len(labels) != len(columns):
        raise ValueError(f"labels {np.shape(labels)} and logits {np.shape(columns)} do not fit")


def sensitivity_name(class_name: str, percent: int) -> str:
    """Return the name of the metric: sensitivity to a special class at a specificity in percent."""
    return f"sensitivity_at_{percent}/{class_name}"


def _sensitivities(
    labels: np.ndarray, probabilities: Probabilities, class_names: Sequence[str], special_classes: Sequence[str]
) -> dict[str, float]:
    class_ids = {name: list(class_names).index(name) for name in special_classes}
    return {
        sensitivity_name(name, percent): sensitivity_at_specificity(
            labels == class_id, probabilities.of_class(class_id), percent / 100
        )
        for name, class_id in class_ids.items()
        for percent in SPECIFICITIES
    }


def _reasons(
    measured: Mapping[str, Any], groups: Mapping[str, Sequence[int]], class_names: Sequence[str] | None
) -> dict[str, str]:
    """Return why each metric that is NaN, in whole or for a class, is so."""
    counts = measured["per_class_count"]
    names = list(class_names or map(str, range(len(counts))))
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    absent = f"no image of class {', '.join(missing)}" if missing else "there is only one class"
    reasons = {}
    for metric, value in measured.items():
        if not np.isnan(value).any():
            continue
        reasons[metric] = absent
        if metric in ("head", "medium", "tail"):
            without = [names[class_id] for class_id in groups.get(metric, ()) if counts[class_id] == 0]
            reasons[metric] = f"no image of class {', '.join(without)}" if without else "no class is in this group"
        elif metric == "mean_of_group_means" and not missing:
            reasons[metric] = "no group has a class"
        elif special := _SENSITIVITY.fullmatch(metric):
            name = special["name"]
            reasons[metric] = f"no image of class {name}" if name in missing else f"all images are of class {name}"
    return reasons
