"""Which images a curriculum starts with: density of features inside a class, cut in subsets (CurriculumNet, ECCV 2018).

An image with many neighbours of its own class is typical of it; one with few may be mislabelled, or just rare.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ltbench.samplers._checks import members_by_class
from ltbench.samplers.density import Kernel, check_density, finite_features, local_density


def kmeans_1d(values: np.ndarray, k: int) -> np.ndarray:
    """Return the k clusters of numbers with the least sum of squares within, found exactly.

    On a line such clusters are intervals, so dynamic programming over the m distinct values finds the optimum
    (Wang and Song, The R Journal 2011); no start to draw, nothing to repeat. O(k m ** 2) time, O(k m) memory.

    Parameters
    ----------
    values : float [n], finite, at least k of them distinct
    k : clusters, at least 1

    Returns
    -------
    int64 [n], cluster of each value, numbered by increasing mean; equal values share a cluster

    Raises
    ------
    ValueError : values of another shape or not finite, k below 1, or fewer than k distinct values
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"values must be finite numbers [n], got shape {values.shape}")
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    if not 1 <= k <= len(distinct):
        raise ValueError(f"k must be between 1 and the {len(distinct)} distinct values, got {k}")
    starts = _optimal_starts(distinct - values.mean(), counts, k)  # centred: squares lose fewer digits
    return (np.searchsorted(starts, np.arange(len(distinct)), side="right") - 1)[inverse].astype(np.int64)


def _optimal_starts(points: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Return where the clusters of sorted distinct points begin: int64 [k], the first is 0.

    cost[j] is the least cost of the first j points in so many clusters; best[c, j] where the last of c + 1 begins.
    """
    weight, total, square = (
        np.concatenate([[0.0], np.cumsum(term)]) for term in (counts, counts * points, counts * points**2)
    )

    def spread(first: Any, end: int) -> Any:
        """Return the sum of squares around their mean of points first..end-1."""
        inside = total[end] - total[first]
        return square[end] - square[first] - inside**2 / (weight[end] - weight[first])

    size = len(points)
    best = np.zeros((k, size + 1), dtype=np.int64)
    cost = np.concatenate([[0.0], [float(spread(np.int64(0), end)) for end in range(1, size + 1)]])
    for cluster in range(1, k):
        previous, cost = cost, np.full(size + 1, np.inf)
        for end in range(cluster + 1 if cluster < k - 1 else size, size + 1):  # of the last, only the whole matters
            first = np.arange(cluster, end)
            candidates = previous[first] + spread(first, end)
            choice = candidates.argmin()
            best[cluster, end], cost[end] = first[choice], candidates[choice]
    starts, end = np.zeros(k, dtype=np.int64), size
    for cluster in range(k - 1, 0, -1):
        end = starts[cluster] = best[cluster, end]
    return starts


def curriculum_subsets(
    features: np.ndarray,
    labels: np.ndarray,
    num_subsets: int = 3,
    quantile: float = 0.6,
    min_images: int = 9,
    kernel: Kernel = "cutoff",
    max_dimension: int = 256,
) -> np.ndarray:
    """Return for each image which subset of a curriculum it is in, from the densest of its class to the sparsest.

    Every class for itself: principal components if there are more than `max_dimension` features, `local_density`,
    `kmeans_1d` of the densities. A class that is too small to say, or with too few distinct densities, stays whole.

    Parameters
    ----------
    features : float [N, D], finite
    labels : int [N], class ids
    num_subsets : subsets of each class
    quantile, kernel : of `local_density`
    min_images : a smaller class is in subset 0 as a whole
    max_dimension : components that are kept, fitted on the class; none are dropped where it has no more images

    Returns
    -------
    int64 [N], in [0, num_subsets); 0 is the densest ("clean") and holds an image of every class

    Raises
    ------
    ValueError : features or labels of another shape, not finite, of different lengths, `quantile` outside (0, 1),
        unknown kernel, `num_subsets` or `max_dimension` below 1

    Source: CurriculumNet's released clustering code, read at commit 9daeae48. There k-means is drawn at random, and
    classes with fewer images than components, or with fewer distinct densities than subsets, raise.
    """
    check_density(quantile, kernel)
    features, labels = finite_features(features), np.asarray(labels)
    if labels.shape != (len(features),):
        raise ValueError(f"labels must be [{len(features)}], one for each row of features, got shape {labels.shape}")
    if num_subsets < 1 or max_dimension < 1:
        raise ValueError(f"num_subsets and max_dimension must be at least 1, got {num_subsets} and {max_dimension}")
    subsets = np.zeros(len(labels), dtype=np.int64)
    classes, codes = np.unique(labels, return_inverse=True)
    for members in members_by_class(codes, len(classes)):
        if len(members) < min_images:
            continue
        density = local_density(_principal_components(features[members], max_dimension), quantile, kernel)
        if len(np.unique(density)) >= num_subsets:
            subsets[members] = num_subsets - 1 - kmeans_1d(density, num_subsets)
    return subsets


def _principal_components(features: np.ndarray, dimension: int) -> np.ndarray:
    """Return the first principal components of rows [n, D]: [n, `dimension`], or the rows where n or D is no more.

    n rows lie in n - 1 dimensions, so that as many components would only turn them. Not scikit-learn's PCA, which
    divides by the variance, 0 in a class of equal images.
    """
    if min(features.shape) <= dimension:
        return features
    centred = features - features.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:dimension]
    # A product may round equal rows differently; projected once, they stay equal, at distance 0.
    distinct, inverse = np.unique(centred, axis=0, return_inverse=True)
    return (distinct @ axes.T)[inverse.reshape(-1)]
