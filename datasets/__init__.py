"""Datasets, long-tailed splits and the image store: `available()` names, `load(name, ...)` one split of one.

The package is always imported as `ltbench.datasets`, so it never shadows Hugging Face's `datasets`.
"""

from pathlib import Path

from ltbench.registry import Registry

registry: Registry = Registry("dataset", __name__, Path(__file__).parent)
register = registry.register
available = registry.available
