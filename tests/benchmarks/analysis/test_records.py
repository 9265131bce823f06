"""Files of a trial: whole or not there, and refused by name when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import DAMAGE

from ltbench.benchmarks.analysis.records import RESULT_KEYS, SCHEMA, find_records, read_predictions
from ltbench.errors import UserError
from ltbench.files import write_arrays, write_bytes, write_json


class Exploit:
    """A pickle of this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        return Path.touch, (self.target,)


def test_arrays_round_trip(tmp_path: Path) -> None:
    arrays = {
        "test_ids": np.array(["a", "bcd"]),
        "test_labels": np.array([1, 0], dtype=np.int64),
        "test_logits": np.array([[0.1, np.nan], [np.inf, -2]], dtype=np.float32),
    }
    write_arrays(tmp_path / "predictions.npz", arrays)
    again = read_predictions(tmp_path / "predictions.npz")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_predictions_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "predictions.npz"
    write_arrays(path, {"value": np.random.default_rng(0).normal(size=500)})
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=str(path)):
        read_predictions(path)


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        read_predictions(tmp_path / "file")


def test_arrays_with_code_are_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "predictions.npz", tmp_path / "trace"
    np.savez(path, test_ids=np.array([Exploit(trace)], dtype=object))
    with pytest.raises(UserError, match=str(path)):
        read_predictions(path)
    assert not trace.exists()


def test_find_records_yields_finished_trials_in_order(tmp_path: Path) -> None:
    for name in ("b/ce-1/trial1", "b/ce-1/trial0", "a/ce-1/trial0"):
        write_json(tmp_path / name / "result.json", {"schema": SCHEMA, "name": name, **dict.fromkeys(RESULT_KEYS, 0)})
    (tmp_path / "a/ce-1/trial1").mkdir()
    write_json(tmp_path / "cache/result.json", {})
    records = list(find_records(tmp_path))
    assert [record.result["name"] for record in records] == ["a/ce-1/trial0", "b/ce-1/trial0", "b/ce-1/trial1"]
    assert records[0].folder == tmp_path / "a/ce-1/trial0"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 0}', '{"schema": 1}', '{"schema": 1', "null"])
def test_find_records_names_a_result_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a" / "ce-1" / "trial0" / "result.json"
    write_bytes(path, content.encode())
    with pytest.raises(UserError, match=str(path)):
        list(find_records(tmp_path))


def test_find_records_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list(find_records(tmp_path / "nowhere"))
