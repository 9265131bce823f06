"""Decodes images of a source on several cores: by processes, where its class can be imported by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from ltbench.datasets.base import Source
from ltbench.errors import UserError
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


def decoded(source: Source, chunks: Sequence[np.ndarray], size: int, workers: int) -> Generator[Decoded, None, None]:
    """Yield chunks of images, as they come.

    Parameters
    ----------
    workers : processes that decode; threads, where the class of `source` is known to this process alone
    """
    file = plugin_file(type(source))
    if workers <= 1 or (file is None and not importable(type(source))):
        yield from _decoded_in_threads(source, chunks, size, workers)
    else:
        yield from _decoded_by_processes(source, chunks, size, workers, _PlugIn(file))


def _decoded_in_threads(source: Source, chunks: Sequence[np.ndarray], size: int, workers: int) -> Iterator[Decoded]:
    stopped = threading.Event()

    def read(chunk: np.ndarray) -> Decoded:
        return _read(source, chunk, size, stopped)

    running = in_threads(read, chunks, workers=workers, label="decoding", unit="images", quiet=True)
    try:
        for chunk in running:  # noqa: UP028  `yield from` would close it, which waits, before it is stopped
            yield chunk
    finally:
        stopped.set()
        running.close()


def _decoded_by_processes(
    source: Source, chunks: Sequence[np.ndarray], size: int, workers: int, plugin: _PlugIn
) -> Iterator[Decoded]:
    context = worker_context()
    stopped = context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(plugin, source, size, stopped)
    )
    try:
        queue = iter(chunks)
        running = {pool.submit(_read_in_worker, chunk) for chunk in islice(queue, 2 * workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(_read_in_worker, chunk) for chunk in islice(queue, len(done))}
    except BrokenProcessPool as error:
        raise UserError(
            "a process that decodes images was killed, perhaps for want of memory; run the same command again, what "
            "is decoded is kept"
        ) from error
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


class _Stop(Protocol):
    """Whether nobody waits for the images any more: an event of threads or of processes."""

    def is_set(self) -> bool: ...


def _read(source: Source, positions: np.ndarray, size: int, stopped: _Stop) -> Decoded:
    contents, images = source.contents(positions), []
    for position in positions.tolist():
        if stopped.is_set():  # else Ctrl-C would wait for whole chunks
            raise CancelledError
        images.append(source.read(position, size))
    return Decoded(positions, np.stack(images), contents)


class _Worker:
    """What a decoding process keeps between chunks: the source is sent once, not with every chunk."""

    source: Source
    size: int
    stopped: _Stop


@dataclass(frozen=True)
class _PlugIn:
    """A plug-in that another process loads when it unpickles this, so before what is sent after it."""

    file: Path | None

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path, ...]]:
        return (_nothing, ()) if self.file is None else (load_plugin, (self.file,))


def _nothing() -> None:
    """Stand for a source that is no plug-in."""


def _start_worker(_: object, source: Source, size: int, stopped: _Stop) -> None:
    prepare_worker()
    _Worker.source, _Worker.size, _Worker.stopped = source, size, stopped


def _read_in_worker(positions: np.ndarray) -> Decoded:
    return _read(_Worker.source, positions, _Worker.size, _Worker.stopped)
