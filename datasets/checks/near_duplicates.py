"""Images that show the same picture although their bytes differ: saved again, resized, recoloured, slightly cropped.

Two steps. A perceptual hash of 64 bits (pHash: signs of the lowest frequencies of a cosine transform) finds the
candidates; most of those are chance among pictures of one kind, a dark spot on bright skin above all. Small grey
copies of both decide: their correlation must reach `CORRELATION`.

Measured on the 10,015 images of HAM10000, at a Hamming distance of 8: the hash alone makes 5,782 pairs, 188 of them of
one lesion; 123 pairs are left after the second step, 120 of them of one lesion. Of 501 images that were changed on
purpose, all are found after JPEG at quality 30, half or triple size, a loss of colour, or 15 % more light; 98 % after
JPEG at quality 10; 90 % after a crop by 2 % on every side, 15 % by 5 %; none after half a turn or in a mirror.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ltbench.datasets.checks.hash_search import candidate_pairs

DISTANCE = 8
"""Hamming distance of the hashes, of 64 bits, up to which two images are candidates."""
CORRELATION = 0.98
"""Correlation of the small grey copies from which on two images are near-duplicates."""

THUMB = 16
_SIDE, _LOW = 32, 8
_COSINES = np.cos(np.pi * np.outer(np.arange(_LOW), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))
_CHUNK = 1 << 15  # pairs whose copies are compared at once
_ROWS = 1 << 10  # copies that are normalised at once


def sketch(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the perceptual hash of an image, bool [64], and its grey copy, uint8 [THUMB, THUMB]."""
    small = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=np.float64)
    waves = (_COSINES @ small @ _COSINES.T).ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False  # the mean grey
    folds = _SIDE // THUMB
    thumb = small.reshape(THUMB, folds, THUMB, folds).mean(axis=(1, 3))
    return bits, np.rint(thumb).astype(np.uint8)


def near_pairs(hashes: np.ndarray, thumbs: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Return the pairs of near-duplicates: int64 [P, 2], positions (first < second), sorted.

    Parameters
    ----------
    hashes : bool [n, 64]
    thumbs : uint8 [n, THUMB, THUMB]
    distance : the largest Hamming distance, 0 to 64
    """
    copies = _normalised(thumbs)
    found = [np.empty((0, 2), dtype=np.int64)]
    for pairs in candidate_pairs(hashes, distance):
        found += [chunk[_alike(copies, chunk)] for chunk in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))]
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _normalised(thumbs: np.ndarray) -> np.ndarray:
    """Return copies of mean 0 and length 1, float32 [n, THUMB^2]; one without any contrast is all 0."""
    copies = np.empty((len(thumbs), THUMB * THUMB), dtype=np.float32)
    for start in range(0, len(copies), _ROWS):
        own = copies[start : start + _ROWS]
        own[:] = thumbs[start : start + _ROWS].reshape(own.shape)
        own -= own.mean(axis=1, keepdims=True)
        own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1.0)
    return copies


def _alike(copies: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.einsum("pk,pk->p", copies[pairs[:, 0]], copies[pairs[:, 1]]) >= CORRELATION
