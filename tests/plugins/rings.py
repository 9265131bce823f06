"""RINGS: one to `classes` concentric rings, drawn on demand; a dataset without a folder.

Licence: MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.datasets import Source, register
from ltbench.options import option

SUPPLY = 40  # images a class


@register("rings")
class Rings(Source):
    """The class is the number of rings; centre and colour are random.

    Parameters
    ----------
    root : ignored, nothing is read from disk
    options : see `Options`
    """

    @dataclass(frozen=True)
    class Options:
        """What is drawn."""

        classes: int = option(3, low=2, high=6, help="most rings of an image")

    title = "rings"
    licence = "MIT"
    citation = "these tests"
    preset = "quick"
    needs_folder = False
    default_ratio = 4.0
    default_n_max = "auto"
    default_val_per_class = 5
    default_test_per_class = 5
    special_classes = ("2 rings",)

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        count = self.options.classes
        self.variant = f"{count} classes"
        self.class_names = tuple(f"{number} rings" for number in range(1, count + 1))
        self.labels = np.repeat(np.arange(count, dtype=np.int64), SUPPLY)
        self.ids = np.array([f"ring_{label}_{index:02d}" for label in range(count) for index in range(SUPPLY)])
        self.lesions = self.ids
        self.present = np.ones(len(self.ids), dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        """Draw image `position`: uint8 [3, size, size]."""
        rng = np.random.default_rng(position)
        axis = np.linspace(-1, 1, size)
        radius = np.hypot(*np.meshgrid(axis + rng.uniform(-0.2, 0.2), axis + rng.uniform(-0.2, 0.2)))
        rings = 0.5 + 0.5 * np.cos(2 * np.pi * radius * (position // SUPPLY + 1))
        return (rings * rng.uniform(100, 255, size=(3, 1, 1))).astype(np.uint8)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n]: the version of the drawing."""
        return np.ones(len(positions), dtype=np.int64)
