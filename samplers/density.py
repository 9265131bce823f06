"""How densely the images of one class lie in feature space (CurriculumNet, ECCV 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

Kernel = Literal["cutoff", "gaussian"]

_GRID = 2.0**36  # sums of whole numbers have no rounding: in whatever order, equal images get equal densities
_BLOCK = 1 << 22  # distances that are computed at once
_KEPT = 1 << 25  # distances that are in memory at once
_STEP = 24  # bits of a distance that one pass decides


def local_density(features: np.ndarray, quantile: float = 0.6, kernel: Kernel = "cutoff") -> np.ndarray:
    """Return how densely the images of one class lie around each of them.

    With D the n * n Euclidean distances, diagonal included:

    - `cutoff`: rho_i = #{j: D_ij < d_c} - 1, d_c = element floor(`quantile` * n ** 2), from 0, of all distances in
      ascending order. So d_c is 0, and every density -1, where that many distances are 0;
    - `gaussian`: rho_i = sum_j exp(-(D_ij / max D) ** 2 / 2) / sqrt(2 pi), i itself included; no `quantile`. Each
      term is rounded to a multiple of 2 ** -36.

    Distances come from differences, not from inner products: equal images are at distance exactly 0, and D_ij is
    D_ji to the bit. Time: n ** 2 D, as a rule twice over where n is above 8192, for the distances are not kept then.
    Memory: at most 0.7 GB beside the features.

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
        return _closer_than_quantile(squared, quantile) - 1
    scale, sums = -2 * (max(block.max() for _, block in squared) or 1.0), np.zeros(len(features))
    for start, block in squared:
        _add_both_ways(sums, start, np.rint(np.exp(block / scale) * _GRID))
    return sums / _GRID / math.sqrt(2 * math.pi)


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


def _closer_than_quantile(squared: _SquaredDistances, quantile: float) -> np.ndarray:
    """Return #{j: D_ij < d_c} of each image, float64 [n], d_c being an element of all n * n distances in order.

    In order these are n zeros, then each pair twice. An interval that holds d_c is found first; one more pass counts
    what is below it, and keeps what is in it.
    """
    count = squared.count
    position = min(int(quantile * count**2), count**2 - 1)  # the product may round up to n ** 2
    if position < count:
        return np.zeros(count)
    prefix, shift, rank = _interval_of(squared, (position - count) // 2)
    sums, inside = np.zeros(count), []
    for start, block in squared:
        leading = block.view(np.uint64) >> np.uint64(shift)
        _add_both_ways(sums, start, leading < prefix)
        if shift:  # else all of the interval is d_c
            rows, columns = np.nonzero(leading == prefix)
            once = rows <= columns
            rows, columns = rows[once], columns[once]
            inside.append((block[rows, columns], (rows + start).astype(np.int32), (columns + start).astype(np.int32)))
    if inside:
        values, first, second = (np.concatenate(parts) for parts in zip(*inside, strict=True))
        closer = values < np.partition(values[first < second], rank)[rank]
        sums += np.bincount(first[closer], minlength=count)
        sums += np.bincount(second[closer & (first < second)], minlength=count)
    return sums


def _interval_of(squared: _SquaredDistances, rank: int) -> tuple[int, int, int]:
    """Return an interval that holds an element of the distances of all pairs in order, and its rank inside.

    Numbers that are not negative have the order of their bits. The interval is all numbers whose bits above `shift`
    are `prefix`, both returned; of more numbers than can be kept, a histogram decides the next bits. Where `shift` is
    0, the interval is one number.
    """
    prefix, shift, left = 0, 63, squared.count * (squared.count - 1) // 2  # the highest bit is the sign
    while left > _KEPT // 8 and shift:
        step = min(_STEP, shift)
        histogram = np.zeros(1 << step, dtype=np.int64)
        for values in squared.pairs():
            bits = values.view(np.uint64)
            bits = bits[bits >> np.uint64(shift) == prefix] >> np.uint64(shift - step)
            if len(bits):
                following = (bits & np.uint64((1 << step) - 1)).astype(np.int64)
                least = following.min()
                counts = np.bincount(following - least)
                histogram[least : least + len(counts)] += counts
        before = np.cumsum(histogram) - histogram
        chosen = int(np.searchsorted(before, rank, side="right")) - 1
        rank, left = rank - int(before[chosen]), int(histogram[chosen])
        prefix, shift = prefix << step | chosen, shift - step
    return prefix, shift, rank


def _add_both_ways(sums: np.ndarray, start: int, terms: np.ndarray) -> None:
    """Add the terms of a block's pairs, [b, n - start], to the sums of both of their images, [n]."""
    stop = start + len(terms)
    sums[start:stop] += terms.sum(axis=1)
    sums[stop:] += terms[:, len(terms) :].sum(axis=0)


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
