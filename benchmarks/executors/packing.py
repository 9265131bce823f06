"""What a trial needs of a machine, how many fit at once, and the share of a GPU that a measured trial needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltbench.benchmarks.training.planning.placement import MARGIN
from ltbench.benchmarks.training.trial_spec import TrialSpec

_BLOCK = 512  # bytes, in which a file system counts what a file takes
_STEP = 1e4  # shares of a GPU are counted in 1e-4

Kind = tuple[str, int, int]


@dataclass(frozen=True)
class Need:
    """What is reserved for one trial.

    Attributes
    ----------
    cpus : cores
    gpus : share of one GPU, from 0 to 1, in steps of 1e-4
    memory : bytes
    """

    cpus: int
    gpus: float
    memory: int

    def slots(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """Return how many trials run at once on nodes, each given by its totals `CPU`, `GPU` and `memory`.

        A trial uses one GPU: shares of several are not added up.
        """
        return sum(self._slots(node) for node in nodes)

    def _slots(self, node: Mapping[str, float]) -> int:
        most = [int(node.get("CPU", 0) // self.cpus)]
        if self.gpus:
            most.append(int(node.get("GPU", 0)) * int(round(_STEP) // round(self.gpus * _STEP)))
        if self.memory:
            most.append(int(node.get("memory", 0) // self.memory))
        return min(most)


def store_bytes(folder: Path) -> int:
    """Return the size of an image store on disk, bytes; images that are not decoded take none."""
    return sum(min(path.stat().st_size, _BLOCK * path.stat().st_blocks) for path in folder.iterdir() if path.is_file())


class GpuShares:
    """The share of a GPU that each trial gets; without `jobs`, the first of each kind runs alone and is measured.

    A kind is backbone, image size and batch size.

    Parameters
    ----------
    jobs : trials a GPU; None: as many as fit its memory
    """

    def __init__(self, jobs: int | None) -> None:
        self._fixed = math.floor(_STEP / jobs) / _STEP if jobs else None
        self._measured: dict[Kind, float] = {}
        self._measuring: dict[Kind, Path] = {}
        self._raised: dict[Path, float] = {}

    def take(self, spec: TrialSpec) -> float | None:
        """Return the share for a trial that starts now; None: not yet, the first of its kind is being measured."""
        if not spec.device.startswith("cuda"):
            return 0.0
        share = self._raised.get(spec.folder) or self._fixed or self._measured.get(_kind(spec))
        if share is not None:
            return share
        if self._measuring.setdefault(_kind(spec), spec.folder) != spec.folder:
            return None
        return 1.0

    def ended(self, spec: TrialSpec, used: float = 0.0) -> None:
        """Note the end of a trial; `used`: the most memory it used, of that of its GPU; 0 where it is not known."""
        if self._measuring.get(_kind(spec)) == spec.folder:
            del self._measuring[_kind(spec)]
            if used:
                self._measured[_kind(spec)] = min(1.0, math.ceil(used * MARGIN * _STEP) / _STEP)

    def raised(self, spec: TrialSpec, share: float) -> bool:
        """Double the share of a trial, once; return False where it had a whole GPU, or was doubled before."""
        if share >= 1.0 or spec.folder in self._raised:
            return False
        self._raised[spec.folder] = min(1.0, 2 * share)
        return True


def _kind(spec: TrialSpec) -> Kind:
    return spec.protocol.backbone, spec.protocol.image_size, spec.protocol.batch_size
