"""A function of each of many items in threads, in order, with progress: for work that waits on disk or on C code."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 16  # items a thread that are begun before the first of them is asked for


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, label: str, quiet: bool = False
) -> Iterator[Result]:
    """Yield what a function returns for each item, in the items' order.

    Parameters
    ----------
    workers : threads; 1: none but the caller's
    label : what is done, e.g. `hashing files`; shown with a bar on a terminal, as one line elsewhere
    quiet : show nothing
    """
    terminal = sys.stderr.isatty()
    if not quiet and not terminal:
        print(f"{label}: {len(items)}", file=sys.stderr, flush=True)
    bar = tqdm(total=len(items), desc=label, disable=quiet or not terminal, leave=False)
    with bar:
        for result in map(function, items) if workers <= 1 else _ordered(function, items, workers):
            bar.update()
            yield result


def _ordered(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    pool = ThreadPoolExecutor(workers)
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= _AHEAD * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
