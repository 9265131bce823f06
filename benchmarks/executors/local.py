"""Runs trials, one after another or side by side; each trial decides itself whether there is anything to do."""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from ltbench.benchmarks.executors.attempts import STOPS, Outcome, attempt
from ltbench.benchmarks.executors.base import Executor, register
from ltbench.benchmarks.training.trial import lock_of
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.locks import holder
from ltbench.processes import ctrl_c_ignored, end_workers, exit_raises, prepare_worker, worker_context

_RETRY_SECONDS = 1.0


@register("local")
class LocalExecutor(Executor):
    """Runs trials on this machine."""

    def outcomes(self, specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
        """Run trials, as many side by side as planned; yield their outcomes as they come."""
        return run_trials(specs, self.planned.jobs)


def run_trials(specs: Sequence[TrialSpec], jobs: int) -> Iterator[Outcome]:
    """Run trials, `jobs` at a time; yield their outcomes as they come.

    A trial that another process is running is put off until that process has done it.
    """
    if jobs == 1 or len(specs) == 1:
        yield from _run_here(specs)
    else:
        yield from _run_in_workers(specs, min(jobs, len(specs)))


def _run_here(specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
    queue, waited = deque(specs), set[Path]()
    while queue:
        spec = queue.popleft()
        with exit_raises():
            outcome = attempt(spec, 0, STOPS)
        if outcome.status == "busy":
            _put_off(queue, spec, waited)
            continue
        yield outcome
        if outcome.fatal:
            return


def _run_in_workers(specs: Sequence[TrialSpec], jobs: int) -> Iterator[Outcome]:
    pool = _Pool()
    queue, waited = deque(specs), set[Path]()
    running: dict[Connection, TrialSpec] = {}
    try:
        for slot in range(jobs):
            pool.start(slot)
        while queue or running:
            for connection in pool.connections:
                if queue and connection not in running:
                    running[connection] = queue.popleft()
                    pool.send(connection, running[connection])
            for connection in cast(list[Connection], wait(list(running))):
                spec = running.pop(connection)
                outcome = pool.received(connection, spec)
                if outcome.status == "busy":
                    _put_off(queue, spec, waited)
                    continue
                yield outcome
                if outcome.fatal:
                    return
    finally:
        pool.end()


class _Pool:
    """Worker processes by the connections to them; one that dies fails its trial alone, and another takes its place."""

    def __init__(self) -> None:
        self._context: Any = worker_context()
        self._bars = self._context.RLock()
        self._workers: dict[Connection, tuple[BaseProcess, int]] = {}

    @property
    def connections(self) -> list[Connection]:
        """One a worker."""
        return list(self._workers)

    def send(self, connection: Connection, spec: TrialSpec) -> None:
        """Give a worker a trial; that the worker is dead is seen when its outcome is received."""
        with contextlib.suppress(OSError):
            connection.send(spec)

    def received(self, connection: Connection, spec: TrialSpec) -> Outcome:
        """Return the outcome of the trial that a worker has, also where the worker died over it."""
        try:
            return connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            process, slot = self._workers.pop(connection)
            process.join()
            self.start(slot)
            return Outcome(spec, "failed", f"{spec.label}: {_ended(process.exitcode)}")

    def end(self) -> None:
        """End all workers."""
        end_workers([process for process, _ in self._workers.values()])

    def start(self, slot: int) -> None:
        """Start a worker that shows progress in the given line of the terminal."""
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, slot, self._bars), daemon=True)
        with ctrl_c_ignored():
            process.start()
        there.close()
        self._workers[here] = process, slot


def _ended(code: int | None) -> str:
    """Return why a worker has no outcome: a signal ended it where the code is below 0, else it ended itself."""
    if code is None or code < 0:
        return f"its process ended with code {code} (out of memory?); run the same command again"
    return f"its process ended with code {code}: the method or a library ended it; a method must return or raise"


def _work(connection: Connection, slot: int, bars: object) -> None:
    prepare_worker()
    tqdm.set_lock(bars)
    while True:
        try:
            spec = connection.recv()
        except EOFError:
            return
        connection.send(attempt(spec, slot))


def _put_off(queue: deque[TrialSpec], spec: TrialSpec, waited: set[Path]) -> None:
    if spec.folder in waited:
        time.sleep(_RETRY_SECONDS)
    else:
        waited.add(spec.folder)
        print(f"{spec.label}: {holder(lock_of(spec.folder))} is running it; left to that process", file=sys.stderr)
    queue.append(spec)
