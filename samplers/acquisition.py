"""Which images to query next: class difficulty, quotas and mutual information (Flexible Sampling, section 2.3)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import xlogy

from ltbench.samplers._checks import checked_labels, members_by_class

_NOISE = 1e-9  # a quota that is whole up to rounding of its factors must not be rounded up once more


def class_difficulty(accuracy: np.ndarray) -> np.ndarray:
    """Return p-hat: 1 - accuracy, scaled to sum to the number of classes (eq. 4 and below).

    Parameters
    ----------
    accuracy : float [K], in [0, 1]; NaN for a class without an evaluated image, which counts as accuracy 0

    Returns
    -------
    float64 [K], not negative, sums to K; all 1 where every accuracy is 1

    Raises
    ------
    ValueError : an accuracy outside [0, 1] (percent, for example)
    """
    accuracy = np.nan_to_num(np.asarray(accuracy, dtype=np.float64), nan=0.0)
    if ((accuracy < 0) | (accuracy > 1)).any():
        raise ValueError(f"accuracies must be in [0, 1], got {accuracy}")
    difficulty = 1 - accuracy
    total = difficulty.sum()
    return difficulty * (len(difficulty) / total) if total > 0 else np.ones_like(difficulty)


def query_quotas(
    accuracy: np.ndarray,
    pool_counts: np.ndarray,
    fraction: float,
    *,
    base_counts: np.ndarray | None = None,
    rule: Literal["per_class", "total"] = "per_class",
) -> np.ndarray:
    """Return how many images of each class a query moves from the pool to the training set.

    - `per_class`: min(U_c, ceil(p-hat_c * fraction * V_c))
    - `total`: fraction * sum(V) images in all, rounded up, shared in proportion to p-hat_c * V_c by the method of
      largest remainders, never more than U_c

    with U the pool now and V the counts that `fraction` refers to.

    Parameters
    ----------
    accuracy : float [K], in [0, 1], NaN for a class that was not evaluated
    pool_counts : int [K], images of each class still in the pool
    fraction : share of the pool that a query takes, in (0, 1]
    base_counts : int [K], V; None: the current pool

    Returns
    -------
    int64 [K], in [0, pool_counts]

    Raises
    ------
    ValueError : an accuracy outside [0, 1], a fraction outside (0, 1], counts that are negative or not one for each
        accuracy, unknown rule
    """
    pool = np.asarray(pool_counts, dtype=np.int64)
    base = pool if base_counts is None else np.asarray(base_counts, dtype=np.int64)
    if not 0 < fraction <= 1:
        raise ValueError(f"query fraction must be in (0, 1], got {fraction}")
    shapes = np.shape(accuracy), pool.shape, base.shape
    if pool.ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"accuracy and counts must all be [K], got {', '.join(str(list(shape)) for shape in shapes)}")
    if (pool < 0).any() or (base < 0).any():
        raise ValueError("pool counts must not be negative")
    share = class_difficulty(accuracy) * np.where(pool > 0, base, 0)
    if rule == "per_class":
        return np.minimum(pool, np.ceil(share * fraction - _NOISE).astype(np.int64))
    if rule == "total":
        return _largest_remainders(share, pool, int(np.ceil(fraction * base.sum() - _NOISE)))
    raise ValueError(f"quota rule must be 'per_class' or 'total', got {rule!r}")


def _largest_remainders(share: np.ndarray, capacity: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` in proportion to `share`; what exceeds a capacity is divided again among the others."""
    quotas = np.zeros(len(share), dtype=np.int64)
    while True:
        open_share = np.where(quotas < capacity, share, 0.0)
        left = min(total - quotas.sum(), int((capacity - quotas)[open_share > 0].sum()))
        if left <= 0:
            return quotas
        exact = open_share * (left / open_share.sum())
        extra = np.floor(exact + _NOISE).astype(np.int64)
        missing = left - extra.sum()
        if missing > 0:
            order = np.argsort(-np.where(open_share > 0, exact - extra, -1.0), kind="stable")
            extra[order[:missing]] += 1
        quotas = np.minimum(capacity, quotas + extra)


def mutual_information(probs: np.ndarray) -> np.ndarray:
    """Return the mutual information between prediction and model (eq. 5, BALD: Houlsby et al., arXiv:1112.5745).

    Entropy of the mean prediction minus the mean entropy of the predictions.

    Parameters
    ----------
    probs : float [T, N, K], class probabilities of T stochastic passes, rows that sum to 1

    Returns
    -------
    float64 [N], nats, in [0, log K]
    """
    probs = np.asarray(probs, dtype=np.float64)
    if probs.ndim != 3:
        raise ValueError(f"probs must be [T, N, K], got shape {probs.shape}")
    of_mean = -xlogy(mean := probs.mean(axis=0), mean).sum(axis=1)
    mean_of = -xlogy(probs, probs).sum(axis=2).mean(axis=0)
    return np.maximum(of_mean - mean_of, 0.0)  # never negative but for rounding (Jensen)


def select_queries(information: np.ndarray, labels: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Return the images to query: of every class those with the most information.

    Parameters
    ----------
    information : float [N], score of every pool image
    labels : int64 [N], class ids of the pool images, in [0, K)
    quotas : int [K], images wanted of each class, at most the pool has

    Returns
    -------
    int64, positions into the pool, class by class, most informative first; ties go to the lower position

    Raises
    ------
    ValueError : more wanted than the pool has of a class, another number of labels than of scores, or a label outside
        [0, K)
    """
    information = np.asarray(information)
    labels = checked_labels(labels, len(quotas), len(information))
    chosen = [np.empty(0, dtype=np.int64)]
    for label, (wanted, members) in enumerate(zip(quotas, members_by_class(labels, len(quotas)), strict=True)):
        if not 0 <= wanted <= len(members):
            raise ValueError(f"class {label} has {len(members)} images in the pool, {wanted} wanted")
        order = np.argsort(-information[members], kind="stable")
        chosen.append(members[order[:wanted]])
    return np.concatenate(chosen).astype(np.int64)
