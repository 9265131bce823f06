"""Images decoded once: uint8 pixels on disk, memory-mapped, gathered by index.

A store holds one row per image of a source at one size. Rows are filled when they are first asked for, by all
cores; a row counts as filled when its stamp equals the source's fingerprint of the image, so an interrupted
build goes on where it stopped and a changed file is read again. A file lock keeps a second builder waiting.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ltbench.datasets.base import Source
from ltbench.errors import UserError
from ltbench.files import Progress, fingerprint, locked, replacing, require_room, synchronize, write_at
from ltbench.processes import importable, in_threads, prepare_worker, worker_context
from ltbench.registry import load_plugin, plugin_file

_VERSION = 2
_CHUNK = 32


class ImageStore:
    """Decoded images of one source at one size: uint8 [N, 3, size, size] on disk.

    Parameters
    ----------
    folder : of this store, as `build` returned it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.size: int = index["size"]
            self._rows = {image_id: row for row, image_id in enumerate(index["ids"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"image store {folder} is not readable ({error}); delete it and run again") from error

    @property
    def pixels(self) -> np.ndarray:
        """Read-only memory map, uint8 [N, 3, size, size]; rows that were never built are zero."""
        shape = (len(self._rows), 3, self.size, self.size)
        return np.memmap(self.folder / "pixels.u8", dtype=np.uint8, mode="r", shape=shape)

    def digest(self, ids: np.ndarray) -> str:
        """Return the SHA-256 of what the pixels of images, str [n], are: of a digest of each, in their order."""
        digests = np.memmap(self.folder / "digests.u64", dtype="<u8", mode="r", shape=(len(self._rows),))
        return hashlib.sha256(digests[self.rows(ids)].tobytes()).hexdigest()

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of images: str [n] to int64 [n].

        Raises
        ------
        UserError : an id that the store does not know
        """
        try:
            return np.array([self._rows[image_id] for image_id in ids], dtype=np.int64)
        except KeyError as error:
            raise UserError(f"image {error} is not in the image store {self.folder}; delete it and run again") from None


def build(
    source: Source, positions: np.ndarray, size: int, cache: Path, *, workers: int = 1, quiet: bool = False
) -> ImageStore:
    """Return the store of `source` at `size` with the images at `positions` decoded.

    Parameters
    ----------
    positions : int64 [n], into the arrays of `source`
    size : side of the stored images, pixels
    cache : folder of all stores
    workers : processes that decode; threads, where the class of `source` is known to this process alone

    Raises
    ------
    UserError : an image is missing or corrupt (named), or the disk is too full
    """
    folder = store_folder(source, size, cache)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", f"building {folder.name}"):
        _create(folder, source, size)
        stamps = np.fromfile(folder / "stamps.i64", dtype="<i8", count=len(source.ids))
        fingerprints = source.fingerprints(positions)
        stale = stamps[positions] != fingerprints
        if stale.any():
            require_room(folder, int(stale.sum()) * 3 * size * size, "the image store", "give another --out")
            _fill(folder, source, positions[stale], fingerprints[stale], size, workers, quiet)
    return ImageStore(folder)


def store_folder(source: Source, size: int, cache: Path) -> Path:
    """Return the folder of a source's store at a size; it depends on the source's ids, variant and root."""
    described = {
        "version": _VERSION,
        "source": source.name,
        "variant": [source.variant, source.revision],
        "root": str(source.root.resolve()) if source.root else None,
        "size": size,
        "ids": hashlib.sha256("\n".join(source.ids).encode()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return cache / f"{source.name}-{size}px-{key[:12]}"


def _create(folder: Path, source: Source, size: int) -> None:
    """Lay out an empty store; the pixel file is sparse, so that rows never asked for take no disk."""
    if (folder / "index.json").exists():
        return
    with (folder / "pixels.u8").open("wb") as file:
        file.truncate(len(source.ids) * 3 * size * size)
    for name in ("stamps.i64", "digests.u64"):
        (folder / name).write_bytes(bytes(8 * len(source.ids)))
    with replacing(folder / "index.json", durable=True) as file:
        file.write(json.dumps({"size": size, "ids": source.ids.tolist()}).encode())


def _fill(
    folder: Path,
    source: Source,
    positions: np.ndarray,
    fingerprints: np.ndarray,
    size: int,
    workers: int,
    quiet: bool,
) -> None:
    """Decode and write; a row is stamped once the disk has its pixels and digest: a killed build leaves no false row.

    Everything is written, not mapped: writing to a full disk is then an error, not a bus fault.
    """
    expected = dict(zip(positions.tolist(), fingerprints.tolist(), strict=True))
    row_bytes = 3 * size * size
    chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
    with (
        (folder / "pixels.u8").open("r+b", buffering=0) as rows,
        (folder / "digests.u64").open("r+b", buffering=0) as digests,
        (folder / "stamps.i64").open("r+b", buffering=0) as stamps,
        Progress(f"decoding {source.name} at {size} px", len(positions), unit="images", quiet=quiet) as progress,
    ):
        for chunk, images in _decoded(source, chunks, size, min(workers, len(chunks))):
            for position, image in zip(chunk.tolist(), images, strict=True):
                pixels = image.tobytes()
                write_at(rows, position * row_bytes, pixels)
                write_at(digests, 8 * position, _eight_bytes(fingerprint(pixels)))
            synchronize(rows)
            synchronize(digests)
            for position in chunk.tolist():
                write_at(stamps, 8 * position, _eight_bytes(expected[position]))
            progress.update(len(chunk))
        synchronize(stamps)


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def _decoded(
    source: Source, chunks: list[np.ndarray], size: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    file = plugin_file(type(source))
    if workers <= 1 or (file is None and not importable(type(source))):

        def read(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return chunk, _read(source, chunk, size)

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


def _read(source: Source, positions: np.ndarray, size: int) -> np.ndarray:
    return np.stack([source.read(int(position), size) for position in positions])


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


def _read_in_worker(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return positions, _read(_Worker.source, positions, _Worker.size)
