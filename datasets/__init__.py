"""Datasets, long-tailed splits and the image store: `available()` names, `load(name, ...)` one split of one.

The package is always imported as `ltbench.datasets`, so it never shadows Hugging Face's `datasets`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.registry import Registry

if TYPE_CHECKING:
    from ltbench.datasets.base import Source
    from ltbench.datasets.loading import SplitDataset, load
    from ltbench.datasets.splits.longtail import pareto_class_counts
    from ltbench.datasets.splits.manifest import Manifest, overlap

__all__ = [
    "Manifest",
    "Source",
    "SplitDataset",
    "available",
    "load",
    "overlap",
    "pareto_class_counts",
    "register",
    "registry",
]

registry: Registry = Registry("dataset", f"{__name__}.sources", Path(__file__).parent / "sources")
register = registry.register
available = registry.available

_HOMES = {
    "Manifest": "splits.manifest",
    "Source": "base",
    "SplitDataset": "loading",
    "load": "loading",
    "overlap": "splits.manifest",
    "pareto_class_counts": "splits.longtail",
}


def __getattr__(name: str) -> Any:
    """Import pandas and the rest only when a name that needs them is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
