"""Metrics of one set of predictions, each under its exact name; what is undefined is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, roc_auc_score

_CALIBRATION_BINS = 15


def class_recall(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the accuracy of each class: float64 [K], NaN for a class without an image."""
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[labels == predicted], minlength=num_classes)
    return np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean negative log-likelihood, nats."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def frequency_groups(class_counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return head, medium and tail: a third of the classes each by training frequency, rounded towards the tail.

    For 8 classes that is 2, 3, 3, the cut that the field uses on ISIC-2019-LT.
    """
    order = np.argsort(-np.asarray(class_counts), kind="stable").tolist()
    head = len(order) // 3
    medium = head + (len(order) - head) // 2
    return {"head": tuple(order[:head]), "medium": tuple(order[head:medium]), "tail": tuple(order[medium:])}


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence, weighted by size."""
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, edges, right=True)
    size = np.bincount(bins, minlength=_CALIBRATION_BINS)
    gap = np.bincount(bins, weights=confidence - (predicted == labels), minlength=_CALIBRATION_BINS)
    return float(np.abs(gap)[size > 0].sum() / len(labels))


def evaluate(labels: np.ndarray, logits: np.ndarray, groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return all metrics of one part.

    Parameters
    ----------
    labels : int64 [n]
    logits : float [n, K]
    groups : class ids of head, medium and tail

    Returns
    -------
    micro top-1, mean per-class accuracy, per-class accuracy, accuracy of each group (mean over its classes), the
    mean of the group means (the paper's "All" on ISIC-Archive-LT), macro F1, macro one-vs-rest AUROC, expected
    calibration error (15 bins) and cross-entropy. None where a class without images leaves a metric undefined.
    """
    num_classes = logits.shape[1]
    predicted, probabilities = logits.argmax(axis=1), softmax(logits.astype(np.float64), axis=1)
    recall = class_recall(labels, predicted, num_classes)
    by_group = {name: float(np.mean(recall[list(classes)])) for name, classes in groups.items() if len(classes)}
    complete = not np.isnan(recall).any()
    measured: dict[str, Any] = {
        "top1": float((predicted == labels).mean()),
        "mean_class_accuracy": float(np.nanmean(recall)),
        "per_class_accuracy": recall.tolist(),
        **{name: by_group.get(name, np.nan) for name in ("head", "medium", "tail")},
        "mean_of_group_means": float(np.mean(list(by_group.values()))) if by_group else np.nan,
        "macro_f1": float(f1_score(labels, predicted, average="macro", labels=np.unique(labels))),
        "macro_auroc": _macro_auroc(labels, probabilities) if complete else np.nan,
        "ece": expected_calibration_error(labels, probabilities),
        "cross_entropy": cross_entropy(labels, logits),
    }
    return measured


def by_class(labels: np.ndarray, values: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Return what a per-image quantity [n] is in each class.

    Whole numbers give {"values": the distinct ones, "counts": images [K][len(values)]}; others {"mean": [K]}, NaN
    for a class without an image.
    """
    members = [values[labels == label] for label in range(num_classes)]
    if np.issubdtype(values.dtype, np.integer):
        distinct = np.unique(values)
        return {
            "values": distinct.tolist(),
            "counts": [[int((own == value).sum()) for value in distinct] for own in members],
        }
    return {"mean": [float(own.mean()) if len(own) else float("nan") for own in members]}


def _macro_auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(labels == label, column) for label, column in enumerate(probabilities.T)]))
