"""File locks: who holds one says so, who waits says for whom, and one that nobody holds any more is taken over."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ltbench.files import Pace, require_regular, write_json

_WAIT_LINE, _WAIT_TRY = 60.0, 1.0  # seconds between two lines of who waits for a lock, and of one try
_UNSIGNED_SECONDS = 10.0  # until a lock file that names no process is nobody's


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock; say on stderr which process does `what` where one has to wait for it, again every minute."""
    lock = FileLock(path)
    began, pace = time.monotonic(), Pace(_WAIT_LINE)
    waiting = False
    while not _acquired(lock, _WAIT_TRY if waiting else 0.0):
        if not waiting or pace.due:
            waited = f", for {time.monotonic() - began:.0f} s so far" if waiting else ""
            print(
                f"{holder(path)} is {what}; waiting for it{waited}; end it, or where it is gone delete {path}",
                file=sys.stderr,
                flush=True,
            )
            pace.restart()
            waiting = True
    with _signed(lock):
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a file lock unless another process does; yield whether it is held, without waiting."""
    lock = FileLock(path)
    if not _acquired(lock, 0.0):
        yield False
        return
    with _signed(lock):
        yield True


def holder(path: Path) -> str:
    """Return which process holds the lock at `path`, in words, as far as it has said so."""
    try:
        held = json.loads(require_regular(_owner(path)).read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']} (since {held['since']})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"


def _owner(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


@contextmanager
def _signed(lock: BaseFileLock) -> Iterator[None]:
    """Say beside a lock that is held by whom it is, and release it."""
    owner = _owner(Path(lock.lock_file))
    try:
        held = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(owner, held)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _acquired(lock: BaseFileLock, seconds: float) -> bool:
    """Return whether the lock is held now; one that a process left which is gone is taken over."""
    path = Path(lock.lock_file)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        if not _is_left_over(path):
            return False
        path.unlink(missing_ok=True)
        return _acquired(lock, seconds)
    return True


def _is_left_over(path: Path) -> bool:
    """Return whether a lock file on a file system without `flock`, where a file is the lock, is nobody's any more.

    Its lines are process and host. One that names no process was left by a file system with `flock`.
    """
    try:
        if _has_flock(path):
            return False
        pid, host, *_ = [*path.read_text(encoding="utf-8", errors="replace").splitlines(), "", ""]
        if not pid.isdecimal():
            return time.time() - path.stat().st_mtime > _UNSIGNED_SECONDS
        if host == platform.node():
            os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # the process is another user's, or the file is gone meanwhile
        return False
    return False


def _has_flock(path: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows locks files otherwise
        return True
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.ENOSYS, errno.ENOTSUP)
    return True
