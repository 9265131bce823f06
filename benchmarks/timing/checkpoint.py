"""What a checkpoint of a network with Adam takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ltbench.benchmarks.training.device import place
from ltbench.benchmarks.training.journal import Checkpoint, Journal
from ltbench.benchmarks.training.protocol import protocol_for
from ltbench.benchmarks.training.stages.optimizers import new_optimizer
from ltbench.benchmarks.training.stages.snapshots import Snapshot
from ltbench.benchmarks.training.trial import build_method
from ltbench.methods import configure, registry

_REPEATS = 5


@dataclass(frozen=True)
class CheckpointCost:
    """Of one checkpoint.

    Attributes
    ----------
    megabytes : of the file
    copied : seconds that training waits for at the end of an epoch
    written : seconds that a thread takes beside training
    """

    megabytes: float
    copied: float
    written: float

    def line(self, seconds: float) -> str:
        """Return it in words, with its share of the time between two checkpoints."""
        copied, share = 1000 * self.copied, 100 * self.written / seconds
        return (
            f"checkpoint: {self.megabytes:.0f} MB, copied in {copied:.1f} ms after an epoch, written in "
            f"{self.written:.2f} s beside training, every {seconds:g} s at most: {share:.1f} % of a core"
        )


def checkpoint_cost(backbone: str, size: int, device: torch.device, folder: Path) -> CheckpointCost:
    """Return what checkpoints of plain training cost: the fastest of some.

    Parameters
    ----------
    folder : an empty one, on the disk that they would be written to
    """
    protocol, ce = protocol_for("paper", backbone=backbone, image_size=size), registry.get("ce")
    method = build_method(ce, configure("ce", ce.Config, "paper", {}), protocol, np.ones(8, dtype=np.int64), seed=0)
    place(method, device)
    optimizer = new_optimizer(protocol, method.param_groups(protocol.lr))
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    journal, states = Journal(folder), {"method": method.state_dict(), "optimizer": optimizer.state_dict()}
    copied: list[float] = []
    written: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        snapshot = Snapshot(states, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken = time.perf_counter()
        journal.save_checkpoint(0, Checkpoint((), None, None, snapshot))
        copied, written = [*copied, taken - started], [*written, time.perf_counter() - taken]
    size_of_file = (journal.folder / "checkpoint.pt").stat().st_size
    return CheckpointCost(size_of_file / 1e6, min(copied), min(written))
