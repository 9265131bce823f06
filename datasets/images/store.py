"""Images decoded once: uint8 pixels on disk, memory-mapped, gathered by index.

A store holds one row per image of a source at one size. Rows are filled when they are first asked for, by all
cores; a row counts as filled when its stamp equals the source's fingerprint of the image, so an interrupted
build goes on where it stopped and a changed file is read again. A file lock keeps a second builder waiting.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.images.decoding_workers import decoded
from ltbench.errors import UserError
from ltbench.files import (
    ProgressLine,
    content_digest,
    fingerprint,
    json_digest,
    locked,
    replacing,
    require_room,
    synchronize,
    write_at,
)

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
        return content_digest(digests[self.rows(ids)].tobytes())

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


class StoreBuilder:
    """Decodes images of a source into a store; what is there is not decoded again.

    Parameters
    ----------
    source : whose images are stored
    size : side of the stored images, pixels
    cache : folder of all stores

    Attributes
    ----------
    folder : of the store; its name depends on the source's ids, variant and root, and on the size
    """

    def __init__(self, source: Source, size: int, cache: Path) -> None:
        self.folder = cache / f"{source.name}-{size}px-{json_digest(_identity(source, size))[:12]}"
        self._source, self._size = source, size

    def build(self, positions: np.ndarray, *, workers: int = 1, quiet: bool = False) -> ImageStore:
        """Return the store with the images at `positions` decoded.

        Parameters
        ----------
        positions : int64 [n], into the arrays of the source
        workers : processes that decode; threads, where the class of the source is known to this process alone

        Raises
        ------
        UserError : an image is missing or corrupt (named), or the disk is too full
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock", f"building {self.folder.name}"):
            self._create()
            stamps = np.fromfile(self.folder / "stamps.i64", dtype="<i8", count=len(self._source.ids))
            fingerprints = self._source.fingerprints(positions)
            stale = stamps[positions] != fingerprints
            if stale.any():
                needed = int(stale.sum()) * self._row_bytes
                require_room(self.folder, needed, "the image store", "give another --out")
                self._fill(positions[stale], fingerprints[stale], workers, quiet)
        return ImageStore(self.folder)

    @property
    def _row_bytes(self) -> int:
        return 3 * self._size**2

    def _create(self) -> None:
        """Lay out an empty store; the pixel file is sparse, so that rows never asked for take no disk."""
        if (self.folder / "index.json").exists():
            return
        ids = self._source.ids
        with (self.folder / "pixels.u8").open("wb") as file:
            file.truncate(len(ids) * self._row_bytes)
        for name in ("stamps.i64", "digests.u64"):
            (self.folder / name).write_bytes(bytes(8 * len(ids)))
        with replacing(self.folder / "index.json", durable=True) as file:
            file.write(json.dumps({"size": self._size, "ids": ids.tolist()}).encode())

    def _fill(self, positions: np.ndarray, fingerprints: np.ndarray, workers: int, quiet: bool) -> None:
        """Decode and write; a row is stamped once the disk has its pixels and digest: a killed build leaves none false.

        Everything is written, not mapped: writing to a full disk is then an error, not a bus fault.
        """
        expected = dict(zip(positions.tolist(), fingerprints.tolist(), strict=True))
        chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
        label = f"decoding {self._source.name} at {self._size} px"
        with (
            (self.folder / "pixels.u8").open("r+b", buffering=0) as rows,
            (self.folder / "digests.u64").open("r+b", buffering=0) as digests,
            (self.folder / "stamps.i64").open("r+b", buffering=0) as stamps,
            ProgressLine(label, len(positions), unit="images", quiet=quiet) as progress,
        ):
            for chunk, images in decoded(self._source, chunks, self._size, min(workers, len(chunks))):
                for position, image in zip(chunk.tolist(), images, strict=True):
                    pixels = image.tobytes()
                    write_at(rows, position * self._row_bytes, pixels)
                    write_at(digests, 8 * position, _eight_bytes(fingerprint(pixels)))
                synchronize(rows)
                synchronize(digests)
                for position in chunk.tolist():
                    write_at(stamps, 8 * position, _eight_bytes(expected[position]))
                progress.update(len(chunk))
            synchronize(stamps)


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
