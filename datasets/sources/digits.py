"""Digits: 1,797 real handwritten digits of 8 x 8 pixels, shipped with scikit-learn; real data without a download.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its test part.
Size: 10 classes, 1,797 images.
Licence: CC BY 4.0.

Ten classes of 174 to 183 images, so a long tail is drawn from them as from any balanced dataset. Who wrote a digit is
not known here, so no split can separate the writers. Good for a quick look at real pixels, not for conclusions.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from ltbench.datasets import register
from ltbench.datasets.base import Source
from ltbench.files import fingerprint

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
_FULL = 16  # the darkest ink in the original, which counts pixels of a 4 x 4 block


@register("digits")
class Digits(Source):
    """The digits of scikit-learn, white ink on black, enlarged to the size that is asked for.

    Parameters
    ----------
    root : ignored, the images come with scikit-learn
    """

    title = "digits (real handwritten digits, scikit-learn)"
    licence = "CC BY 4.0"
    citation = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 10.24432/C50P49 (1998)"
    website = "https://archive.ics.uci.edu/dataset/80"
    preset = "quick"
    default_ratio = 20.0
    default_n_max = "auto"
    default_val_per_class = 15
    default_test_per_class = 30
    needs_folder = False
    revision = 1  # raise when any pixel changes
    expected_counts = MappingProxyType(dict(zip(CLASSES, _COUNTS, strict=True)))
    class_names = CLASSES

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        from sklearn.datasets import load_digits

        super().__init__(**options)
        digits = load_digits()
        self._images = np.rint(digits.images * (255 / _FULL)).astype(np.uint8)  # [N, 8, 8]
        self.labels = digits.target.astype(np.int64)
        self.ids = np.array([f"digit_{index:04d}" for index in range(len(self.labels))])
        self.lesions = self.ids
        self.present = np.ones(len(self.ids), dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        """Return image `position` enlarged to `size` x `size`: uint8 [3, size, size], three equal channels."""
        image = Image.fromarray(self._images[position]).resize((size, size), Image.Resampling.BICUBIC)
        return np.repeat(np.asarray(image)[None], 3, axis=0)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero, from the pixels of each image."""
        return np.array([fingerprint(self._images[position].tobytes()) for position in positions], dtype=np.int64)
