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
        order = np.argsort(pieces[turn], kind="stable")
        ordered = codes[order]
        for first, second in _neighbours(pieces[turn][order], high - low, min(radius, high - low)):
            near = _differing(ordered[first], ordered[second]) <= distance
            pairs = np.sort(order[np.stack([first[near], second[near]], axis=1)], axis=1)
            for earlier in pieces[:turn]:  # found by that one already
                pairs = pairs[_differing(*earlier[pairs.T]) > radius]
            yield pairs


def _pieces(count: int, distance: int) -> int:
    """Return into how many pieces to cut hashes, so that the least has to be done: bucket visits and looks at pairs."""

    def work(number: int) -> float:
        bits, radius = _BITS / number, distance // number
        visits = sum(math.comb(math.ceil(bits), flipped) for flipped in range(min(radius, math.ceil(bits)) + 1))
        return number * visits * (1 + count / 2**bits)

    return min(range(math.ceil(_BITS / _LARGEST_BUCKETS), _BITS + 1), key=work)


def _neighbours(ordered: np.ndarray, bits: int, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of values that differ in at most `radius` bits, each once: positions, int [P] twice.

    Parameters
    ----------
    ordered : int64 [n], ascending, below 2^bits
    """
    starts = np.searchsorted(ordered, np.arange((1 << bits) + 1)).astype(np.int32)
    everyone = np.arange(len(ordered), dtype=np.int32)
    yield from _expanded(everyone, everyone + 1, starts[ordered + 1])  # of a bucket each sees those behind it
    for highest in range(bits if radius else 0):  # of two buckets the lower sees the higher
        rows = everyone[ordered & (1 << highest) == 0]
        own = ordered[rows] | 1 << highest
        for flipped in range(radius):
            for places in combinations(range(highest), flipped):
                wanted = own ^ sum(1 << place for place in places)
                yield from _expanded(rows, starts[wanted], starts[wanted + 1])


def _expanded(rows: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each row with each position from its begin to before its end: int [P] twice, some `_LOOKS` at once."""
    sizes = ends - begins
    seeing = np.flatnonzero(sizes)
    rows, begins, sizes = rows[seeing], begins[seeing], sizes[seeing]
    after = np.cumsum(sizes)
    start = 0
    while start < len(rows):
        before = after[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(after, before + _LOOKS, side="right")))
        few = slice(start, stop)
        shift = np.repeat(begins[few] + sizes[few] - after[few], sizes[few])
        yield np.repeat(rows[few], sizes[few]), np.arange(before, after[stop - 1]) + shift
        start = stop


def _differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return in how many bits whole numbers differ: uint8 [n]."""
    ones = _ONES[np.ascontiguousarray(one ^ other).view(np.uint16)].view(np.uint32)
    return (ones * np.uint32(0x01010101) >> np.uint32(24)).astype(np.uint8)  # the sum of four bytes
