"""Predictions as they come: rows of a table, what is right of those with a label, and the images worth a look."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

import numpy as np

from ltbench.benchmarks.analysis.rendering import in_cell
from ltbench.benchmarks.serving.decisions import Proportion, Wanted
from ltbench.benchmarks.serving.images import Decoded, ImageList, decoded_batches
from ltbench.benchmarks.serving.predictor import Predictor

SHOWN = 12
"""Images of a kind in a montage."""


@dataclass(frozen=True)
class Decisions:
    """What is said of an image besides its probabilities.

    Attributes
    ----------
    thresholds : asked for, with their values
    limits : smallest probability with which each class is in a set, float64 [K]; None: there are no sets
    """

    thresholds: Sequence[tuple[Wanted, float]] = ()
    limits: np.ndarray | None = None


class Prediction(NamedTuple):
    """An image with its probabilities, float64 [K], and its class id; each None where there is none."""

    image: Decoded
    probabilities: np.ndarray | None
    label: int | None


def predictions(predictor: Predictor, images: ImageList, batch_size: int) -> Iterator[Prediction]:
    """Yield predictions in the order of the images; a batch of pixels is in memory at once."""
    for batch in decoded_batches(images, predictor.models[0].decode, batch_size):
        pixels = [each.pixels for each in batch if each.pixels is not None]
        rows = iter(predictor.probabilities(np.stack(pixels)) if pixels else ())
        for each in batch:
            label = None if images.labels is None else images.labels[each.position]
            own = None if each.pixels is None else next(rows)
            yield Prediction(each, own, None if label == -1 else label)


class Writer:
    """Writes predictions as CSV, a row as it comes.

    Parameters
    ----------
    file : text
    images, class_names, decisions : what the columns are
    """

    def __init__(self, file: TextIO, images: ImageList, class_names: Sequence[str], decisions: Decisions) -> None:
        self._csv, self._images = csv.writer(file, lineterminator="\n"), images
        self._names, self._decisions = class_names, decisions
        titles = [wanted.title for wanted, _ in decisions.thresholds]
        labels = [] if images.labels is None else ["label"]
        self._width = len(class_names) + 3 + len(titles)
        self._write(["image", *labels, "predicted", "probability", *class_names, "set", *titles, "error"])

    def write(self, prediction: Prediction) -> None:
        """Write a row."""
        image, probabilities, label = prediction
        start: list[Any] = [self._images.names[image.position]]
        if self._images.labels is not None:
            start.append("" if label is None else self._names[label])
        if probabilities is None:
            self._write([*start, *[""] * self._width, image.reason])
            return
        best = int(probabilities.argmax())
        called = [
            "yes" if probabilities[self._names.index(own.class_name)] >= value else "no"
            for own, value in self._decisions.thresholds
        ]
        numbers = [f"{probability:.6g}" for probability in probabilities]
        self._write([*start, self._names[best], numbers[best], *numbers, self._set(probabilities), *called, ""])

    def _set(self, probabilities: np.ndarray) -> str:
        limits = self._decisions.limits
        if limits is None:
            return "n/a"
        return "; ".join(self._names[label] for label in np.flatnonzero(probabilities >= limits).tolist())

    def _write(self, cells: Sequence[Any]) -> None:
        self._csv.writerow([in_cell(cell) for cell in cells])


@dataclass
class Tally:
    """How many images there were, and how many of those with a label were predicted rightly, by class."""

    class_names: Sequence[str]
    unreadable: int = 0
    readable: int = 0
    first_reason: str = ""
    right: np.ndarray = field(init=False)
    labelled: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.right, self.labelled = (np.zeros(len(self.class_names), dtype=np.int64) for _ in range(2))

    def add(self, prediction: Prediction) -> None:
        """Count an image."""
        image, probabilities, label = prediction
        if probabilities is None:
            self.unreadable += 1
            self.first_reason = self.first_reason or image.reason
            return
        self.readable += 1
        if label is not None:
            self.labelled[label] += 1
            self.right[label] += probabilities.argmax() == label

    def lines(self) -> list[str]:
        """Return the accuracy over the images with a label, overall, as mean of the classes, and of each class."""
        if not self.labelled.any():
            return []
        there = self.labelled > 0
        mean = (self.right[there] / self.labelled[there]).mean()
        total = int(self.labelled.sum())
        overall = Proportion(int(self.right.sum()), total, total).text()
        lines = [
            f"accuracy of {self.labelled.sum()} images with a label: {overall}; "
            f"mean of {there.sum()} classes: {100 * mean:.1f} %"
        ]
        for name, right, count in zip(self.class_names, self.right.tolist(), self.labelled.tolist(), strict=True):
            lines += [f"  {name}: {right} of {count}, {Proportion(right, count, count).text()}"] if count else []
        return lines


class Shown(NamedTuple):
    """An image of a montage: how far it belongs there, its place in the list, its pixels, and what is written below."""

    rank: float
    position: int
    pixels: np.ndarray
    caption: str


class Montage:
    """Keeps the images that a montage shows: the surest, the least sure, and the surest of the wrong ones."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = class_names
        self.kept: dict[str, list[Shown]] = {"surest": [], "least sure": [], "wrong, surest first": []}

    def add(self, prediction: Prediction) -> None:
        """Keep an image where it belongs to those that are shown."""
        image, probabilities, label = prediction
        if probabilities is None or image.pixels is None:
            return
        best = int(probabilities.argmax())
        sure, caption = float(probabilities[best]), f"{self._names[best]} {probabilities[best]:.2f}"
        wrong = label is not None and best != label
        if label is not None and wrong:
            caption += f"\nis {self._names[label]}"
        ranks = dict(zip(self.kept, (sure, -sure, sure if wrong else None), strict=True))
        for kind, rank in ranks.items():
            if rank is not None:
                heapq.heappush(self.kept[kind], Shown(rank, -image.position, image.pixels, caption))
                if len(self.kept[kind]) > SHOWN:
                    heapq.heappop(self.kept[kind])

    def rows(self) -> dict[str, list[tuple[np.ndarray, str]]]:
        """Return the images of each kind with what is written below them, in order."""
        return {
            kind: [
                (each.pixels, each.caption)
                for each in sorted(kept, key=lambda own: (own.rank, own.position), reverse=True)
            ]
            for kind, kept in self.kept.items()
            if kept
        }
