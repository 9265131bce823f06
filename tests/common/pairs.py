"""A source of images in pairs, two to a lesion, for splits."""

from typing import Any

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.splits.draw import make_split
from ltbench.datasets.splits.manifest import Manifest


class Pairs(Source):
    """Three classes of 60, 200 and 100 images, two to a lesion."""

    title = "pairs"
    has_lesion_ids = True
    class_names = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__(None)
        self.labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 200, 100]))
        self.ids = np.array([f"image{index:03d}" for index in range(360)])
        self.lesions = np.empty(360, dtype="U8")
        for label, name in enumerate(self.class_names):
            members = np.flatnonzero(self.labels == label)
            self.lesions[members] = [f"{name}{index // 2}" for index in range(len(members))]
        self.present = np.ones(360, dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        raise NotImplementedError

    def fingerprints(self, positions: Any) -> Any:
        raise NotImplementedError


def split_of(source: Source, **changes: Any) -> Manifest:
    """Return a split of ratio 10 with 5 validation and 10 test images a class, but for changes."""
    options: dict[str, Any] = {"split": "paper", "split_dir": None, "ratio": 10, "n_max": 100, "val_per_class": 5}
    options |= {"test_per_class": 10, "seed": 0, "allow_missing": False} | changes
    return make_split(source, **options)
