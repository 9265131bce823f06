"""The manifest: a split as data, one row an image, with a digest; and the overlap between its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ltbench.datasets.base import Source
from ltbench.datasets.splits.longtail import PARTS
from ltbench.datasets.tables import read_table
from ltbench.errors import UserError
from ltbench.files import content_digest, file_hash, replacing, require_regular
from ltbench.registry import unknown

COLUMNS = ("id", "label", "class", "lesion", "part")
_PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))


@dataclass(frozen=True, eq=False)
class Manifest:
    """Which image is in which part: rows by part (train, val, test), then by id.

    Attributes
    ----------
    ids : str [N]
    labels : int64 [N], class ids
    classes : str [N], class names
    lesions : str [N], lesion of each image, its own id where it has none
    parts : str [N], "train", "val" or "test"
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    lesions: np.ndarray
    parts: np.ndarray

    def __post_init__(self) -> None:
        order = np.lexsort((self.ids, np.array([PARTS.index(part) for part in self.parts])))
        for name, dtype in (("ids", str), ("labels", np.int64), ("classes", str), ("lesions", str), ("parts", str)):
            column = np.asarray(getattr(self, name), dtype=dtype)[order]
            column.setflags(write=False)  # the digest is computed once
            object.__setattr__(self, name, column)

    @classmethod
    def from_source(cls, source: Source, positions: Mapping[str, np.ndarray]) -> Manifest:
        """Return the manifest of the images at `positions` of a source, int [n] for each part."""
        chosen = np.concatenate([positions[part] for part in PARTS])
        parts = np.repeat(PARTS, [len(positions[part]) for part in PARTS])
        labels = source.labels[chosen]
        return cls(source.ids[chosen], labels, np.array(source.class_names)[labels], source.lesions[chosen], parts)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the CSV that `write` wrote; rows may be in any order.

        Raises
        ------
        UserError : the file is missing, empty, no table, lacks a column, or holds an unknown part, a bad label, a
            class with two names or an id twice; the message names file and line
        """
        table = read_table(path, COLUMNS)
        if table.empty:
            raise UserError(f"{path} lists no image")
        names = table["class"].groupby(table["label"]).transform("first")
        for bad, what in (
            (table["id"] == "", "has no id"),
            (~table["part"].isin(PARTS), f"has an unknown part; known: {', '.join(PARTS)}"),
            (~table["label"].str.fullmatch("[0-9]{1,4}"), "has a label that is not a class id (0, 1, ...)"),
            (table["class"] != names, "names a class otherwise than an earlier row with its label"),
            (table["id"].duplicated(), "repeats the id of an earlier row"),
        ):
            if bad.any():
                first = int(bad.to_numpy().argmax())
                row = ",".join(table[list(COLUMNS)].iloc[first])
                raise UserError(f"{path}, line {table.index[first]} ({row!r}) {what}")
        text = {name: table[name].to_numpy(dtype=str) for name in ("id", "class", "lesion", "part")}
        labels = table["label"].astype(np.int64).to_numpy()
        return cls(text["id"], labels, text["class"], text["lesion"], text["part"])

    @classmethod
    def verify(cls, path: Path, digest: str) -> Manifest:
        """Read a manifest after checking that its bytes have the given digest.

        Trials of one process share a split. A file is digested again only when its size or the time of its last change
        is another, and what has the same digest is read once, also where several rows have a file of it each.

        Raises
        ------
        UserError : as `read`, or the file was changed since it was written
        """
        try:
            status = require_regular(Path(path)).stat()
        except OSError as error:
            raise UserError(f"cannot read the split {path}: {error.strerror}") from error
        version = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        _check_digest(Path(path).absolute(), version, digest)
        return _read_once(_Verified(digest, Path(path)))

    @cached_property
    def csv(self) -> bytes:
        """The canonical CSV: a header line, fields as in `COLUMNS`, lines ended by a line feed, UTF-8."""
        columns = (self.ids, self.labels, self.classes, self.lesions, self.parts)
        table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
        return table.to_csv(index=False, lineterminator="\n").encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical CSV, 64 hex digits."""
        return content_digest(self.csv)

    def write(self, path: Path) -> None:
        """Write the canonical CSV so that a reader sees all of it or nothing.

        Raises
        ------
        UserError : the folder is missing or not writable, or the disk is full
        """
        try:
            with replacing(Path(path), durable=True) as file:
                file.write(self.csv)
        except OSError as error:
            raise UserError(f"cannot write the split {path}: {error.strerror}") from error

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return ids, str [n], and labels, int64 [n], of one part.

        Raises
        ------
        UserError : unknown part
        """
        if name not in PARTS:
            raise unknown("part", name, PARTS)
        chosen = self.parts == name
        return self.ids[chosen], self.labels[chosen]

    def class_counts(self, part: str, num_classes: int | None = None) -> np.ndarray:
        """Return the images of each class id in one part: int64 [K]; K is by default the last id in use plus 1."""
        if num_classes is None:
            num_classes = int(self.labels.max(initial=-1)) + 1
        return np.bincount(self.part(part)[1], minlength=num_classes)

    def restricted_to(self, ids: np.ndarray) -> Manifest:
        """Return the manifest with only those of its images that are among `ids`, str [n]."""
        kept = np.isin(self.ids, ids)
        return Manifest(*(c[kept] for c in (self.ids, self.labels, self.classes, self.lesions, self.parts)))


@lru_cache(maxsize=1024)
def _check_digest(path: Path, version: tuple[int, ...], digest: str) -> None:
    """Refuse a file, of a version that `stat` tells from others, that has another digest."""
    try:
        found = file_hash(path)
    except OSError as error:
        raise UserError(f"cannot read the split {path}: {error.strerror}") from error
    if found != digest:
        raise UserError(
            f"{path} was changed: its SHA-256 is {found}, not {digest}; restore it, or start over in a new folder"
        )


@dataclass(frozen=True)
class _Verified:
    """A file whose digest has been checked; files of the same digest are equal."""

    digest: str
    path: Path = field(compare=False)


@lru_cache(maxsize=8)
def _read_once(file: _Verified) -> Manifest:
    return Manifest.read(file.path)


@dataclass(frozen=True)
class PairOverlap:
    """What two parts share: `images` ids, and `lesion_images` of the `total` in `second` whose lesion is in `first`.

    `lesion_images` is None where lesions are not known.
    """

    first: str
    second: str
    images: int
    lesion_images: int | None
    total: int

    def line(self, group: str = "lesion") -> str:
        """Return a line of plain text; `group` is what images of one `lesions` entry share."""
        text = f"overlap {self.first}/{self.second}: {self.images or 'no'} image{'s' * (self.images > 1)} in both"
        if self.lesion_images is None:
            return f"{text}; {group}s are not known"
        if self.lesion_images == 0:
            return f"{text}, no {group} in both"
        shown = f"{self.lesion_images} of {self.total} {self.second} images"
        return f"{text}; {shown} show a {group} that {self.first} shows too"


@dataclass(frozen=True)
class Overlap:
    """What the parts of a split share, pair by pair: train/test, train/val, val/test."""

    pairs: tuple[PairOverlap, ...]

    def lines(self, group: str = "lesion") -> list[str]:
        """Return a line of plain text for every pair; `group` as for `PairOverlap.line`."""
        return [pair.line(group) for pair in self.pairs]

    def as_dict(self) -> dict[str, dict[str, int | None]]:
        """Return `{"train/test": {"images": ..., "lesion_images": ..., "total": ...}, ...}`."""
        numbers = ("images", "lesion_images", "total")
        return {f"{pair.first}/{pair.second}": {key: asdict(pair)[key] for key in numbers} for pair in self.pairs}


def overlap(manifest: Manifest, *, lesions_known: bool = True) -> Overlap:
    """Count the images and, where they are known, the lesions that two parts of a split share."""
    pairs = []
    for first, second in _PAIRS:
        one, other = manifest.parts == first, manifest.parts == second
        images = np.isin(manifest.ids[other], manifest.ids[one]).sum()
        lesion_images = int(np.isin(manifest.lesions[other], manifest.lesions[one]).sum()) if lesions_known else None
        pairs.append(PairOverlap(first, second, int(images), lesion_images, int(other.sum())))
    return Overlap(tuple(pairs))
