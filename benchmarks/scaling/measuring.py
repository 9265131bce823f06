"""Time and memory of a case at each of its sizes, and the power of the size by which time grows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.benchmarks.scaling.cases import CASES
from ltbench.errors import UserError
from ltbench.processes import ctrl_c_ignored, end_workers, peak_memory, prepare_worker, worker_context

HEADERS = ("case", "unit", "sizes", "CPU seconds", "peak MiB", "exponent")


@dataclass(frozen=True)
class Growth:
    """What a case took at its sizes: CPU seconds, and the most memory of its process in MiB, with inputs and libraries.

    The CPU's time is that of all threads, without waiting, the least of several runs: other work on the machine slows
    a run by its use of caches, and never makes it faster. The memory is the most of all runs.
    `failure` is what ended the process at the first size that could not be measured, else empty.
    """

    name: str
    seconds: tuple[float, ...]
    peaks: tuple[float, ...]
    failure: str = ""

    @property
    def exponent(self) -> float:
        """The power of the size that fits the seconds best: slope of their logarithms; NaN of fewer than two sizes."""
        if len(self.seconds) < 2:
            return float("nan")
        sizes = np.log(CASES[self.name].sizes[: len(self.seconds)])
        return float(np.polyfit(sizes, np.log(self.seconds), 1)[0])

    def row(self) -> list[str]:
        """Return its row of the table."""
        case = CASES[self.name]
        seconds = ", ".join(f"{value:.2f}" for value in self.seconds)
        peaks = ", ".join(f"{value:.0f}" for value in self.peaks)
        sizes = ", ".join(f"{size:,}" for size in case.sizes)
        return [self.name, case.unit, sizes, seconds, peaks, self.failure or f"{self.exponent:.2f}"]


def growth(name: str, repeats: int) -> Growth:
    """Measure a case, each size `repeats` times, in processes and folders of their own."""
    seconds: list[float] = []
    peaks: list[float] = []
    for size in CASES[name].sizes:
        runs = [_in_process(name, size) for _ in range(repeats)]
        measured = [run for run in runs if not isinstance(run, str)]
        failures = [run for run in runs if isinstance(run, str)]
        if failures:
            return Growth(name, tuple(seconds), tuple(peaks), failures[0])
        seconds.append(min(own for own, _ in measured))
        peaks.append(max(peak for _, peak in measured))
    return Growth(name, tuple(seconds), tuple(peaks))


def check_cases(names: Sequence[str]) -> None:
    """Refuse a case that there is none of.

    Raises
    ------
    UserError : with all that there are
    """
    for name in names:
        if name not in CASES:
            raise UserError(f"--scale has no case {name!r}; cases: {', '.join(CASES)}")


def _in_process(name: str, size: int) -> tuple[float, float] | str:
    """Return CPU seconds and MiB, or how the process ended."""
    context: Any = worker_context()
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_measured, args=(there, name, size, folder), daemon=True)
        with ctrl_c_ignored():
            process.start()
        there.close()
        try:
            found = here.recv()
            process.join()
            return found
        except EOFError:
            process.join()
            return f"ended with code {process.exitcode} at {size:,}"
        finally:
            end_workers([process])


def _measured(connection: Connection, name: str, size: int, folder: str) -> None:
    prepare_worker()
    try:
        body = CASES[name].prepare(size, Path(folder))
        started = time.process_time()
        body()
        connection.send((time.process_time() - started, peak_memory() or float("nan")))
    except MemoryError:
        connection.send(f"out of memory at {size:,}")
