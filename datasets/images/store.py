"""Images decoded once: uint8 pixels on disk, memory-mapped, gathered by index.

A store holds one row per image of a source at one size. Rows are filled when they are first asked for, by all
cores; a row counts as filled when its stamp equals the source's fingerprint of the image, so an interrupted
build goes on where it stopped. Where the stamp differs, the image's content decides whether it is decoded again.
A file lock keeps a second builder waiting.

Each row has a digest of its id and pixels. Once after a store was opened, the rows in use are compared with their
digests: a builder decodes a damaged one again, a reader refuses it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.images.decoding_workers import decoded
from ltbench.errors import UserError
from ltbench.files import (
    ProgressLine,
    content_digest,
    fingerprint,
    json_digest,
    naming,
    replacing,
    require_regular,
    require_room,
    synchronize,
    write_at,
)
from ltbench.locks import locked
from ltbench.processes import in_threads

_VERSION = 3
_CHUNK = 32
_PIXELS, _DIGESTS, _CONTENTS, _STAMPS = "pixels.u8", "digests.i64", "contents.i64", "stamps.i64"
_NUMBER = np.dtype("<i8")
_DARK = 15  # the highest value that 12 bits reach where the upper 8 of 16 are kept


class ImageStore:
    """Decoded images of one source at one size: uint8 [N, 3, size, size] on disk.

    Parameters
    ----------
    folder : of this store, as `build` returned it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads(require_regular(folder / "index.json").read_text(encoding="utf-8"))
            self.size = int(index["size"])
            self._ids = [str(image_id) for image_id in index["ids"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"image store {folder} is not readable ({error}); delete it and run again") from error
        self._rows = {image_id: row for row, image_id in enumerate(self._ids)}
        self._verified = np.zeros(len(self._ids), dtype=bool)

    @property
    def pixels(self) -> np.ndarray:
        """Read-only memory map, uint8 [N, 3, size, size]; rows that were never built are zero.

        Raises
        ------
        UserError : the file is missing or too short
        """
        return self._mapped(_PIXELS, np.dtype(np.uint8), (len(self._ids), 3, self.size, self.size))

    def digest(self, ids: np.ndarray) -> str:
        """Return the SHA-256 of what images, str [n], are: of a digest of each id and its pixels, in their order.

        Raises
        ------
        UserError : as `rows`
        """
        return content_digest(self._digests[self.rows(ids)].tobytes())

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of images, str [n] to int64 [n], after a check that they are what was decoded.

        Raises
        ------
        UserError : an image that the store does not know, or whose row was never filled or has changed
        """
        try:
            rows = np.array([self._rows[image_id] for image_id in ids], dtype=np.int64)
        except KeyError as error:
            raise UserError(f"image {error} is not in the image store {self.folder}; delete it and run again") from None
        damaged = self.damaged(rows)
        if len(damaged):
            raise UserError(
                f"image store {self.folder} is damaged: {len(damaged)} of {len(rows)} images (first: "
                f"{self._ids[damaged[0]]}) are not what was decoded; run again, which decodes them anew"
            )
        return rows

    def damaged(self, rows: np.ndarray) -> np.ndarray:
        """Return those of the rows, int64 [n], that do not have the digest that was stored with them.

        A row that was found to have it is not read again.
        """
        unverified = rows[~self._verified[rows]]
        pixels, digests = self.pixels, self._digests
        same = [_row_digest(self._ids[row], pixels[row].tobytes()) == digests[row] for row in unverified.tolist()]
        self._verified[unverified[np.array(same, dtype=bool)]] = True
        return rows[~self._verified[rows]]

    @property
    def _digests(self) -> np.ndarray:
        return self._mapped(_DIGESTS, _NUMBER, (len(self._ids),))

    def _mapped(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.memmap(require_regular(self.folder / name), dtype=dtype, mode="r", shape=shape)
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(
                f"image store {self.folder} is damaged: {name} is not readable ({error}); run again, which repairs it"
            ) from error


class StoreBuilder:
    """Decodes images of a source into a store; what is there is not decoded again.

    Parameters
    ----------
    source : whose images are stored
    size : side of the stored images, pixels
    cache : folder of all stores
    sync_seconds : of decoding that a killed build may lose

    Attributes
    ----------
    folder : of the store; its name depends on the source's ids, variant and root, and on the size
    """

    def __init__(self, source: Source, size: int, cache: Path, sync_seconds: float = 5.0) -> None:
        self.folder = cache / f"{source.name}-{size}px-{json_digest(_identity(source, size))[:12]}"
        self._source, self._size, self._sync_seconds = source, size, sync_seconds

    def build(self, positions: np.ndarray, *, workers: int = 1, quiet: bool = False, trust: bool = True) -> ImageStore:
        """Return the store with the images at `positions` decoded.

        Parameters
        ----------
        positions : int64 [n], into the arrays of the source
        workers : processes that decode; threads, where the class of the source is known to this process alone
        trust : whether an image with the stamp of before is the image of before; else its content is compared

        Raises
        ------
        UserError : an image is missing or corrupt (named), or the disk is too full
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock", f"building {self.folder.name}"):
            self._lay_out()
            store = ImageStore(self.folder)
            stamps = self._source.fingerprints(positions)
            stale = self._changed(positions, stamps, workers, quiet, trust)
            stale |= np.isin(positions, self._damaged(store, positions[~stale]))
            if stale.any():
                needed = int(stale.sum()) * self._row_bytes
                require_room(self.folder, needed, "the image store", "give another --out")
                self._fill(positions[stale], stamps[stale], workers, quiet)
        if not quiet:
            self._name_dark(store, positions)
        return store

    @property
    def _row_bytes(self) -> int:
        return 3 * self._size**2

    def _lay_out(self) -> None:
        """Give all files their lengths; the pixel file is sparse, so that rows never asked for take no disk."""
        ids = self._source.ids
        for name, length in ((_PIXELS, self._row_bytes), *((name, 8) for name in (_DIGESTS, _CONTENTS, _STAMPS))):
            with naming(self.folder / name), require_regular(self.folder / name).open("ab") as file:
                file.truncate(len(ids) * length)
        path, index = self.folder / "index.json", json.dumps({"size": self._size, "ids": ids.tolist()}).encode()
        if not path.is_file() or path.read_bytes() != index:
            with replacing(path, durable=True) as file:
                file.write(index)

    def _changed(self, positions: np.ndarray, stamps: np.ndarray, workers: int, quiet: bool, trust: bool) -> np.ndarray:
        """Return which images, bool [n], the store does not have as they are; one of the same content is stamped."""
        stored = self._numbers(_STAMPS)[positions]
        same = stored == stamps
        doubted = np.flatnonzero((stored != 0) & ~(same & trust))
        if len(doubted):
            found = self._contents(positions[doubted], workers, quiet)
            same[doubted] = found == self._numbers(_CONTENTS)[positions[doubted]]
            with (self.folder / _STAMPS).open("r+b", buffering=0) as file:
                for row in doubted[same[doubted]].tolist():
                    write_at(file, 8 * int(positions[row]), _eight_bytes(int(stamps[row])))
        return ~same

    def _numbers(self, name: str) -> np.ndarray:
        return np.fromfile(self.folder / name, dtype=_NUMBER, count=len(self._source.ids))

    def _contents(self, positions: np.ndarray, workers: int, quiet: bool) -> np.ndarray:
        """Return what the content of each image is: int64 [n]."""
        chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
        label = f"comparing blocks of {_CHUNK} images of {self._source.name}"
        found = in_threads(self._source.contents, chunks, workers=workers, label=label, unit="blocks", quiet=quiet)
        return np.concatenate(list(found))

    def _damaged(self, store: ImageStore, positions: np.ndarray) -> np.ndarray:
        """Return the images, int64 [n], whose rows are not what was decoded, and say so."""
        damaged = store.damaged(positions)
        if len(damaged):
            print(
                f"image store {self.folder} is damaged: {len(damaged)} images (first: {self._source.ids[damaged[0]]}) "
                "are not what was decoded; they are decoded again",
                file=sys.stderr,
            )
        return damaged

    def _name_dark(self, store: ImageStore, positions: np.ndarray) -> None:
        pixels = store.pixels
        dark = [position for position in positions.tolist() if pixels[position].max() <= _DARK]
        if dark:
            print(
                f"note: {len(dark)} of {len(positions)} images (first: {self._source.ids[dark[0]]}) are nearly black: "
                f"no value above {_DARK} of 255, as of 12 bits or fewer kept in 16; stretch them to the whole range",
                file=sys.stderr,
            )

    def _fill(self, positions: np.ndarray, stamps: np.ndarray, workers: int, quiet: bool) -> None:
        """Decode and write; a row is stamped once the disk has all else of it: a killed build leaves none false.

        Everything is written, not mapped: writing to a full disk is then an error, not a bus fault.
        """
        stamp_of = dict(zip(positions.tolist(), stamps.tolist(), strict=True))
        chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
        label = f"decoding {self._source.name} at {self._size} px"
        with (
            (self.folder / _PIXELS).open("r+b", buffering=0) as rows,
            (self.folder / _DIGESTS).open("r+b", buffering=0) as digests,
            (self.folder / _CONTENTS).open("r+b", buffering=0) as contents,
            (self.folder / _STAMPS).open("r+b", buffering=0) as stamped,
            _PendingStamps((rows, digests, contents), stamped, self._sync_seconds) as pending,
            ProgressLine(label, len(positions), unit="images", quiet=quiet) as progress,
        ):
            self._unstamp(positions, stamped)
            for chunk in decoded(self._source, chunks, self._size, min(workers, len(chunks))):
                for position, content, image in zip(
                    chunk.positions.tolist(), chunk.contents.tolist(), chunk.images, strict=True
                ):
                    pixels = image.tobytes()
                    write_at(rows, position * self._row_bytes, pixels)
                    write_at(digests, 8 * position, _eight_bytes(_row_digest(self._source.ids[position], pixels)))
                    write_at(contents, 8 * position, _eight_bytes(content))
                    pending.add(position, stamp_of[position])
                progress.update(len(chunk.positions))

    def _unstamp(self, positions: np.ndarray, stamped: IO[bytes]) -> None:
        """Take the stamps of rows that are decoded again, so that no crash leaves old pixels under a new content."""
        again = positions[self._numbers(_STAMPS)[positions] != 0]
        for row in again.tolist():
            write_at(stamped, 8 * row, _eight_bytes(0))
        if len(again):
            synchronize(stamped)


class _PendingStamps:
    """Stamps of rows that the disk may not have yet; written, all at once, when it has: now and then, and at the end.

    To wait for the disk after every few images takes longer than to decode them.

    Parameters
    ----------
    files : with what is to be on the disk before a row is stamped
    stamped : file of the stamps
    seconds : after which the disk is waited for
    """

    def __init__(self, files: Sequence[IO[bytes]], stamped: IO[bytes], seconds: float) -> None:
        self._files, self._stamped, self._seconds = files, stamped, seconds
        self._pending: dict[int, int] = {}
        self._synchronized = time.monotonic()

    def __enter__(self) -> _PendingStamps:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, row: int, stamp: int) -> None:
        """Keep the stamp of a row of which everything else was written; write all that are kept when it is time."""
        self._pending[row] = stamp
        if time.monotonic() >= self._synchronized + self._seconds:
            self._write()

    def _write(self) -> None:
        for file in self._files:
            synchronize(file)
        for row, stamp in self._pending.items():
            write_at(self._stamped, 8 * row, _eight_bytes(stamp))
        synchronize(self._stamped)
        self._pending.clear()
        self._synchronized = time.monotonic()


def _row_digest(image_id: str, pixels: bytes) -> int:
    """Return what a row is, bound to its image."""
    return fingerprint(image_id.encode() + b"\0" + pixels)


def _identity(source: Source, size: int) -> dict[str, object]:
    """Return what a store is of."""
    return {
        "version": _VERSION,
        "source": source.name,
        "variant": [source.variant, source.revision],
        "root": str(source.root.resolve()) if source.root else None,
        "size": size,
        "ids": content_digest("\n".join(source.ids)),
    }


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)
