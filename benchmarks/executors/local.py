"""Runs trials, one after another or side by side; each trial decides itself whether there is anything to do."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from ltbench.benchmarks.executors.failures import keep_traceback, plugin_line
from ltbench.benchmarks.training.trial import run_trial
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import UserError, os_error_line
from ltbench.processes import ctrl_c_ignored, end_workers, prepare_worker, worker_context

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes
    ----------
    status : `done`, `skipped` (done before) or `failed`
    message : one line, of a failed trial
    details : traceback, where the failure is not one that the user can fix
    fatal : whether further trials would fail in the same way (a full disk, for example)
    """

    spec: TrialSpec
    status: str
    message: str = ""
    details: str = ""
    fatal: bool = False


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
        outcome = _attempt(spec, 0)
        if outcome.status == "busy":
            _put_off(queue, spec, waited)
            continue
        yield outcome
        if outcome.fatal:
            return


def _run_in_workers(specs: Sequence[TrialSpec], jobs: int) -> Iterator[Outcome]:
    context: Any = worker_context()
    bars = context.RLock()
    workers: dict[Connection, BaseProcess] = {}
    queue, waited = deque(specs), set[Path]()
    running: dict[Connection, TrialSpec] = {}
    try:
        with ctrl_c_ignored():
            for slot in range(jobs):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, slot, bars), daemon=True)
                process.start()
                there.close()
                workers[here] = process
        while queue or running:
            for connection in workers:
                if queue and connection not in running:
                    running[connection] = queue.popleft()
                    connection.send(running[connection])
            for connection in cast(list[Connection], wait(list(running))):
                spec = running.pop(connection)
                outcome = _received(connection, workers, spec)
                if outcome.status == "busy":
                    _put_off(queue, spec, waited)
                    continue
                yield outcome
                if outcome.fatal:
                    return
    finally:
        end_workers(list(workers.values()))


def _received(connection: Connection, workers: dict[Connection, BaseProcess], spec: TrialSpec) -> Outcome:
    try:
        return connection.recv()
    except EOFError:
        process = workers.pop(connection)
        process.join()
        reason = f"its process ended with code {process.exitcode} (out of memory?); run the same command again"
        return Outcome(spec, "failed", f"{spec.label}: {reason}", fatal=not workers)


def _work(connection: Connection, slot: int, bars: object) -> None:
    prepare_worker()
    tqdm.set_lock(bars)
    while True:
        try:
            spec = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(spec, slot))


def _attempt(spec: TrialSpec, slot: int) -> Outcome:
    try:
        return Outcome(spec, run_trial(spec, slot))
    except UserError as error:
        return Outcome(spec, "failed", f"{spec.label}: {error}")
    except torch.OutOfMemoryError:
        advice = "out of GPU memory; use a smaller --batch-size or fewer --jobs"
        return Outcome(spec, "failed", f"{spec.label}: {advice}")
    except (Exception, SystemExit) as error:  # one broken trial must not take the others with it
        return _broken(spec, error)


def _broken(spec: TrialSpec, error: Exception | SystemExit) -> Outcome:
    """Return the outcome of a trial that ended by an error of its plug-in, of the operating system or of ltbench."""
    where = plugin_line(spec.method, error)
    if isinstance(error, OSError) and where is None:
        return Outcome(spec, "failed", f"{spec.label}: {os_error_line(error)}", fatal=True)
    kept = keep_traceback(spec.folder, error)
    if isinstance(error, SystemExit):
        reason = f"it called sys.exit({error.code!r}); a method must return or raise"
    else:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if where is not None:
        return Outcome(spec, "failed", f"{spec.label}: {reason} (at {where}; traceback in {kept})")
    shown = "" if isinstance(error, SystemExit) else "".join(traceback.format_exception(error))
    return Outcome(spec, "failed", f"{spec.label}: {reason}", shown)


def _put_off(queue: deque[TrialSpec], spec: TrialSpec, waited: set[Path]) -> None:
    if spec.folder in waited:
        time.sleep(_RETRY_SECONDS)
    else:
        waited.add(spec.folder)
        print(f"{spec.label}: another process is running it; left to that process", file=sys.stderr)
    queue.append(spec)
