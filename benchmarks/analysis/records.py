"""Finished trials as they lie in a results folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.errors import UserError
from ltbench.files import BROKEN, read_json

SCHEMA = 1
RESULT_KEYS = ("dataset", "method", "trial", "protocol", "protocol_digest", "split_digest", "test", "cost", "changed")


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `predictions.npz`.

    Raises
    ------
    UserError : missing or corrupt, naming the file
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except BROKEN as error:
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
