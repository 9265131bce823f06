"""Unpack zip archives that nobody vouches for: nothing leaves the folder, and a folder that exists is whole.

Every member is judged before the first byte is written. Regular files and folders are the only kinds taken, and
their bytes are copied by this module, so neither links nor modes nor owners of an archive ever reach the disk. The
copy grows in a folder of its own and gets its name by one rename, with a record of all files in it; a run that was
killed leaves nothing under the name that counts. `zipfile` compares every file with its CRC-32 while it is read.

Other archives are not taken: `tarfile` reads a header of any length into memory before it can be judged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from ltbench.errors import UserError
from ltbench.files import ProgressLine, amount, require_regular, require_room
from ltbench.locks import locked

RECORD = ".unpacked.json"
_MAX_FILES = 2_000_000
_MAX_DEPTH = 50
_MAX_RATIO = 100  # of unpacked to packed bytes; images and tables stay far below
_SMALL = 256 * 2**20  # bytes that any archive may unpack to, whatever the ratio
_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # by others a block becomes as large in memory as it says
# What zipfile raises on bytes that make no sense to it.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Refused(Exception):
    """Says what is wrong with an archive, as the end of a sentence that begins with it."""


def require_zip(name: str) -> None:
    """Check that the name of an archive is that of a zip.

    Raises
    ------
    UserError : it is not
    """
    if not name.lower().endswith(".zip"):
        raise UserError(f"{name} is no .zip, and nothing else is unpacked here; unpack it by hand")


def extract(archive: Path, folder: Path, *, quiet: bool = False) -> Path:
    """Unpack a zip into a folder that this creates; return the folder.

    A folder that an earlier call made of this archive is left as it is. A top folder that all files of the archive
    share is dropped when it bears the name of `folder`; what macOS adds (`__MACOSX/`, `._name`) is left out.

    Parameters
    ----------
    folder : must be new, empty, or made by this function of the same archive

    Raises
    ------
    UserError : the archive is missing, no zip, damaged, encrypted, compressed otherwise than by deflate, empty, or
        absurdly large once unpacked; a member would leave the folder, is a link or a device, or comes twice; the folder
        holds something else; the disk is full. Nothing is left behind
    """
    archive, folder = Path(archive), Path(folder).absolute()
    require_zip(str(archive))
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
    changed = _changes(folder, record["sizes"])
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{folder} changed since it was unpacked: {changed[0]}{more}; move it away and run again")
    return True


def _record(folder: Path) -> dict | None:
    try:
        record = json.loads(require_regular(folder / RECORD).read_text(encoding="utf-8"))
        return record if record.keys() >= {"archive", "size", "sizes"} else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _changes(folder: Path, sizes: dict[str, int]) -> list[str]:
    """Return a line for every file that is gone or has another size."""
    lines = []
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif path.stat().st_size != size:
            lines.append(f"{name} has {path.stat().st_size} bytes, not {size}")
    return lines


def _unpack(archive: Path, size: int, folder: Path, quiet: bool) -> None:
    growing = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(growing, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive) as opened:
            files = _plan(opened.infolist(), folder.name, size)
            sizes = {str(path): member.file_size for path, member in files.items()}
            total = sum(sizes.values())
            require_room(folder.parent, total, f"unpacking {archive.name}")
            growing.mkdir()
            with ProgressLine(f"unpacking {archive.name}", total, quiet=quiet) as progress:
                for path, member in files.items():
                    _write(opened, member, growing / path, progress)
        record = {"archive": archive.name, "size": size, "sizes": sizes}
        (growing / RECORD).write_text(json.dumps(record), encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()  # it is empty; not every system renames onto an empty folder
        growing.rename(folder)
    except _Refused as error:
        raise UserError(f"{archive} is not unpacked, nothing was written: it {error}") from error
    except UserError:
        raise  # it is a ValueError
    except _BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{archive} is damaged or no zip ({reason}); delete it and fetch it again") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _plan(members: Iterable[zipfile.ZipInfo], top: str, packed: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Judge all members of an archive of `packed` bytes; return the files to write, by their paths in the folder."""
    limit = max(_SMALL, _MAX_RATIO * packed)
    files, seen, total = {}, set(), 0
    for count, member in enumerate(members, 1):
        path = _judged(member)
        total += member.file_size
        if total > limit or count > _MAX_FILES:
            raise _Refused(f"unpacks to more than {amount(limit)} or {_MAX_FILES:,} files, which no dataset does")
        if member.is_dir():
            continue
        if not path.parts or path in seen:
            raise _Refused(f"holds a file twice or without a name: {str(path)!r}")
        seen.add(path)
        if path.parts[0] != "__MACOSX" and not path.name.startswith("._") and path.name != RECORD:
            files[path] = member
    clash = next((parent for path in seen for parent in path.parents if parent in seen), None)
    if clash is not None:
        raise _Refused(f"holds {str(clash)!r} as a file and as a folder")
    if not files:
        raise _Refused("holds no file")
    if all(len(path.parts) > 1 and path.parts[0] == top for path in files):
        files = {PurePosixPath(*path.parts[1:]): member for path, member in files.items()}
    return files


def _judged(member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path of a member that is a file or a folder, neither encrypted nor packed in a rare way."""
    name = member.filename
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Refused(f"holds a link or a device: {name!r}")
    if member.flag_bits & 0x1:
        raise _Refused(f"is encrypted ({name!r}); unpack it by hand")
    if member.compress_type not in _METHODS:
        raise _Refused(f"is compressed by method {member.compress_type}, not by deflate ({name!r}); unpack it by hand")
    return _safe_path(name)


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


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, progress: ProgressLine) -> None:
    """Copy one file; its CRC is checked at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # "x": on a disk that folds case or accents, two names may be one file
    with archive.open(member) as source, path.open("xb") as target:
        while block := source.read(_BLOCK):
            target.write(block)
            written += len(block)
            progress.update(len(block))
    if written != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} has {written} bytes, not {member.file_size}")
