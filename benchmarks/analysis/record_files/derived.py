"""What was computed from the files of a record, kept in the results folder and found by all that it depends on.

An entry is a file whose first line is the SHA-256 of its key and its content: a damaged or foreign one is as good as
none. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy

from ltbench.files import BROKEN, HOSTILE, content_digest, file_hash, json_digest, write_bytes

Derived = tuple[Any, Mapping[str, np.ndarray]]
"""A value of JSON (NaN and infinity are kept), and arrays by name."""

_JSON = "json"


@dataclass(frozen=True)
class DerivedFiles:
    """Entries of a results folder.

    Attributes
    ----------
    folder : of the entries
    recompute : whether entries that are there are computed again, and replaced
    """

    folder: Path
    recompute: bool = False

    @classmethod
    def under(cls, results: Path, *, recompute: bool = False) -> DerivedFiles:
        """Return the entries of a results folder."""
        return cls(results / "cache" / "derived", recompute)

    def holds(self, key: str) -> bool:
        """Return whether a sound entry is there, and is not to be computed again."""
        return not self.recompute and _read(self._path(key), key) is not None

    def get(self, key: str, compute: Callable[[], Derived]) -> Derived:
        """Return what is stored under a key; computed, and stored where the folder can be written to, if nothing is.

        Parameters
        ----------
        key : as `key_of` returns it
        """
        path = self._path(key)
        known = None if self.recompute else _read(path, key)
        if known is not None:
            return known
        value, arrays = compute()
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        np.savez_compressed(buffer, **{_JSON: text, **arrays})  # type: ignore[arg-type]  # none is called allow_pickle
        content = buffer.getvalue()
        with contextlib.suppress(OSError):  # a results folder that cannot be written to is read as well
            write_bytes(path, _seal(key, content) + content)
        return value, arrays

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def key_of(what: str, modules: Iterable[ModuleType], depends_on: Any) -> str:
    """Return the key of a value: another one for other inputs, other code or another NumPy or SciPy.

    Parameters
    ----------
    what : name of the value
    modules : that compute it
    depends_on : JSON value that tells its inputs from others
    """
    code = [_source_digest(str(module.__file__)) for module in modules]
    return json_digest([what, code, np.__version__, scipy.__version__, depends_on])


@cache
def _source_digest(path: str) -> str:
    return file_hash(Path(path))


def _seal(key: str, content: bytes) -> bytes:
    """Return the first line of an entry."""
    return f"{content_digest(key.encode() + hashlib.sha256(content).digest())}\n".encode()


def _read(path: Path, key: str) -> Derived | None:
    """Return an entry; None if there is none, or not a sound one of this key."""
    try:
        line, _, content = path.read_bytes().partition(b"\n")
        if line + b"\n" != _seal(key, content):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        return json.loads(arrays.pop(_JSON).tobytes()), arrays
    except (*BROKEN, *HOSTILE):
        return None
