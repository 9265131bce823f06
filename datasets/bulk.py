"""What every large write to disk needs: room, a lock against a second process, and progress."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from ltbench.errors import UserError

_QUIET_SECONDS = 20.0


class ByteProgress:
    """Bytes done of a total: a bar on a terminal, plain lines elsewhere, at most one every 20 seconds.

    Parameters
    ----------
    label : what is done, e.g. `fetching a.zip`
    total : bytes, None where unknown
    done : bytes that an earlier run has done
    quiet : show nothing
    """

    def __init__(self, label: str, total: int | None, *, done: int = 0, quiet: bool = False) -> None:
        self._label, self._total, self._done, self._quiet = label, total, done, quiet
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc=label, unit="B", unit_scale=True, disable=quiet or not terminal, leave=False
        )
        self._lines = not quiet and not terminal
        self._shown = time.monotonic()

    def __enter__(self) -> ByteProgress:
        if self._lines:
            self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Count bytes that were done just now."""
        self._done += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self._shown >= _QUIET_SECONDS:
            self._line()

    def _line(self) -> None:
        self._shown = time.monotonic()
        total = f" of {amount(self._total)}" if self._total is not None else ""
        print(f"{self._label}: {amount(self._done)}{total}", file=sys.stderr)


def amount(count: int) -> str:
    """Return a number of bytes as text.

    Examples
    --------
    >>> amount(9_800_000_000)
    '9,346.0 MiB'
    """
    return f"{count / 2**20:,.1f} MiB"


def require_room(folder: Path, needed: int, what: str, remedy: str = "give another folder") -> None:
    """Check that the disk of a folder has room for `needed` bytes.

    Raises
    ------
    UserError : it has not; the message begins with `what` and ends with the remedy
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {amount(needed)} in {folder} and {amount(free)} are free; free some space or {remedy}"
        )


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock; say on stderr that another process does `what` where one has to wait for it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is {what}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
