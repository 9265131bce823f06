"""How a Ray cluster is joined without its noise; nothing here imports Ray."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ltbench.errors import UserError

_ANSWER_SECONDS = 5.0  # that a cluster has to answer


def require_answer(address: str) -> None:
    """Refuse an address `HOST:PORT` at which nothing answers: Ray would try for minutes.

    Raises
    ------
    UserError : saying how to start a cluster there
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        start = f"start it there by: ray start --head --port {port}"
        raise UserError(f"no Ray cluster answers at {address} ({error}); {start}") from error


@contextmanager
def native_lines() -> Iterator[Callable[[], str]]:
    """Keep what Ray's native part prints on stderr from the user; yield a function that returns it."""
    with tempfile.TemporaryFile() as file:
        shown = os.dup(2)
        os.dup2(file.fileno(), 2)

        def lines() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield lines
        finally:
            os.dup2(shown, 2)
            os.close(shown)


@contextmanager
def quiet() -> Iterator[None]:
    """Let Ray neither report usage nor warn of changes to come, which it reads from the environment."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "error",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **os.environ,
    }
    before = {name: os.environ.get(name) for name in wanted if name not in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in before:
            os.environ.pop(name, None)
