"""Pairs of 64-bit hashes that differ in few bits, without a look at every pair: multi-index hashing.

A hash is cut in `m` pieces. Of two hashes that differ in at most d bits, at least one piece differs in at most
floor(d / m) bits (pigeonhole principle). So, of each piece, hashes are put in a bucket by its value, and every hash
is compared with those in the buckets that so many flipped bits lead to (Norouzi, Punjani and Fleet, CVPR 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

_BITS = 64
_LOOKS = 1 << 20  # pairs that are looked at at once
_LARGEST_BUCKETS = 22  # bits of a piece: more buckets than that take more memory than they save time
_ONES = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def candidate_pairs(hashes: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the pairs of hashes that differ in at most `distance` bits, each once: int64 [P, 2], first < second.

    Parameters
    ----------
    hashes : bool [n, 64]
    distance : 0 to 64
    """
    number = _pieces(len(hashes), distance)
    piece_of = np.arange(_BITS) % number  # neighbouring bits of a perceptual hash go together: not in one piece
    order, ends = np.argsort(piece_of, kind="stable"), np.cumsum(np.bincount(piece_of)).tolist()
    packed = np.packbits(np.ascontiguousarray(hashes[:, order]), axis=1, bitorder="little")
    codes = packed.view("<u8").ravel().astype(np.uint64)
    bounds = list(pairwise([0, *ends]))
    pieces = [((codes >> np.uint64(low)) & np.uint64((1 << high - low) - 1)).astype(np.int64) for low, high in bounds]
    radius = distance // number
    for turn, (low, high) in enumerate(bounds):
        for pairs in _neighbours(pieces[turn], high - low, min(radius, high - low)):
            first, second = pairs[:, 0], pairs[:, 1]
            near = _differing(codes[first], codes[second]) <= distance
            pairs, first, second = pairs[near], first[near], second[near]
            for earlier in pieces[:turn]:  # found by that one already
                new = _differing(earlier[first], earlier[second]) > radius
                pairs, first, second = pairs[new], first[new], second[new]
            yield pairs


def _pieces(count: int, distance: int) -> int:
    """Return into how many pieces to cut hashes, so that the least has to be done: bucket visits and looks at pairs."""

    def work(number: int) -> float:
        bits, radius = _BITS / number, distance // number
        visits = sum(math.comb(math.ceil(bits), flipped) for flipped in range(min(radius, math.ceil(bits)) + 1))
        return number * visits * (1 + count / 2**bits)

    return min(range(math.ceil(_BITS / _LARGEST_BUCKETS), _BITS + 1), key=work)


def _neighbours(values: np.ndarray, bits: int, radius: int) -> Iterator[np.ndarray]:
    """Yield the pairs of values that differ in at most `radius` bits, each once: int64 [P, 2], first < second."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.searchsorted(ordered, np.arange((1 << bits) + 1))
    for flipped in range(radius + 1):
        for places in combinations(range(bits), flipped):
            wanted = ordered ^ sum(1 << place for place in places)
            # Of a bucket and another one the lower sees the higher, inside a bucket each image those behind it.
            begins = starts[wanted] if flipped else np.arange(1, len(ordered) + 1)
            sizes = np.where(wanted >= ordered, starts[wanted + 1] - begins, 0)
            for rows in _portions(sizes):
                first = np.repeat(rows, sizes[rows])
                inside = np.arange(len(first)) - np.repeat(np.cumsum(sizes[rows]) - sizes[rows], sizes[rows])
                pairs = order[np.stack([first, begins[first] + inside], axis=1)]
                yield np.sort(pairs, axis=1)


def _portions(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of a size above 0, as many at once as have `_LOOKS` together, at least one."""
    rows = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[rows])
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _LOOKS, side="right")))
        yield rows[start:stop]
        start = stop


def _differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return in how many bits whole numbers differ: uint8 [n]."""
    words = np.ascontiguousarray(one ^ other).view(np.uint16).reshape(-1, 4)
    return _ONES[words].sum(axis=1, dtype=np.uint8)
