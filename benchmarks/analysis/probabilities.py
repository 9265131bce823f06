"""Class probabilities of many images, and each class against the rest: in blocks, so never all in float64 at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CALIBRATION_BINS = 15
"""Bins of confidence that calibration is measured in."""

_BLOCK = 2**21  # numbers that are handled at once
_ROWS = 2048  # images that are copied at once from rows into columns


class Probabilities:
    """The softmax of logits, in float64.

    Parameters
    ----------
    logits : float [n, K]
    temperature : by which they are divided

    Attributes
    ----------
    confidence : largest probability of each image, float64 [n]
    totals : sum of each class's probability over the images, float64 [K]

    Raises
    ------
    ValueError : logits that are not numbers
    """

    def __init__(self, logits: np.ndarray, temperature: float = 1.0) -> None:
        self._logits, self._temperature = logits, temperature
        images, classes = logits.shape
        self._largest, self._sums = np.empty(images), np.empty(images)
        self.totals = np.zeros(classes)
        for rows in blocks(images, max(1, _BLOCK // classes)):
            block = self._scaled(rows, slice(None))
            self._largest[rows] = block.max(axis=1)
            block -= self._largest[rows, None]
            np.exp(block, out=block)
            self._sums[rows] = block.sum(axis=1)
            self.totals += (1 / self._sums[rows]) @ block
        if np.isnan(self._sums).any():
            raise ValueError("logits that are not numbers")
        self.confidence = 1 / self._sums

    def of_class(self, label: int) -> np.ndarray:
        """Return a class's probability for each image, float64 [n]."""
        return np.exp(self._scaled(slice(None), label) - self._largest) / self._sums

    def of_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the probability of each image's class, int [n]: float64 [n]."""
        return np.exp(self._scaled(np.arange(len(labels)), labels) - self._largest) / self._sums

    def log_likelihood(self, labels: np.ndarray) -> np.ndarray:
        """Return the logarithm of the probability of each image's class, int [n]: float64 [n]."""
        return self._scaled(np.arange(len(labels)), labels) - self._largest - np.log(self._sums)

    def by_image(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some images at a time, and their class probabilities, float64 [m, K]."""
        images, classes = self._logits.shape
        for rows in blocks(images, max(1, _BLOCK // classes)):
            yield rows, np.exp(self._scaled(rows, slice(None)) - self._largest[rows, None]) / self._sums[rows, None]

    def by_class(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each class with its probability for each image, float64 [n]."""
        images, classes = self._logits.shape
        for columns in blocks(classes, max(1, _BLOCK // images)):
            block = np.empty((columns.stop - columns.start, images))
            for rows in blocks(images, _ROWS):
                block[:, rows] = (self._scaled(rows, columns) - self._largest[rows, None]).T
            np.exp(block, out=block)
            block /= self._sums
            yield from enumerate(block, columns.start)

    def against_rest(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return AUROC, AUPRC (average precision) and calibration error of each class, one against the rest.

        AUROC and AUPRC are those of the probabilities, NaN for a class that no image or every image is of. The
        calibration error is the gap between a class's probability and its frequency over `CALIBRATION_BINS` equal bins
        of the probability, weighted by size: Σ_b |Σ_(i in b) (p_ic - [y_i = c])| / n.

        Parameters
        ----------
        labels : int [n], 0 to K - 1

        Returns
        -------
        float64 [K], three times
        """
        found = np.full((3, len(self.totals)), np.nan)
        members = class_members(labels, len(self.totals))
        for label, scores in self.by_class():
            found[2, label] = self._calibration_error(label, scores, labels)
            if 0 < len(members[label]) < len(labels):
                found[:2, label] = _ranked(np.sort(scores[members[label]]), np.sort(scores))
        return found[0], found[1], found[2]

    def _calibration_error(self, label: int, scores: np.ndarray, labels: np.ndarray) -> float:
        """Return the calibration error of a class: most probabilities are in the first bin, which takes what is left.

        Parameters
        ----------
        scores : as `by_class` yields them
        """
        likely = np.flatnonzero(scores > 1 / CALIBRATION_BINS)
        score, own, gaps = scores[likely], labels[likely] == label, np.zeros(CALIBRATION_BINS)
        np.add.at(gaps, calibration_bins(score), score - own)
        gaps[0] += (self.totals[label] - score.sum()) - ((labels == label).sum() - own.sum())
        return float(np.abs(gaps).sum() / len(labels))

    def _scaled(self, rows: slice | np.ndarray, columns: slice | np.ndarray | int) -> np.ndarray:
        return self._logits[rows, columns].astype(np.float64) / self._temperature


def blocks(length: int, size: int) -> Iterator[slice]:
    """Yield slices that cover `length` places, `size` each but for the last."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def class_members(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Return the places of each class's images in order, K arrays of int64.

    Parameters
    ----------
    labels : int [n], 0 to K - 1
    num_classes : K
    """
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def calibration_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each image: int64 [n], 0 to 14, of 15 equal bins of confidence; an upper edge is in its bin.

    Parameters
    ----------
    confidence : float [n], 0 to 1
    """
    return np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence, weighted by size.

    Σ_b |Σ_(i in b) (confidence_i - right_i)| / n; the upper edge of a bin is in it.

    Parameters
    ----------
    confidence : float [n], largest probability of each image
    right : bool [n], whether the image is of the class that has it
    """
    gap = np.bincount(calibration_bins(confidence), weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def _ranked(positive: np.ndarray, every: np.ndarray) -> tuple[float, float]:
    """Return AUROC and average precision; images of equal scores are ranked alike.

    Parameters
    ----------
    positive, every : scores of the images of the class and of all images, each in ascending order
    """
    below, own_below = (np.searchsorted(scores, positive, "left") for scores in (every, positive))
    up_to, own_up_to = (np.searchsorted(scores, positive, "right") for scores in (every, positive))
    negatives = len(every) - len(positive)
    beaten = ((below - own_below) + (up_to - own_up_to)).sum() / 2  # a tie counts as half
    precision = (len(positive) - own_below) / (len(every) - below)
    return beaten / (len(positive) * negatives), precision.mean()
