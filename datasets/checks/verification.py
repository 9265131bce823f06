"""Are the files of a dataset those that they were: a manifest with a checksum for every file, and a comparison with it.

The manifest is a CSV with one row an image, in the dataset's own order: id, class name, group (lesion; its own id where
an image has none), part ("" where it has none), file, size in bytes, SHA-256. An image that was not there has neither
file nor checksum; images that lie in one archive have no file of their own. The dataset's tables and archives follow,
as rows without an id. Nothing in a manifest is trusted: a file is only looked at where its path stays in the data
folder.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.images.decoding import SUFFIXES
from ltbench.datasets.sources._image_files import FileSource
from ltbench.datasets.sources._own_images import OwnImages
from ltbench.datasets.tables import CHECKSUMS, read_table
from ltbench.errors import UserError
from ltbench.files import file_hash, replacing
from ltbench.processes import in_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

COLUMNS = ("id", "label", "group", "part", "file", "size", "sha256")

_TABLES = (".csv", ".tsv", ".json", ".npz", ".npy")
_SIZE, _SHA256 = re.compile(r"[0-9]{1,15}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Row:
    """A row of the manifest; `line` is that of the file."""

    line: int
    id: str
    label: str
    group: str
    part: str
    file: str
    size: str
    sha256: str


def write_manifest(source: Source, root: Path, path: Path, *, workers: int = 1, quiet: bool = False) -> int:
    """Write the manifest of a dataset as it is on disk; return the number of files in it.

    Parameters
    ----------
    root : the data folder, to which the paths in the manifest are relative
    path : of the manifest

    Raises
    ------
    UserError : the manifest exists, or cannot be written; an image or a table is outside the folder; a file has
        another checksum than the dataset's table says
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists; delete it to make a new one, or compare with it (verify without --create)")
    files = image_files(source, root)
    tables = _tables(source, root, path, set(files))
    names = [name for name in (*files, *tables) if name]
    measured = _in_threads(lambda name: _measure(root / name), names, workers, quiet)
    sums = dict(zip(names, measured, strict=True))
    if isinstance(source, OwnImages):
        for position, file in enumerate(files):
            if file:
                source.require_checksum(position, sums[file][1])
    images = zip(source.ids.tolist(), *_listed(source).values(), files, strict=True)
    rows = [(*image, *sums.get(image[-1], ("", ""))) for image in images]
    rows += [("", "", "", "", name, *sums[name]) for name in tables]
    _write(path, rows)
    return len(names)


def problems(
    root: Path, manifest: Path, source: Source | None, *, workers: int = 1, quiet: bool = False
) -> Iterator[str]:
    """Compare a data folder with its manifest; yield a line for every difference, naming file and row.

    Parameters
    ----------
    root : the data folder
    source : what the dataset's tables say now; None: they cannot be read, and files alone are compared

    Raises
    ------
    UserError : the manifest is missing or no table
    """
    rows = _read(manifest)
    wrong = list(_wrong_rows(rows, manifest, source))
    yield from (f"{_place(manifest, row)} {what}" for row, what in wrong)
    unusable = {row.line for row, _ in wrong}
    filed = [row for row in rows if row.file and row.line not in unusable]
    compared = _in_threads(lambda row: _compare(root / row.file, row), filed, workers, quiet)
    yield from (f"{_place(manifest, row)}: {what}" for row, what in zip(filed, compared, strict=True) if what)
    if source is not None:
        yield from _against_tables(rows, unusable, root, manifest, source)
    yield from _strays(root, manifest, rows, source)


def count_problems(source: Source) -> list[str]:
    """Compare the images that a dataset's tables list with the numbers known of it; return a line for every class."""
    if source.expected_counts is None:
        return []
    counts = dict(zip(source.class_names, np.bincount(source.labels, minlength=len(source.class_names)), strict=True))
    return [
        f"class {name!r}: the tables list {counts.get(name, 0)} images, the whole dataset has {expected}"
        for name, expected in source.expected_counts.items()
        if counts.get(name, 0) != expected
    ]


def image_files(source: Source, root: Path) -> list[str]:
    """Return the file of each image relative to the data folder; "" for one that is missing or has none of its own.

    Raises
    ------
    UserError : a file outside the folder
    """
    if not isinstance(source, FileSource):
        return [""] * len(source.ids)
    there, homes = source.present.tolist(), _homes(root)
    return [_relative("image", source.path(each), homes) if there[each] else "" for each in range(len(there))]


def _homes(root: Path) -> tuple[Path, Path]:
    """Return the absolute path of a folder, as it was given and with its links followed."""
    return Path(os.path.abspath(root)), root.resolve()  # noqa: PTH100


def _relative(kind: str, path: Path, homes: Sequence[Path]) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  a file that is a link is named by its own path
    for home in homes:
        if absolute.is_relative_to(home):
            return absolute.relative_to(home).as_posix()
    raise UserError(f"the {kind} {path} is outside the data folder {homes[0]}; give the folder of both as --data-root")


def _tables(source: Source, root: Path, manifest: Path, images: set[str]) -> list[str]:
    """Return the dataset's tables and archives, relative to the data folder."""
    homes = _homes(root)
    if source.tables is not None:
        return [_relative("table", path, homes) for path in source.tables]
    own = {manifest.resolve(), homes[1] / CHECKSUMS}
    found = (path for path in root.iterdir() if path.suffix.lower() in _TABLES and path.is_file())
    return sorted(path.name for path in found if path.name not in images and path.resolve() not in own)


def _listed(source: Source) -> dict[str, list[str]]:
    """Return what the dataset's tables say of each image, by the manifest's columns and in their order."""
    return {
        "label": [source.class_names[label] for label in source.labels.tolist()],
        "group": source.lesions.tolist(),
        "part": [""] * len(source.ids) if source.parts is None else source.parts.tolist(),
    }


def _in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, quiet: bool
) -> Iterator[Result]:
    return in_threads(function, items, workers=workers, label="hashing", unit="files", quiet=quiet)


def _measure(path: Path) -> tuple[str, str]:
    """Return size and SHA-256 of a file as text."""
    return str(path.stat().st_size), file_hash(path)


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    try:
        with replacing(path) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place with --manifest") from error


def _read(path: Path) -> list[_Row]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it of data that you trust: verify --create")
    table = read_table(path, COLUMNS)
    columns = (table[name].tolist() for name in COLUMNS)
    return [_Row(*values) for values in zip(table.index.tolist(), *columns, strict=True)]


def _place(manifest: Path, row: _Row) -> str:
    """Return where a row is and of which image and file it is."""
    named = ", ".join(text for text in (row.id, row.file) if text)
    return f"{manifest}, line {row.line} ({named})"


def _wrong_rows(rows: Sequence[_Row], manifest: Path, source: Source | None) -> Iterator[tuple[_Row, str]]:
    """Yield the rows that no data could match, with what is wrong."""
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        earlier = [
            (kind, lines.setdefault((kind, name), row.line))
            for kind, name in (("image", row.id), ("file", row.file))
            if name
        ]
        repeated = [f"repeats the {kind} of line {line}" for kind, line in earlier if line != row.line]
        if repeated:
            yield row, repeated[0]
        elif not row.id and not row.file:
            yield row, "names neither an image nor a file"
        elif source is not None and row.id and row.label not in source.class_names:
            yield row, f"has the unknown class {row.label!r}; known: {', '.join(source.class_names)}"
        elif row.file and _leaves(row.file):
            yield row, "has a path that leaves the data folder"
        elif row.file and not (_SIZE.fullmatch(row.size) and _SHA256.fullmatch(row.sha256)):
            yield row, f"has no size and SHA-256 but {row.size[:20]!r} and {row.sha256[:80]!r}"


def _leaves(name: str) -> bool:
    """Return whether a relative path leaves its folder on any system: Windows' rules are the wider ones."""
    path = PureWindowsPath(name)
    return bool(path.drive or path.root or ".." in path.parts or "\0" in name)


def _compare(path: Path, row: _Row) -> str:
    """Return how a file differs from its row, "" where it does not."""
    try:
        if not path.is_file():
            return f"the file {path} is missing"
        size = path.stat().st_size
        if size != int(row.size):
            return f"the file {path} has {size} bytes, not {row.size}"
        found = file_hash(path)
    except OSError as error:
        return f"the file {path} cannot be read: {error.strerror}"
    return "" if found == row.sha256 else f"the file {path} has other bytes: SHA-256 {found}, not {row.sha256}"


def _against_tables(
    rows: Sequence[_Row], unusable: Collection[int], root: Path, manifest: Path, source: Source
) -> Iterator[str]:
    """Yield what the dataset's tables say otherwise than the usable rows, and the images of which there is no row."""
    position = {image: index for index, image in enumerate(source.ids.tolist())}
    files, listed, known = image_files(source, root), _listed(source), {row.id for row in rows}
    for row in rows:
        if not row.id or row.line in unusable:
            continue
        if row.id not in position:
            yield f"{_place(manifest, row)}: the dataset does not list the image, so a row of its tables was dropped"
            continue
        index = position[row.id]
        told = [(column, getattr(row, column), values[index]) for column, values in listed.items()]
        expected = source.checksum(index) if isinstance(source, OwnImages) else ""
        if expected and row.sha256:
            told.append(("SHA-256", row.sha256, expected))
        for what, was, now in told:
            if now != was:
                yield f"{_place(manifest, row)} has the {what} {was!r}, the dataset{_origin(source, index)} {now!r}"
        if files[index] and files[index] != row.file:
            yield f"{_place(manifest, row)}: the dataset has the image in {files[index]}, which the row does not name"
    for image, index in position.items():
        if image in known:
            continue
        named = f"{image}, {listed['label'][index]}, {files[index] or 'no file'}"
        yield f"{manifest} has no row of an image that the dataset lists{_origin(source, index)}: {named}"


def _origin(source: Source, index: int) -> str:
    """Return where the dataset's tables list an image."""
    where = source.origin(index) if isinstance(source, FileSource) else ""
    return where or f" (image {index + 1} of its tables)"


def _strays(root: Path, manifest: Path, rows: Sequence[_Row], source: Source | None) -> Iterator[str]:
    """Yield the images in the rows' folders that neither a row nor the dataset's tables know."""
    known = {row.file for row in rows} | set([] if source is None else image_files(source, root))
    folders = sorted({str(Path(row.file).parent) for row in rows if row.id and row.file and not _leaves(row.file)})
    for folder in (root / name for name in folders):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            name = path.relative_to(root).as_posix()
            if path.suffix.lower() in SUFFIXES and name not in known:
                yield f"{manifest}: the image {path} is in no row"
