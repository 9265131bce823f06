"""Workers that train nothing, or end without an outcome, before they have read their trial or after."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ltbench.locks import in_use, lock_of


@dataclass(frozen=True)
class Spec:
    """What executors use of a trial."""

    label: str
    folder: Path
    device: str = ""


def ending(connection: Any, slot: int, bars: Any) -> None:
    """Run trials that make their folders, or are another process's, until there are none."""
    while True:
        try:
            spec = connection.recv()
        except EOFError:
            return
        spec.folder.mkdir(exist_ok=True)
        busy = in_use(lock_of(spec.folder))
        connection.send(SimpleNamespace(spec=spec, status="busy" if busy else "done", fatal=False))


def before_reading(connection: Any, slot: int, bars: Any) -> None:
    os._exit(7)


def after_reading(connection: Any, slot: int, bars: Any) -> None:
    connection.recv()
    os._exit(0)


def killed(connection: Any, slot: int, bars: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
