"""One attempt at a trial, whatever schedules it: how it ended, as a value."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ltbench.benchmarks.executors.failures import keep_traceback, plugin_line
from ltbench.benchmarks.training.trial import is_done, run_trial
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import Terminated, UserError, os_error_line
from ltbench.locks import holder, in_use, last_sign, lock_of


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes
    ----------
    status : `done`, `skipped` (done before), `failed`, or `busy`: another process has the trial, which is left to it
    message : one line, of a trial that failed or was left
    details : traceback, where the failure is not one that the user can fix
    fatal : whether further trials would fail in the same way (a full disk, for example)
    out_of_memory : whether the GPU had too little memory left for the trial
    """

    spec: TrialSpec
    status: str
    message: str = ""
    details: str = ""
    fatal: bool = False
    out_of_memory: bool = False


STOPS = (KeyboardInterrupt, Terminated)
"""What the signals raise that end a command."""


def checked_done(specs: Sequence[TrialSpec]) -> tuple[list[Outcome], list[TrialSpec]]:
    """Check the records of trials that are done; return the outcomes of these, and the trials that are left to run."""
    outcomes = {spec.folder: attempt(spec, 0, STOPS) for spec in specs if is_done(spec.folder)}
    ended = [outcome for outcome in outcomes.values() if outcome.status != "busy"]
    known = {outcome.spec.folder for outcome in ended}
    return ended, [spec for spec in specs if spec.folder not in known]


def attempt(spec: TrialSpec, slot: int, stops: tuple[type[BaseException], ...] = ()) -> Outcome:
    """Run a trial; return how it ended, whatever it raised.

    Parameters
    ----------
    slot : line on the terminal
    stops : what signals raise in this process
    """
    try:
        return Outcome(spec, run_trial(spec, slot))
    except stops:
        raise
    except UserError as error:
        return Outcome(spec, "failed", f"{spec.label}: {error}")
    except torch.OutOfMemoryError:
        advice = "out of GPU memory; use a smaller --batch-size or fewer --jobs"
        return Outcome(spec, "failed", f"{spec.label}: {advice}", out_of_memory=True)
    except BaseException as error:  # one broken trial must not take the others with it
        return _broken(spec, error)


def _broken(spec: TrialSpec, error: BaseException) -> Outcome:
    """Return the outcome of a trial that ended by an error of its plug-in, of the operating system or of ltbench."""
    where = plugin_line(spec.method, error)
    if isinstance(error, OSError) and where is None:
        return Outcome(spec, "failed", f"{spec.label}: {os_error_line(error)}", fatal=True)
    kept = keep_traceback(spec.folder, error)
    if isinstance(error, SystemExit):
        reason = f"it ended the program with code {error.code!r}; a method must return or raise"
    else:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if where is not None:
        return Outcome(spec, "failed", f"{spec.label}: {reason} (at {where}; traceback in {kept})")
    shown = "" if isinstance(error, SystemExit) else "".join(traceback.format_exception(error))
    return Outcome(spec, "failed", f"{spec.label}: {reason}", shown)


class Elsewhere:
    """The trials that other processes are running, until those have ended with them."""

    def __init__(self) -> None:
        self._specs: list[TrialSpec] = []
        self._signs: dict[Path, float] = {}

    def __bool__(self) -> bool:
        return bool(self._specs)

    def awaited(self) -> bool:
        """Return whether a trial may still be freed: its process has given no sign since this was first asked."""
        signs = {spec.folder: last_sign(lock_of(spec.folder)) for spec in self._specs}
        first = {folder: self._signs.setdefault(folder, sign) for folder, sign in signs.items()}
        return any(sign == -math.inf or first[folder] == sign < math.inf for folder, sign in signs.items())

    def add(self, spec: TrialSpec) -> None:
        """Leave a trial to the process that has it."""
        self._specs.append(spec)

    def freed(self) -> list[TrialSpec]:
        """Remove and return the trials that no process has any more: they are done, or to be gone on with."""
        held = [in_use(lock_of(spec.folder)) for spec in self._specs]
        freed = [spec for spec, busy in zip(self._specs, held, strict=True) if not busy]
        self._specs = [spec for spec, busy in zip(self._specs, held, strict=True) if busy]
        return freed

    def left(self) -> Iterator[Outcome]:
        """Yield the outcomes of the trials that other processes still have."""
        for spec in self._specs:
            text = f"{spec.label}: left to {holder(lock_of(spec.folder))}, which is running it"
            yield Outcome(spec, "busy", text)
