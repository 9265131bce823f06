"""How densely the images of one class lie in feature space (CurriculumNet, ECCV 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

Kernel = Literal["cutoff", "gaussian"]

_GRID = 2.0**36  # sums of whole numbers have no rounding: in whatever order, equal images get equal densities
_BLOCK = 1 << 22  # distances that are computed at once
_KEPT = 1 << 25  # distances that are in memory at once
_STEP = 20  # bits of a distance that one pass decides


def local_density(features: np.ndarray, quantile: float = 0.6, kernel: Kernel = "cutoff") -> np.ndarray:
    """Return how densely the images of one class lie around each of them.

    With D the n * n Euclidean distances, diagonal included:

    - `cutoff`: rho_i = #{j: D_ij < d_c} - 1, d_c = element floor(`quantile` * n ** 2), from 0, of all distances in
      ascending order. So d_c is 0, and every density -1, where that many distances are 0;
    - `gaussian`: rho_i = sum_j exp(-(D_ij / max D) ** 2 / 2) / sqrt(2 pi), i itself included; no `quantile`. Each
      term is rounded to a multiple of 2 ** -36.

    Distances come from differences, not from inner products: equal images are at distance exactly 0, and D_ij is
    D_ji to the bit. Time: n ** 2 D, two to four times over where n is above 8192, for the distances are not kept
    then. Memory: at most 0.7 GB beside the features.

    Parameters
    ----------
    features : float [n, D], finite, of one class, n at least 1

    Returns
    -------
    float64 [n]; whole numbers in [-1, n - 1] for `cutoff`

    Raises
    ------
    ValueError : features of another shape or not finite, `quantile` outside (0, 1), unknown kernel

    Source: the function of CurriculumNet's released clustering code that computes rho, read at commit 9daeae48.
    """
    check_density(quantile, kernel)
    features = finite_features(features)
    if not len(features):
        raise ValueError("local density needs at least one image")
    squared = _SquaredDistances(features)
    if kernel == "cutoff":
        cutoff = _distance_at(squared, quantile)
        return squared.row_sums(lambda block: (block < cutoff).astype(np.float64)) - 1
    scale = -2 * (max(block.max() for _, block in squared) or 1.0)
    return squared.row_sums(lambda block: np.rint(np.exp(block / scale) * _GRID)) / _GRID / math.sqrt(2 * math.pi)


class _SquaredDistances:
    """Squared distances of all images of a class, block by block; kept where they are few, else computed each time.

    Iterating yields the first image of a block, and its distances, float64 [b, n - first], from itself on: every pair
    is in one block, those of a block among themselves in both orders.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._features = features
        self.count = len(features)
        self._kept = list(self._computed()) if self.count**2 <= 2 * _KEPT else None

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return iter(self._kept) if self._kept is not None else self._computed()

    def _computed(self) -> Iterator[tuple[int, np.ndarray]]:
        rows = max(1, _BLOCK // self.count)
        for start in range(0, self.count, rows):
            yield start, cdist(self._features[start : start + rows], self._features[start:], "sqeuclidean")

    def pairs(self) -> Iterator[np.ndarray]:
        """Yield the squared distance of every pair once: float64 [P] of each block, in any order."""
        for _, block in self:
            rows = len(block)
            yield np.concatenate([block[:, :rows][np.triu_indices(rows, k=1)], block[:, rows:].ravel()])

    def row_sums(self, term: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the sum over j of a term of each squared distance from i to j: float64 [n]."""
        sums = np.zeros(self.count)
        for start, block in self:
            terms, stop = term(block), start + len(block)
            sums[start:stop] += terms.sum(axis=1)
            sums[stop:] += terms[:, len(block) :].sum(axis=0)
        return sums


def _distance_at(squared: _SquaredDistances, quantile: float) -> float:
    """Return one element of all n * n squared distances in ascending order: n zeros, then each pair twice.

    Numbers that are not negative have the order of their bits. While too many are left to sort, those are kept whose
    next bits are the same as the element's, which a histogram tells; nothing but ties can be left in the end.
    """
    count = squared.count
    position = min(int(quantile * count**2), count**2 - 1)  # the product may round up to n ** 2
    if position < count:
        return 0.0
    rank, left = (position - count) // 2, count * (count - 1) // 2
    prefix, shift = 0, 63  # the highest bit is the sign
    while left > _KEPT and shift:
        step = min(_STEP, shift)
        histogram = np.zeros(1 << step, dtype=np.int64)
        for bits in _with_prefix(squared, prefix, shift):
            following = (bits >> np.uint64(shift - step)) & np.uint64((1 << step) - 1)
            histogram += np.bincount(following.astype(np.int64), minlength=1 << step)
        before = np.cumsum(histogram) - histogram
        chosen = int(np.searchsorted(before, rank, side="right")) - 1
        rank, left = rank - int(before[chosen]), int(histogram[chosen])
        prefix, shift = prefix << step | chosen, shift - step
    if not shift:
        return float(np.array(prefix, dtype=np.uint64).view(np.float64))
    candidates, start = np.empty(left, dtype=np.uint64), 0
    for bits in _with_prefix(squared, prefix, shift):
        candidates[start : start + len(bits)] = bits
        start += len(bits)
    candidates.partition(rank)
    return float(candidates[rank : rank + 1].view(np.float64)[0])


def _with_prefix(squared: _SquaredDistances, prefix: int, shift: int) -> Iterator[np.ndarray]:
    """Yield the bits, uint64 [P] of each block, of those pairs whose bits above `shift` are `prefix`."""
    for values in squared.pairs():
        bits = values.view(np.uint64)
        yield bits[bits >> np.uint64(shift) == prefix]


def check_density(quantile: float, kernel: str) -> None:
    """Check the arguments of `local_density`.

    Raises
    ------
    ValueError : `quantile` outside (0, 1), or an unknown kernel
    """
    if not 0 < quantile < 1:
        raise ValueError(f"density quantile must be in (0, 1), got {quantile}")
    if kernel not in ("cutoff", "gaussian"):
        raise ValueError(f"density kernel must be 'cutoff' or 'gaussian', got {kernel!r}")


def finite_features(features: np.ndarray) -> np.ndarray:
    """Return features as float64 [n, D].

    Raises
    ------
    ValueError : another shape, NaN or infinity
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be [n, D], got shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")
    return features
