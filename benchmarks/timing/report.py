"""What `throughput` prints beside images per second: checkpoints, the README's job by part, trials side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from ltbench.benchmarks.timing.checkpoint import checkpoint_cost
from ltbench.benchmarks.timing.job import METHODS, by_part, side_by_side
from ltbench.benchmarks.training.request import Request
from ltbench.processes import available_cores

_ON_A_GPU: Mapping[str, Any] = {"backbone": "resnet18", "image_size": 64, "batch_size": 64}  # of trials side by side
_TRIALS_ON_A_GPU = 5


def checkpoint_text(device: torch.device, backbone: str, size: int) -> str:
    """Return what a checkpoint takes."""
    with tempfile.TemporaryDirectory() as folder:
        return checkpoint_cost(backbone, size, device, Path(folder)).line(Request().checkpoint_seconds)


def job_text(device: torch.device, backbone: str, size: int) -> str:
    """Return the parts of the README's job as a table, the longest first."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = by_part(Path(folder), device)
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda part: -part[1])
    rows = [[name, f"{spent:.1f}", f"{100 * spent / total:.1f}"] for name, spent in ordered]
    headers = [f"{', '.join(METHODS)}: one trial each, one after another, {total:.1f} s", "seconds", "%"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def trials_text(device: torch.device, backbone: str, size: int) -> str:
    """Return how much longer a trial trains beside others: one a core of the CPU, five on a GPU."""
    on_gpu = device.type == "cuda"
    trials = _TRIALS_ON_A_GPU if on_gpu else available_cores()
    if trials == 1:
        return "trials side by side: there is one core"
    with tempfile.TemporaryDirectory() as folder:
        alone, beside = side_by_side(Path(folder), device, trials, protocol=_ON_A_GPU if on_gpu else {})
    return (
        f"trials side by side: one of ce trains {alone:.1f} s alone and {beside:.1f} s as one of {trials}, "
        f"{beside / alone:.2f} times as long"
    )


MEASUREMENTS: Mapping[str, Callable[[torch.device, str, int], str]] = {
    "checkpoint": checkpoint_text,
    "job": job_text,
    "trials": trials_text,
}
"""By the names that `--measure` takes: of a device, a backbone and an image size to a text."""
