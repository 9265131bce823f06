"""Unpack zip and tar archives that nobody vouches for: nothing leaves the folder, and a folder that exists is whole.

Every member is judged before the first byte is written. Regular files and folders are the only kinds taken, and
their bytes are copied by this module, so neither links nor modes nor owners of an archive ever reach the disk (the
safe filter of `tarfile` is missing in early releases of Python 3.10 and 3.11). The copy grows in a folder of its own
and gets its name by one rename, with a record of all files in it; a run that was killed leaves nothing under the
name that counts.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Protocol

from ltbench.datasets.bulk import ByteProgress, amount, locked, require_room
from ltbench.errors import UserError

RECORD = ".unpacked.json"
_MAX_FILES = 2_000_000
_MAX_DEPTH = 50
_MAX_RATIO = 100  # of unpacked to packed bytes; images and tables stay far below
_SMALL = 256 * 2**20  # bytes that any archive may unpack to, whatever the ratio
_BLOCK = 1 << 20
_BROKEN = (  # what the libraries raise on bytes that make no sense to them
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(ValueError, OverflowError, NotImplementedError, RecursionError),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Refused(Exception):
    """Says what is wrong with an archive, as the end of a sentence that begins with it."""


def extract(archive: Path, folder: Path, *, quiet: bool = False) -> Path:
    """Unpack an archive into a folder that this creates; return the folder.

    A folder that an earlier call made of this archive is left as it is. A top folder that all files of the archive
    share is dropped when it bears the name of `folder`; what macOS adds (`__MACOSX/`, `._name`) is left out.

    Parameters
    ----------
    archive : zip, tar, or tar compressed with gzip, bzip2 or xz, told by content
    folder : must be new, empty, or made by this function of the same archive

    Raises
    ------
    UserError : the archive is missing, damaged, encrypted, empty, or absurdly large once unpacked; a member would
        leave the folder, is a link or a device, or comes twice; the folder holds something else; the disk is full.
        Nothing is left behind
    """
    archive, folder = Path(archive), Path(folder).absolute()
    try:
        size = archive.stat().st_size
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock"), f"unpacking {archive.name}"):
            if not is_unpacked(folder, archive.name, size):
                _unpack(archive, size, folder, quiet)
    except OSError as error:
        raise UserError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from error
    return folder


def is_unpacked(folder: Path, archive: str, size: int | None = None) -> bool:
    """Return whether a folder holds the unpacked archive, False where it is missing or empty.

    Parameters
    ----------
    archive : file name of the archive, which itself need not be there any more
    size : of the archive, in bytes; None: any

    Raises
    ------
    UserError : the folder holds something else, or files have gone or changed their size since
    """
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = _record(folder)
    if record is None:
        raise UserError(
            f"{folder} exists and was not unpacked by ltbench; use it as it is, or move it away to get {archive}"
        )
    if record["archive"] != archive or size not in (None, record["size"]):
        raise UserError(
            f"{folder} was unpacked from another archive ({record['archive']}, {record['size']} bytes); move it away "
            "and run again"
        )
    damaged = damage(folder)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise UserError(f"{folder} changed since it was unpacked: {damaged[0]}{more}; move it away and run again")
    return True


def damage(folder: Path, *, contents: bool = False) -> list[str]:
    """Compare an unpacked folder with its record; return a line for every file that is gone or changed.

    Parameters
    ----------
    contents : read all files and compare their CRC-32 too, not their sizes alone

    Raises
    ------
    UserError : the folder has no record, so it was not unpacked by `extract`
    """
    record = _record(folder)
    if record is None:
        raise UserError(f"{folder} was not unpacked by ltbench: it has no readable {RECORD}")
    lines = []
    for name, (size, crc) in record["files"].items():
        path = folder / name
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif path.stat().st_size != size:
            lines.append(f"{name} has {path.stat().st_size} bytes, not {size}")
        elif contents and _crc(path) != crc:
            lines.append(f"{name} has other content")
    return lines


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, and `path`, where it goes in the folder."""

    path: PurePosixPath
    size: int
    is_folder: bool
    entry: zipfile.ZipInfo | tarfile.TarInfo


class _Reader(Protocol):
    """What differs between zip and tar."""

    def members(self) -> Iterator[_Member]: ...

    def open(self, member: _Member) -> IO[bytes]: ...


class _ZipReader:
    """Reads a zip; `zipfile` itself checks the CRC of every member that is read to its end."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def members(self) -> Iterator[_Member]:
        """Yield all entries; links, devices and encrypted ones are refused."""
        for info in self._file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"holds a link or a device: {info.filename!r}")
            if info.flag_bits & 0x1:
                raise _Refused(f"is encrypted ({info.filename!r}); unpack it by hand")
            yield _Member(_safe_path(info.filename), info.file_size, info.is_dir(), info)

    def open(self, member: _Member) -> IO[bytes]:
        """Return the content of a member as a stream."""
        return self._file.open(member.entry)


class _TarReader:
    """Reads a tar, compressed or not."""

    def __init__(self, file: tarfile.TarFile) -> None:
        self._file = file

    def members(self) -> Iterator[_Member]:
        """Yield all entries; links and devices are refused, and so is an archive without its end mark."""
        for info in self._file:
            if not (info.isreg() or info.isdir()):
                raise _Refused(f"holds a link or a device: {info.name!r}")
            if info.size < 0:  # tarfile would read the same header again and again
                raise tarfile.ReadError(f"{info.name!r} has a negative size")
            yield _Member(_safe_path(info.name), info.size, info.isdir(), info)
        self._check_end()

    def _check_end(self) -> None:
        """Check what tarfile does not: that the archive ends where it says so, and the checksum of its compression.

        tarfile takes a damaged header, or the end of a file cut between two members, for the end of the archive.
        """
        stream = self._file.fileobj
        stream.seek(self._file.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")
        padding = 0
        while block := stream.read(_BLOCK):  # the checksum is behind the last byte
            padding += len(block)
            if padding > _SMALL:
                raise _Refused(f"goes on for more than {amount(_SMALL)} after its end mark")

    def open(self, member: _Member) -> IO[bytes]:
        """Return the content of a member as a stream."""
        return self._file.extractfile(member.entry)


@contextmanager
def _opened(archive: Path) -> Iterator[_Reader]:
    with archive.open("rb") as file:
        # not is_zipfile: that is true of a tar whose last member is a zip
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if is_zip:
        with zipfile.ZipFile(archive) as opened:
            yield _ZipReader(opened)
    else:
        with tarfile.open(archive) as opened:
            yield _TarReader(opened)


def _unpack(archive: Path, size: int, folder: Path, quiet: bool) -> None:
    growing = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(growing, ignore_errors=True)  # of a run that was killed
    try:
        with _opened(archive) as reader:
            members = _plan(reader.members(), folder.name, size)
            total = sum(member.size for member in members)
            require_room(folder.parent, total, f"unpacking {archive.name}")
            growing.mkdir()
            with ByteProgress(f"unpacking {archive.name}", total, quiet=quiet) as progress:
                files = {str(member.path): _write(reader, member, growing, progress) for member in members}
        record = {"archive": archive.name, "size": size, "files": files}
        (growing / RECORD).write_text(json.dumps(record), encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()  # it is empty; not every system renames onto an empty folder
        growing.rename(folder)
    except _Refused as error:
        raise UserError(f"{archive} is not unpacked, nothing was written: it {error}") from error
    except UserError:
        raise
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; decompressors raise OSError without a number
        reason = str(error).partition("\n")[0]
        raise UserError(f"{archive} is damaged or no zip or tar ({reason}); delete it and fetch it again") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _plan(members: Iterable[_Member], top: str, packed: int) -> list[_Member]:
    """Judge all members; return the files to write, with their paths in the folder.

    Totals are compared while members come in, so that the list of a bomb is not read to its end.
    """
    limit = max(_SMALL, _MAX_RATIO * packed)
    files, seen, total = [], set(), 0
    for count, member in enumerate(members, 1):
        total += member.size
        if total > limit or count > _MAX_FILES:
            raise _Refused(f"unpacks to more than {amount(limit)} or {_MAX_FILES:,} files, which no dataset does")
        path = member.path
        if member.is_folder:
            continue
        if not path.parts or path in seen:
            raise _Refused(f"holds a file twice or without a name: {str(path)!r}")
        seen.add(path)
        if path.parts[0] != "__MACOSX" and not path.name.startswith("._") and path.name != RECORD:
            files.append(member)
    clash = next((parent for path in seen for parent in path.parents if parent in seen), None)
    if clash is not None:
        raise _Refused(f"holds {str(clash)!r} as a file and as a folder")
    if not files:
        raise _Refused("holds no file")
    if all(len(file.path.parts) > 1 and file.path.parts[0] == top for file in files):
        files = [replace(file, path=PurePosixPath(*file.path.parts[1:])) for file in files]
    return files


def _safe_path(name: str) -> PurePosixPath:
    r"""Return a member's name as a relative path; what could leave the folder on any system is refused.

    Windows' rules are the wider ones: drives, `\\server\share`, and the backslash as a second separator.
    """
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts:
        raise _Refused(f"holds a path that leaves the folder: {name!r}")
    if "\\" in name or _CONTROL.search(name) or len(path.parts) > _MAX_DEPTH:
        raise _Refused(f"holds a path that is not taken on every system: {name!r}")
    return PurePosixPath(name)


def _write(reader: _Reader, member: _Member, folder: Path, progress: ByteProgress) -> tuple[int, int]:
    """Copy one file; return its size and CRC-32."""
    path = folder / member.path
    path.parent.mkdir(parents=True, exist_ok=True)
    written = crc = 0
    # "x": on a disk that folds case or accents, two names may be one file
    with reader.open(member) as source, path.open("xb") as target:
        while block := source.read(_BLOCK):
            target.write(block)
            written, crc = written + len(block), zlib.crc32(block, crc)
            progress.update(len(block))
    if written != member.size:
        raise tarfile.ReadError(f"{member.path} has {written} bytes, not {member.size}")
    return written, crc


def _record(folder: Path) -> dict | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if record.keys() >= {"archive", "size", "files"} else None
    except (OSError, ValueError, AttributeError):
        return None


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
