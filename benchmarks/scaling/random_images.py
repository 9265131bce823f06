"""Images of random bytes, for measurements that need no data."""

from __future__ import annotations

import numpy as np

from ltbench.datasets.base import Source

CLASSES = 8


class RandomImages(Source):
    """Random bytes, so that measuring needs no data."""

    name = "random"
    title = "random"
    licence = citation = ""
    preset = "paper"
    default_n_max = 1

    def __init__(self, count: int) -> None:
        super().__init__(None)
        self.class_names = tuple(str(label) for label in range(CLASSES))
        self.ids = np.array([f"random_{number:06d}" for number in range(count)])
        self.labels = np.arange(count, dtype=np.int64) % CLASSES
        self.lesions, self.present = self.ids, np.ones(count, dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        """Return random bytes, uint8 [3, size, size]."""
        return np.random.default_rng(position).integers(0, 256, (3, size, size), dtype=np.uint8)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return ones."""
        return np.ones(len(positions), dtype=np.int64)
