"""Decodes images of a source on several cores: by processes, where its class can be imported by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ltbench.datasets.base import Source
from ltbench.processes import importable, in_threads, prepare_worker, worker_context
from ltbench.registry import load_plugin, plugin_file


@dataclass(frozen=True)
class Decoded:
    """A chunk of images.

    Attributes
    ----------
    positions : int64 [n], in the source
    images : uint8 [n, 3, size, size]
    contents : int64 [n], what the source says of the content of each, before it was decoded
    """

    positions: np.ndarray
    images: np.ndarray
    contents: np.ndarray


def decoded(source: Source, chunks: Sequence[np.ndarray], size: int, workers: int) -> Iterator[Decoded]:
    """Yield chunks of images, as they come.

    Parameters
    ----------
    workers : processes that decode; threads, where the class of `source` is known to this process alone
    """
    file = plugin_file(type(source))
    if workers <= 1 or (file is None and not importable(type(source))):

        def read(chunk: np.ndarray) -> Decoded:
            return _read(source, chunk, size)

        yield from in_threads(read, chunks, workers=workers, label="decoding", unit="images", quiet=True)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=worker_context(),
        initializer=_start_worker,
        initargs=(_PlugIn(file), source, size),
    )
    try:
        queue = iter(chunks)
        running = {pool.submit(_read_in_worker, chunk) for chunk in islice(queue, 2 * workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(_read_in_worker, chunk) for chunk in islice(queue, len(done))}
    finally:
        pool.shutdown(cancel_futures=True)


def _read(source: Source, positions: np.ndarray, size: int) -> Decoded:
    contents = source.contents(positions)
    return Decoded(positions, np.stack([source.read(int(position), size) for position in positions]), contents)


class _Worker:
    """What a decoding process keeps between chunks: the source is sent once, not with every chunk."""

    source: Source
    size: int


@dataclass(frozen=True)
class _PlugIn:
    """A plug-in that another process loads when it unpickles this, so before what is sent after it."""

    file: Path | None

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path, ...]]:
        return (_nothing, ()) if self.file is None else (load_plugin, (self.file,))


def _nothing() -> None:
    """Stand for a source that is no plug-in."""


def _start_worker(_: object, source: Source, size: int) -> None:
    prepare_worker()
    _Worker.source, _Worker.size = source, size


def _read_in_worker(positions: np.ndarray) -> Decoded:
    return _read(_Worker.source, positions, _Worker.size)
