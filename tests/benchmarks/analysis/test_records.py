"""Records of finished trials: typed, and refused in one line when they are damaged or of another form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exploit import Exploit

from ltbench.benchmarks.analysis.records import SCHEMA, Record, find_records, read_predictions, read_result
from ltbench.errors import UserError
from ltbench.files import write_bytes, write_json

Add = Callable[..., dict[str, Any]]


def test_a_result_is_read_as_it_was_written(tmp_path: Path, add_record: Add) -> None:
    stages = [
        {"name": "train", "cached": True, "epochs": 2, "steps": 9, "images": 99, "forward_images": 120, "seconds": 1.5}
    ]
    overlap = {"train/test": {"images": 0, "lesion_images": None, "total": 80}}
    add_record(tmp_path, "ce", 3, 0.6, changed={"scale": [1, 0.5]}, cost={"stages": stages}, overlap=overlap)
    (record,) = find_records(tmp_path)
    result, path = record.result, record.folder / "result.json"
    assert (result.data.class_names, result.data.class_counts) == (("a", "b", "c", "d"), (300, 100, 30, 10))
    assert (result.data.groups["tail"], result.data.overlap["train/test"].lesion_images) == ((2, 3), None)
    assert (result.trial, result.changed, result.cost.stages[0].images) == (3, {"scale": [1, 0.5]}, 99)
    assert result.to_json() == json.loads(path.read_text())
    assert list(result.protocol) == list(json.loads(path.read_text())["protocol"])
    write_json(path, result.to_json())
    assert Record.read(record.folder) == record


def test_records_are_found_in_order(tmp_path: Path, add_record: Add) -> None:
    for ratio, trial in ((50.0, 1), (50.0, 0), (100.0, 0)):
        add_record(tmp_path, "ce", trial, 0.6, ratio=ratio)
    write_json(tmp_path / "cache/result.json", {})
    records = list(find_records(tmp_path))
    assert [(record.result.data.ratio, record.result.trial) for record in records] == [(100, 0), (50, 0), (50, 1)]
    assert all(record.folder.name == f"trial{record.result.trial}" for record in records)


def test_find_records_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list(find_records(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["", "[]", "null", f'{{"schema": {SCHEMA}', '{"schema": 1}', '{"schema": null}'])
def test_what_is_no_result_of_this_schema_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a" / "ce-1" / "trial0" / "result.json"
    write_bytes(path, content.encode())
    with pytest.raises(UserError, match=rf"{path} .*run --fresh`$"):
        list(find_records(tmp_path))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (["ratio"], None, "lacks ratio"),
        (["test", "mean_class_accuracy"], None, "lacks test.mean_class_accuracy"),
        (["ratio"], "30", "wrong ratio .*number"),
        (["class_counts", 1], 2.5, "wrong class_counts.1 .*integer"),
        (["cost", "parameters"], True, "wrong cost.parameters .*integer"),
        (["protocol", "image_size"], [64], "wrong protocol.image_size .*integer"),
        (["selection"], 5, "wrong selection"),
    ],
)
def test_a_wrong_form_is_one_line_that_names_file_and_place(
    tmp_path: Path, add_record: Add, place: list[Any], value: Any, reason: str
) -> None:
    add_record(tmp_path, "ce", 0, 0.6)
    (path,) = tmp_path.rglob("result.json")
    changed = json.loads(path.read_text())
    *outer, last = place
    inside = changed
    for name in outer:
        inside = inside[name]
    inside[last] = value
    if value is None:
        del inside[last]
    write_json(path, changed)
    with pytest.raises(
        UserError, match=f"^{path} (has a )?{reason}.*; delete its folder or use `ltbench run --fresh`$"
    ) as raised:
        read_result(path)
    assert "\n" not in str(raised.value)


def test_predictions_with_code_are_refused_and_it_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "predictions.npz", tmp_path / "trace"
    np.savez(path, test_ids=np.array([Exploit(trace)], dtype=object))
    with pytest.raises(UserError, match=str(path)):
        read_predictions(path)
    assert not trace.exists()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"hello\n"])
def test_damaged_predictions_are_named(tmp_path: Path, add_record: Add, damage: Callable[[bytes], bytes]) -> None:
    add_record(tmp_path, "ce", 0, 0.6)
    (record,) = find_records(tmp_path)
    path = record.folder / "predictions.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=str(path)):
        record.test_predictions()
