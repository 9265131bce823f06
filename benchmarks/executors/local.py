"""Runs trials, one after another or side by side; each trial decides itself whether there is anything to do."""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from tqdm import tqdm

from ltbench.benchmarks.executors.attempts import STOPS, Elsewhere, Outcome, attempt
from ltbench.benchmarks.executors.base import Executor, register
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import Terminated
from ltbench.processes import ctrl_c_ignored, end_workers, exit_raises, exit_worker, prepare_worker, worker_context

_RETRY_SECONDS = 1.0


@register("local")
class LocalExecutor(Executor):
    """Runs trials on this machine."""

    def outcomes(self, specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
        """Run trials, side by side on the devices as planned; yield their outcomes as they come."""
        return run_trials(specs, self.planned.slots)


def run_trials(specs: Sequence[TrialSpec], devices: Sequence[str]) -> Iterator[Outcome]:
    """Run trials side by side, one on each of `devices`, which may name one several times; yield outcomes as they come.

    A trial that another process is running is put off. Once nothing else is left it is taken over if that process has
    ended; it is left to a process that gives a sign, so that nobody holds a machine to watch others work.
    """
    if len(devices) == 1 or len(specs) == 1:
        yield from _run_here([replace(spec, device=devices[0]) for spec in specs])
    else:
        yield from _run_in_workers(specs, devices[: len(specs)])


def _run_here(specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
    queue, elsewhere = deque(specs), Elsewhere()
    while queue or elsewhere.awaited():
        if not queue:
            time.sleep(_RETRY_SECONDS)
            queue.extend(elsewhere.freed())
            continue
        spec = queue.popleft()
        with exit_raises():
            outcome = attempt(spec, 0, STOPS)
        if outcome.status == "busy":
            elsewhere.add(spec)
            continue
        yield outcome
        if outcome.fatal:
            return
    yield from elsewhere.left()


def _run_in_workers(specs: Sequence[TrialSpec], devices: Sequence[str]) -> Iterator[Outcome]:
    queue, elsewhere, pool = deque(specs), Elsewhere(), _Pool(devices)
    try:
        while queue or pool.running or elsewhere.awaited():
            while queue and pool.has_room:
                pool.begin(queue.popleft())
            if not queue:
                pool.end_idle()
            for outcome in pool.outcomes(_RETRY_SECONDS if elsewhere else None):
                if outcome.status == "busy":
                    elsewhere.add(outcome.spec)
                    continue
                yield outcome
                if outcome.fatal:
                    return
            queue.extend(elsewhere.freed())
        yield from elsewhere.left()
    finally:
        pool.end()


class _Pool:
    """Worker processes, each started when there is a trial for it; one that dies fails its trial alone.

    Parameters
    ----------
    devices : of the trials that run side by side; a worker's slot is a place among them and a line of the terminal
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._context: Any = worker_context()
        self._bars = self._context.RLock()
        self._devices = devices
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}
        self._running: dict[int, TrialSpec] = {}
        self._ended: list[BaseProcess] = []

    @property
    def running(self) -> int:
        """Number of trials in progress."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another trial can begin."""
        return len(self._running) < len(self._devices)

    def begin(self, spec: TrialSpec) -> None:
        """Give a trial to a worker; that one is dead is seen when its outcome is received."""
        free = [slot for slot in range(len(self._devices)) if slot not in self._running]
        slot = next((slot for slot in free if slot in self._workers), free[0])
        if slot not in self._workers:
            self._start(slot)
        self._running[slot] = spec
        with contextlib.suppress(OSError):
            self._workers[slot][1].send(replace(spec, device=self._devices[slot]))

    def end_idle(self) -> None:
        """Let the workers without a trial end, and with them the memory that they hold."""
        for slot in self._workers.keys() - self._running.keys():
            process, connection = self._workers.pop(slot)
            connection.close()
            self._ended.append(process)

    def outcomes(self, seconds: float | None) -> list[Outcome]:
        """Wait until trials end, for some seconds at most; return their outcomes."""
        slots = {self._workers[slot][1]: slot for slot in self._running}
        if not slots and seconds:
            time.sleep(seconds)
        return [self._received(slots[each]) for each in cast(list[Connection], wait(list(slots), seconds))]

    def _received(self, slot: int) -> Outcome:
        """Return the outcome of the trial that a worker has, also where the worker died over it."""
        spec, (process, connection) = self._running.pop(slot), self._workers[slot]
        try:
            return connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            del self._workers[slot]
            process.join()
            return Outcome(spec, "failed", f"{spec.label}: {_ended(process.exitcode)}")

    def end(self) -> None:
        """End all workers."""
        end_workers([*self._ended, *(process for process, _ in self._workers.values())])

    def _start(self, slot: int) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, slot, self._bars), daemon=True)
        with ctrl_c_ignored():
            process.start()
        there.close()
        self._workers[slot] = process, here


def _ended(code: int | None) -> str:
    """Return why a worker has no outcome: a signal ended it where the code is below 0, else it ended itself."""
    if code is None or code < 0:
        return f"its process ended with code {code} (out of memory?); run the same command again"
    return f"its process ended with code {code}: the method or a library ended it; a method must return or raise"


def _work(connection: Connection, slot: int, bars: object) -> None:
    prepare_worker(raises=True)
    tqdm.set_lock(bars)
    try:
        while True:
            connection.send(attempt(connection.recv(), slot, (Terminated,)))
    except EOFError:
        return
    except Terminated:  # the trial's checkpoint is written
        exit_worker(128 + signal.SIGTERM)
