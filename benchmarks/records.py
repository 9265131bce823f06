"""Files of a trial: written to a temporary name and renamed, read with errors that name them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltbench.errors import UserError

SCHEMA = 1
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
RESULT_KEYS = ("dataset", "method", "trial", "protocol", "protocol_digest", "split_digest", "test", "cost", "changed")


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file that is either the old or the new one, whole, whenever the process ends.

    Parameters
    ----------
    durable : also wait until the disk has it, for the files that mean "done"
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable ({error}); delete its folder or use --fresh") from error


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
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(row), allow_nan=False) + "\n")


def write_tensors(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write tensors, and plain values among them, with `torch.save`.

    Serialised in memory first: torch reports a full disk as an error of its own, this as an `OSError`.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_bytes(path, buffer.getbuffer(), durable=durable)


def read_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Return what `write_tensors` wrote, without unpickling anything but tensors and plain values.

    The archive's check sums are verified first: torch does not look at them.

    Raises
    ------
    UserError : missing or corrupt, naming the file
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("check sum does not match")
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors; delete its folder or use --fresh") from error
    except (*_BROKEN, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not readable ({reason}); delete its folder or use --fresh") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, durable: bool = False) -> None:
    """Write arrays as a compressed npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getbuffer(), durable=durable)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `predictions.npz`.

    Raises
    ------
    UserError : missing or corrupt, naming the file
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _BROKEN as error:
        raise UserError(f"{path} is not readable ({error}); delete its folder or use --fresh") from error


@dataclass(frozen=True)
class Record:
    """One finished trial as the tables see it.

    Attributes
    ----------
    folder : of the trial
    result : what `result.json` holds
    """

    folder: Path
    result: Mapping[str, Any]

    def predictions(self) -> dict[str, np.ndarray]:
        """Return ids, labels and logits of validation and test images."""
        return read_predictions(self.folder / "predictions.npz")

    def test_predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids [n], labels [n] and logits [n, K] of the test images.

        Raises
        ------
        UserError : missing or corrupt, naming the file
        """
        arrays = self.predictions()
        try:
            return arrays["test_ids"], arrays["test_labels"], arrays["test_logits"]
        except KeyError as error:
            path = self.folder / "predictions.npz"
            raise UserError(f"{path} lacks {error}; delete its folder or use --fresh") from error


def read_result(path: Path) -> dict[str, Any]:
    """Return a `result.json`.

    Raises
    ------
    UserError : corrupt or of another schema, naming the file
    """
    result = read_json(path)
    complete = isinstance(result, dict) and all(key in result for key in RESULT_KEYS)
    if not complete or result.get("schema") != SCHEMA:
        raise UserError(f"{path} is no result of schema {SCHEMA}; delete its folder or use --fresh")
    return result


def find_records(results: Path, pattern: str = "*/*/trial*/result.json") -> Iterator[Record]:
    """Yield every finished trial under a results folder, in order of path.

    Parameters
    ----------
    pattern : of the paths to look at

    Raises
    ------
    UserError : the folder is missing, or a result is corrupt or of another schema
    """
    if not results.is_dir():
        raise UserError(f"results folder {results} does not exist; run benchmarks/run.py first or give --results")
    for path in sorted(results.glob(pattern)):
        yield Record(path.parent, read_result(path))
