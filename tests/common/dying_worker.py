"""Workers that end without an outcome, before they have read their trial or after."""

import os
import signal
from typing import Any


def before_reading(connection: Any, slot: int, bars: Any) -> None:
    os._exit(7)


def after_reading(connection: Any, slot: int, bars: Any) -> None:
    connection.recv()
    os._exit(0)


def killed(connection: Any, slot: int, bars: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
