"""Which device each of the trials that run side by side gets, and how many fit the memory of a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ltbench.benchmarks.analysis.record_files.damage import sound_records
from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.datasets.loading import SplitDataset

MARGIN = 1.15
"""Of GPU memory that was measured, for what the allocator holds beside it."""
_UNMEASURED = 2.0  # of memory that was estimated for one network: methods have more of them, and workspaces
_CONTEXT = 700 * 2**20  # bytes that a process needs on a GPU before it does anything
_STATES = 6  # as large as the parameters: those, their gradients, two moments, and two copies of the best


@dataclass(frozen=True)
class DeviceMemory:
    """A device and its memory.

    Attributes
    ----------
    name : as `torch.device` takes it
    free : bytes that nobody uses; None: not to be looked at, as on the CPU
    """

    name: str
    free: int | None = None


def placed(
    devices: Sequence[DeviceMemory], *, trials: int, jobs: int | None, cores: int, needed: int = 0
) -> tuple[str, ...]:
    """Return the device of each of the trials that run side by side: one on each device, then the second ones, and on.

    Parameters
    ----------
    trials : how many there are to run
    jobs : side by side on each device; None: as many as its memory takes, and at most one a CPU core in all
    cores : CPU cores
    needed : bytes on the device for one trial
    """
    each = [jobs or _fitting(device, max(1, cores // len(devices)), needed) for device in devices]
    turns = range(max(each))
    slots = [device.name for turn in turns for device, most in zip(devices, each, strict=True) if turn < most]
    return tuple(slots[: max(1, trials)])


def _fitting(device: DeviceMemory, most: int, needed: int) -> int:
    return most if device.free is None or not needed else max(1, min(most, device.free // needed))


def free_memory(device: torch.device) -> DeviceMemory:
    """Return a device with its free memory."""
    return DeviceMemory(str(device), torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None)


def needed_memory(protocol: Protocol, datasets: Iterable[SplitDataset], out: Path) -> int:
    """Return how many bytes on a GPU a trial may need: as earlier trials of its protocol were measured, or an estimate.

    Parameters
    ----------
    datasets : whose images a trial may keep on the GPU
    out : results folder with earlier trials
    """
    results = [record.result for record in sound_records(out, derived=DerivedFiles.under(out))[0]]
    digest = protocol.digest()
    alike = [each for each in results if each.protocol_digest == digest and each.device_type == "cuda"]
    peak = max((each.cost.peak_memory_mib or 0.0 for each in alike), default=0.0)
    if peak:
        return int(MARGIN * peak * 2**20) + _CONTEXT
    pixels = max(len(dataset.manifest.ids) for dataset in datasets) * 3 * protocol.image_size**2
    return int(_UNMEASURED * training_memory(protocol)) + pixels + _CONTEXT


def training_memory(protocol: Protocol) -> int:
    """Return the bytes of a training step of the backbone: states of parameters, and what its layers return, kept.

    Computed by shapes alone, on the device `meta`.
    """
    kept = 0

    def count(module: nn.Module, given: object, result: object) -> None:
        nonlocal kept
        if isinstance(result, Tensor):
            kept += result.numel() * (2 if protocol.precision == "bf16" else 4)

    with torch.device("meta"):
        network = Backbones(protocol.without_weights(), protocol.seed).new()
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        network(torch.empty(protocol.batch_size, 3, protocol.image_size, protocol.image_size))
    return kept + _STATES * 4 * sum(parameter.numel() for parameter in network.parameters())
