"""Class prototypes and anchor points: Flexible Sampling paper, section 2.2."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ltbench.samplers._checks import checked_labels, members_by_class


def class_prototypes(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the mean feature of each class (eq. 2).

    Parameters
    ----------
    features : float [N, D]
    labels : int64 [N], class ids in [0, num_classes)

    Returns
    -------
    float64 [num_classes, D]; NaN rows for classes without an image

    Raises
    ------
    ValueError : features that are not [N, D], another number of labels, or a label outside [0, num_classes)
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be [N, D], got shape {list(features.shape)}")
    labels = checked_labels(labels, num_classes, len(features))
    prototypes = np.full((num_classes, features.shape[1]), np.nan)
    for label, members in enumerate(members_by_class(labels, num_classes)):
        if len(members):
            prototypes[label] = features[members].mean(axis=0)
    return prototypes


def nearest_prototype(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Return the class whose prototype is nearest to each feature, by Euclidean distance: int64 [n].

    Parameters
    ----------
    features : float [n, D]
    prototypes : float [K, D]; NaN rows, of classes without an image, are nobody's nearest
    """
    features = np.asarray(features, dtype=np.float64)
    nearest, least = np.zeros(len(features), dtype=np.int64), np.full(len(features), np.inf)
    for label, prototype in enumerate(prototypes):
        distance = ((features - prototype) ** 2).sum(axis=1)
        nearer = distance < least  # not NaN; ties go to the lower class
        nearest[nearer], least[nearer] = label, distance[nearer]
    return nearest


def anchor_counts(class_counts: np.ndarray, scale: float, profile: Literal["pareto", "power"] = "pareto") -> np.ndarray:
    """Return how many anchor points each class gets: a smaller and less imbalanced set.

    The paper's formula, read literally, exceeds every class. Both readings here start from the class counts that
    were measured, with n_max the largest, n_min the smallest, r = n_max / n_min, and give the largest class
    `scale` * n_max, the smallest all that it has, and so an imbalance of r * `scale`:

    - `pareto`: scale * n_max * (r * scale) ** (-j / (K - 1)) for the class of rank j, which needs no more than a
      Pareto profile; never above the class;
    - `power`: n * scale ** (1 - x) with x = log(n_max / n) / log(r), for any profile; the same on an exact one.

    Parameters
    ----------
    class_counts : int [K], by class id, each at least 1
    scale : s of the paper, in (0, 1]

    Returns
    -------
    int64 [K], by class id, in [1, class_counts]

    Raises
    ------
    ValueError : `scale` outside (0, 1], a count below 1 or not finite, or r * `scale` below 1 (which would turn the
        imbalance over)
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    if not 0 < scale <= 1:
        raise ValueError(f"anchor scale must be in (0, 1], got {scale}")
    if counts.ndim != 1 or len(counts) < 2 or not (np.isfinite(counts) & (counts >= 1)).all():
        raise ValueError(f"class_counts must be at least two counts, finite and 1 or more, got {class_counts}")
    largest, ratio = counts.max(), counts.max() / counts.min()
    if ratio * scale < 1 - 1e-9:
        raise ValueError(
            f"imbalance ratio {ratio:g} times anchor scale {scale:g} is below 1, which would make anchors of the "
            f"rarest class the most frequent; use a scale of at least {np.ceil(1000 / ratio) / 1000:g}"
        )
    if profile == "pareto":
        rank = np.empty(len(counts))
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        wanted = scale * largest * max(ratio * scale, 1.0) ** (-rank / (len(counts) - 1))
    elif profile == "power":
        depth = np.log(largest / counts) / np.log(ratio) if ratio > 1 else np.zeros_like(counts)
        wanted = counts * scale ** (1 - depth)
    else:
        raise ValueError(f"anchor profile must be 'pareto' or 'power', got {profile!r}")
    return np.clip(np.round(wanted), 1, counts).astype(np.int64)


def select_anchors(
    features: np.ndarray,
    labels: np.ndarray,
    counts: np.ndarray,
    strategy: Literal["anchor", "random", "edge"] = "anchor",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return the anchor points: of every class the images nearest to its prototype (eq. 3).

    Parameters
    ----------
    features : float [N, D]
    labels : int64 [N], class ids in [0, K)
    counts : int [K], anchors wanted of each class, at most the class has
    strategy : `anchor`: smallest Euclidean distance; `edge`: largest; `random`: any, drawn with `rng`

    Returns
    -------
    int64, positions, class by class, in order of selection; equal distances go to the lower position

    Raises
    ------
    ValueError : more wanted than a class has, unknown strategy, `random` without `rng`, features that are not [N, D],
        another number of labels, or a label outside [0, K)
    """
    if strategy not in ("anchor", "random", "edge"):
        raise ValueError(f"anchor strategy must be 'anchor', 'random' or 'edge', got {strategy!r}")
    prototypes = class_prototypes(features, labels, len(counts))
    features, labels = np.asarray(features), np.asarray(labels)
    chosen = []
    for label, (wanted, members) in enumerate(zip(counts, members_by_class(labels, len(counts)), strict=True)):
        if not 0 <= wanted <= len(members):
            raise ValueError(f"class {label} has {len(members)} images, {wanted} anchors wanted")
        if strategy == "random":
            if rng is None:
                raise ValueError("random anchors need rng")
            order = rng.permutation(len(members))
        else:
            distance = np.linalg.norm(features[members].astype(np.float64) - prototypes[label], axis=1)
            order = np.argsort(distance if strategy == "anchor" else -distance, kind="stable")
        chosen.append(members[order[:wanted]])
    return np.concatenate(chosen).astype(np.int64)
