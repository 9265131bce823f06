"""ltbench: a benchmark suite for long-tailed image classification, built around medical images.

import ltbench

results = ltbench.run(ltbench.Request(methods=["ce", "flex"], ratios=[100]))
print(results.table("overview"))
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.results import Results
    from ltbench.benchmarks.executors.execution import run
    from ltbench.benchmarks.serving.model import load_model
    from ltbench.benchmarks.training.request import Request
    from ltbench.errors import UserError

__version__ = "0.2.0.dev0"

__all__ = ["Request", "Results", "UserError", "load_model", "load_results", "run"]

_HOMES = {
    "Request": "benchmarks.training.request",
    "Results": "benchmarks.analysis.results",
    "UserError": "errors",
    "load_model": "benchmarks.serving.model",
    "run": "benchmarks.executors.execution",
}


def load_results(folder: Path | str = "results") -> Results:
    """Return all finished trials under a results folder.

    Raises
    ------
    UserError : the folder is missing, or a result is corrupt
    """
    from ltbench.benchmarks.analysis.results import Results

    return Results.load(folder)


def __getattr__(name: str) -> Any:
    """Import a public name, and what it needs, only when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
