"""Files: written whole or not at all, read with errors that name them, hashed, with room and progress."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import sys
import time
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ltbench.errors import UserError

if TYPE_CHECKING:
    import torch

BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file raises."""

HOSTILE = (ArithmeticError, MemoryError, RuntimeError, SyntaxError, TypeError, struct.error, tokenize.TokenError)
"""What NumPy and torch raise besides on files that were made to break them."""

REMEDY = "delete its folder or use `ltbench run --fresh`"
"""What to do about a file of a trial that cannot be used."""

_BLOCK = 1 << 20


class Pace:
    """Says when the next plain line about something that takes its time is due.

    Parameters
    ----------
    seconds : the least time between two lines
    """

    def __init__(self, seconds: float = 20.0) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Count from now: a line was just printed."""
        self._since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the time since the last line is over."""
        return time.monotonic() - self._since >= self._seconds


class ProgressLine:
    """How much is done of a total: a bar on a terminal, plain lines elsewhere, at most one every 20 seconds.

    Parameters
    ----------
    label : what is done, e.g. `fetching a.zip`
    total : None where unknown
    done : what an earlier run has done
    unit : of `total`; bytes (`B`) are shown as MiB
    quiet : show nothing
    """

    def __init__(self, label: str, total: int | None, *, done: int = 0, unit: str = "B", quiet: bool = False) -> None:
        self._label, self._total, self._done, self._unit = label, total, done, unit
        terminal, in_bytes = sys.stderr.isatty(), unit == "B"
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit=unit,
            unit_scale=in_bytes,
            disable=quiet or not terminal,
            leave=False,
        )
        self._shown = amount if in_bytes else str
        self._lines, self._said = not quiet and not terminal, done
        self._pace = Pace()

    def __enter__(self) -> ProgressLine:
        if self._lines:
            self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._lines and self._done != self._said:
            self._line()

    def update(self, count: int = 1) -> None:
        """Count what was done just now."""
        self._done += count
        self._bar.update(count)
        if self._lines and self._pace.due:
            self._line()

    def _line(self) -> None:
        self._pace.restart()
        self._said = self._done
        total = f" of {self._shown(self._total)}" if self._total is not None else ""
        unit = "" if self._unit == "B" else f" {self._unit}"
        print(f"{self._label}: {self._shown(self._done)}{total}{unit}", file=sys.stderr, flush=True)


def amount(count: int) -> str:
    """Return a number of bytes as text.

    Examples
    --------
    >>> amount(9_800_000_000)
    '9,346.0 MiB'
    """
    return f"{count / 2**20:,.1f} MiB"


def require_room(folder: Path, needed: int, what: str, remedy: str = "give another folder") -> None:
    """Check that the disk of a folder has room for `needed` bytes.

    Raises
    ------
    UserError : it has not; the message begins with `what` and ends with the remedy
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {amount(needed)} in {folder} and {amount(free)} are free; free some space or {remedy}"
        )


def require_regular(path: Path) -> Path:
    """Return a path to read from; what does not exist is left to who opens it.

    Raises
    ------
    UserError : a folder, a pipe, a device or a socket, which would be waited for or never end
    """
    try:
        mode = path.stat().st_mode  # once: another process may delete it meanwhile
    except (OSError, ValueError):
        return path
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file; remove it, or restore the file")
    return path


def require_replaceable(path: Path) -> None:
    """Check that a file may be written in the place of `path`.

    Raises
    ------
    UserError : a folder, a link, a pipe or a device is there
    """
    if not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode):
        return
    kind = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "no regular file"
    raise UserError(f"cannot write {path}: it is {kind}; give the name of a file or a new name")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path`, by one rename, when it is whole.

    Whenever the process ends, `path` is the old file or the new one; a failure leaves nothing else behind.

    Parameters
    ----------
    durable : also wait until the disk has it, for the files that mean "done"

    Raises
    ------
    OSError : the folder is missing or not writable, or the disk is full
    UserError : what is there is no regular file
    """
    require_replaceable(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with naming(path), temporary.open("xb") as file:
            yield file
            if durable:
                synchronize(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let an error of the operating system on an open file, as of a full disk, name the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def synchronize(file: IO[bytes]) -> None:
    """Wait until the disk has what was written to a file."""
    with naming(file.name):
        file.flush()
        os.fsync(file.fileno())


def write_at(file: IO[bytes], offset: int, data: bytes) -> None:
    """Write bytes at a place in a file: all of them, also where the file is unbuffered and takes them in pieces.

    Raises
    ------
    OSError : the disk is full
    """
    file.seek(offset)
    left = memoryview(data)
    with naming(getattr(file, "name", "")):
        while left:
            written = file.write(left)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left = left[written:]


def write_bytes(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file, and its folder where that is missing; see `replacing`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=durable) as file:
        file.write(data)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Write a value as strict JSON; NumPy scalars and arrays become numbers and lists, NaN becomes null."""
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), durable=durable)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises
    ------
    UserError : missing or corrupt, naming the file
    """
    try:
        return json.loads(require_regular(path).read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable ({error}); {REMEDY}") from error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def plain(value: Any) -> Any:
    """Return a value as JSON keeps it: NaN and infinity as None, arrays and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    write_bytes(path, "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows).encode())


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and hand it to the operating system at once."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(row), allow_nan=False) + "\n")


def write_tensors(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> str:
    """Write tensors, and plain values among them, with `torch.save`; return the SHA-256 of the file.

    Serialised in memory first: torch reports a full disk as an error of its own, this as an `OSError`.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_bytes(path, buffer.getbuffer(), durable=durable)
    return content_digest(buffer.getbuffer())


def read_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Return what `write_tensors` wrote, without unpickling anything but tensors and plain values.

    The archive's check sums are verified first: torch does not look at them.

    Raises
    ------
    UserError : missing or corrupt, naming the file
    """
    import torch

    try:
        with zipfile.ZipFile(require_regular(path)) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("check sum does not match")
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors; {REMEDY}") from error
    except (*BROKEN, *HOSTILE) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not readable ({reason}); {REMEDY}") from error


def tensors_digest(value: Any) -> str:
    """Return the SHA-256 of tensors and plain values in nested mappings and sequences, hex, wherever they lie."""
    import torch

    if isinstance(value, torch.Tensor):
        bytes_of = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return content_digest(f"{value.dtype}{tuple(value.shape)}{content_digest(bytes_of.tobytes())}")
    if isinstance(value, Mapping):
        return content_digest("".join(f"{name!r}:{tensors_digest(own)}," for name, own in value.items()))
    if isinstance(value, list | tuple):
        return content_digest("".join(f"{tensors_digest(own)}," for own in value))
    return content_digest(repr(value))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, durable: bool = False) -> str:
    """Write arrays as a compressed npz file; return the SHA-256 of the file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # none is called allow_pickle
    write_bytes(path, buffer.getbuffer(), durable=durable)
    return content_digest(buffer.getbuffer())


def content_digest(content: bytes | memoryview | str) -> str:
    """Return the SHA-256 of bytes, of text in UTF-8, hex."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical text, hex."""
    return content_digest(json.dumps(value, sort_keys=True, separators=(",", ":")))


def file_hash(path: Path, kind: str = "sha256", *, progress: ProgressLine | None = None) -> str:
    """Return the hash of a file's bytes in hexadecimal digits, read as a stream.

    Parameters
    ----------
    kind : `sha256` or `md5`, or another that `hashlib` knows
    progress : counts the bytes that were read

    Raises
    ------
    OSError : the file is missing or cannot be read
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if progress is not None:
                progress.update(len(block))
    return digest.hexdigest()


def fingerprint(content: bytes) -> int:
    """Return a number of 64 bits, signed and never 0, that another content has only by chance (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True) or 1
