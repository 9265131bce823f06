"""Fields of the protocol that records of earlier versions lack."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

LATER_FIELDS: Mapping[str, Any] = MappingProxyType(
    {
        "weights_sha256": "",
        "tune": "full",
        "tune_rank": 8,
        "tta": "none",
        "frozen_features": False,
        "budget": "paper",
        "init": "scratch",
        "vary_split": False,
        "folds": 0,
    }
)
"""Their values by which those records were made."""
