"""Seconds by part of a program."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

Watched = Mapping[tuple[Any, str], str | Callable[..., str]]
"""Functions, by owner (class or module) and name, and the part that a call counts for; it may depend on arguments."""


class Stopwatch:
    """Adds up seconds by part; a part inside another one counts for itself alone.

    Attributes
    ----------
    seconds : by part, in the order in which the parts began
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside for a part."""
        self._count()
        self._running.append(name)
        self.seconds[name] += 0.0
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    @contextmanager
    def watching(self, functions: Watched) -> Iterator[None]:
        """Count every call of functions, made in this thread, for their parts as long as this lasts."""
        before = {(owner, name): getattr(owner, name) for owner, name in functions}
        for (owner, name), part in functions.items():
            setattr(owner, name, self._counted(before[owner, name], part))
        try:
            yield
        finally:
            for (owner, name), function in before.items():
                setattr(owner, name, function)

    def _counted(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(part if isinstance(part, str) else part(*args, **kwargs)):
                return function(*args, **kwargs)

        return call

    def _count(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
