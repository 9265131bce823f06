"""What a trial has cost, shared stages included."""

from __future__ import annotations

import sys
from typing import Any

import torch

from ltbench.benchmarks.training.journal import Journal
from ltbench.methods.base import Method


def cost_of(journal: Journal, method: Method, device: torch.device) -> dict[str, Any]:
    """Return the full cost of a trial, that of shared stages included.

    `train_seconds` are wall-clock seconds of all stages and of the passes between them; `images_seen` counts training
    images, every view and those of partner streams; `forward_images` counts images that went through a backbone: every
    pass of every network, in training, validation, and features and scoring between stages; `peak_memory_mib` is the
    device's on a GPU, else the process's, which may have run earlier trials.
    """
    stages = []
    for stage in journal.stages():
        reports = stage["reports"]
        stages.append(
            {
                "name": stage["name"],
                "cached": stage["cached"],
                "epochs": sum(report["steps"] > 0 for report in reports),
                "steps": sum(report["steps"] for report in reports),
                "images": sum(report["images"] for report in reports),
                "forward_images": sum(report["forward_images"] for report in reports),
                "seconds": sum(report["seconds"] for report in reports),
            }
        )
    memos = [memo["cost"] for memo in journal.memos().values()]
    on_gpu = device.type == "cuda"
    return {
        "train_seconds": sum(stage["seconds"] for stage in stages) + sum(memo["seconds"] for memo in memos),
        "images_seen": sum(stage["images"] for stage in stages),
        "forward_images": sum(each["forward_images"] for each in (*stages, *memos)),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _peak_process_memory(),
        "stages": stages,
    }


def _peak_process_memory() -> float | None:
    """Return the most memory that this process has held, MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
