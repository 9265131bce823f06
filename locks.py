"""Claims: one process at a time does something, of one machine or of several that share a file system.

A claim is a file that is created exclusively (O_EXCL), which is atomic on local file systems and on NFS. It names its
process, and while it is held a thread renews its time of change, the heartbeat; its release deletes it. A claim is
stale once its process has ended, and is then taken over by exactly one of those that wait. Under the same boot and
PID namespace the process itself is looked at; elsewhere the claim is stale after three missed heartbeats, by the clock
of the file system. Machines are compared by boot id, not by name, which several may share.

`filelock` covers this only in part: `FileLock` (flock) may hold for one machine alone, `SoftFileLock` never takes over
what another machine left, and `SoftFileLease` (4.3) takes over by an exchange of two names, which NFS refuses.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltbench.errors import UserError
from ltbench.files import Pace, require_regular

_HEARTBEAT, _MISSED = 10.0, 3  # seconds, and how many of them without a sign make a claim stale
_WAIT_LINE = 60.0  # seconds between two lines of who waits for a claim
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0  # seconds between two tries of who waits


class ClaimLostError(UserError):
    """Another process has taken the claim over, because this one gave no sign for too long."""


def lock_of(folder: Path) -> Path:
    """Return the file of the claim of a folder, a trial's for example; it lies beside it, so that it may be moved."""
    return folder.with_name(f"{folder.name}.lock")


class Claim:
    """A claim of this process; made by `locked` and `claimed`.

    Parameters
    ----------
    path : of its file
    """

    def __init__(self, path: Path) -> None:
        self._path, self._released = path, threading.Event()
        stat = _process_stat(os.getpid())
        process = {"host": platform.node(), "pid": os.getpid(), "system": _system(), "start": stat and stat[1]}
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._text = json.dumps({**process, "since": since, "token": uuid.uuid4().hex})

    @property
    def held(self) -> bool:
        """Whether no other process has taken it over."""
        seen = _read(self._path)
        return seen is not None and seen.text == self._text

    def require(self) -> None:
        """Check that it is held; to be called before anything is written that it stands for.

        Raises
        ------
        ClaimLostError : another process has taken it over
        """
        if not self.held:
            raise ClaimLostError(f"{self._path} was taken over by {holder(self._path)}; run the same command again")

    def acquire(self) -> bool:
        """Make the file, in the place of a stale one; return whether it is held now."""
        while not self._created():
            seen = _read(self._path)
            if seen is not None and not _removed(self._path, seen):
                return False
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def release(self) -> None:
        """End the heartbeat and delete the file, where it is still that of this claim."""
        self._released.set()
        if self.held:
            self._path.unlink(missing_ok=True)

    def _created(self) -> bool:
        try:
            file = self._path.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(self._text)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        return True

    def _beat(self) -> None:
        while not self._released.wait(_HEARTBEAT):
            try:
                if not self.held:
                    return
                os.utime(self._path)
            except OSError:  # one missed heartbeat; what they cost is for the others to see
                continue


@contextmanager
def locked(path: Path, what: str) -> Iterator[Claim]:
    """Hold a claim; say on stderr which process does `what` where one has to wait for it, again every minute."""
    claim, began, pace, pause = Claim(path), time.monotonic(), Pace(_WAIT_LINE), _FIRST_PAUSE
    waiting = False
    while not claim.acquire():
        if not waiting or pace.due:
            waited = f", for {time.monotonic() - began:.0f} s so far" if waiting else ""
            print(f"{holder(path)} is {what}; waiting for it{waited}", file=sys.stderr, flush=True)
            pace.restart()
            waiting = True
        time.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)
    try:
        yield claim
    finally:
        claim.release()


@contextmanager
def claimed(path: Path) -> Iterator[Claim | None]:
    """Hold a claim unless another process does, without waiting; yield None where it does."""
    claim = Claim(path)
    if not claim.acquire():
        yield None
        return
    try:
        yield claim
    finally:
        claim.release()


def in_use(path: Path) -> bool:
    """Return whether a process holds the claim at `path`."""
    seen = _read(path)
    return seen is not None and not _is_stale(path, seen)


def last_sign(path: Path) -> float:
    """Return when the process that holds the claim at `path` gave its last sign, by the clock of the file system.

    It is infinity for a process that is seen to run, and -infinity where no process holds the claim.
    """
    seen = _read(path)
    if seen is None or _is_stale(path, seen):
        return -math.inf
    return math.inf if _is_visible(seen.owner()) else seen.changed


def holder(path: Path) -> str:
    """Return which process holds the claim at `path`, in words, as far as it has said so."""
    seen = _read(path)
    owner = seen and seen.owner()
    return f"process {owner['pid']} on {owner['host']} (since {owner['since']})" if owner else "another process"


@dataclass(frozen=True)
class _Seen:
    """A claim's file as it was read.

    Attributes
    ----------
    text : what it says; empty where its process has not written it yet
    changed : time of its last heartbeat, by the clock of the file system
    """

    text: str
    changed: float

    def owner(self) -> dict[str, Any] | None:
        """Return what it says of its process, None where that is not readable."""
        try:
            owner = json.loads(self.text)
            owner = {name: owner[name] for name in ("host", "pid", "system", "start", "since")}
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return owner if isinstance(owner["pid"], int) else None


def _read(path: Path) -> _Seen | None:
    """Return a claim's file, None where there is none; it is opened, because NFS may else answer from memory."""
    try:
        with require_regular(path).open("rb") as file:
            return _Seen(file.read().decode("utf-8", "replace"), os.fstat(file.fileno()).st_mtime)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise


def _removed(path: Path, seen: _Seen) -> bool:
    """Delete a stale claim, under a claim for this, so that what is deleted is what was seen; return whether it was."""
    if not _is_stale(path, seen):
        return False
    with claimed(path.with_name(f"{path.name}.takeover")) as taking:
        if taking is None:
            return False
        again = _read(path)
        if again is None:  # another has deleted it, and may be about to make its own
            return True
        if again.text != seen.text or not _is_stale(path, again) or not taking.held:
            return False
        path.unlink(missing_ok=True)
        return True


def _is_stale(path: Path, seen: _Seen) -> bool:
    owner = seen.owner()
    if owner and _is_visible(owner):
        return _has_ended(owner["pid"], owner["start"])
    return _file_system_time(path) - seen.changed > _MISSED * _HEARTBEAT


def _is_visible(owner: dict[str, Any] | None) -> bool:
    """Return whether the process that a claim names is under this boot and PID namespace, where it can be looked at."""
    return bool(owner and None not in (owner["system"], owner["start"]) and owner["system"] == _system())


def _has_ended(pid: int, start: int) -> bool:
    """Return whether a process under this boot and PID namespace has ended, its number perhaps another's by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        pass
    stat = _process_stat(pid)
    return stat is not None and (stat[0] in ("Z", "X") or stat[1] != start)


def _process_stat(pid: int) -> tuple[str, int] | None:
    """Return state and start (clock ticks since the boot) of a process, None where the system does not show it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def _system() -> str | None:
    """Return what the numbers of processes belong to: boot and PID namespace; None where the system has no such."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _file_system_time(path: Path) -> float:
    """Return the time by the clock of the file system of `path`: that of a new file."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
