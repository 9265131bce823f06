"""Records of finished trials: typed, and refused in one line when they are damaged or of another form."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exploit import Exploit
from written import reseal

import ltbench
from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.analysis.records import SCHEMA, Record, find_records, read_result
from ltbench.errors import UserError
from ltbench.files import write_arrays, write_bytes, write_json, write_tensors

Add = Callable[..., Record]


def test_a_result_is_read_as_it_was_written(tmp_path: Path, add_record: Add) -> None:
    counts = {"epochs": 2, "steps": 9, "images": 99, "forward_images": 120}
    stages = [{"name": "train", "cached": True, **counts, "seconds": 1.5, "rates": [0.1], "stopping": ""}]
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
    with pytest.raises(UserError, match="does not exist"):
        list(find_records(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "content", ["", "[]", "null", f'{{"schema": {SCHEMA}', '{"schema": 1}', '{"schema": null}', "[" * 10**5]
)
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
        (["val", "mean_class_accuracy"], 1.5, "wrong val.mean_class_accuracy"),
        (["test", "macro_f1"], float("nan"), "wrong test.macro_f1"),
        (["cost", "images_seen"], -1, "wrong cost.images_seen"),
        (["test", "top1"], 0.123, "was altered"),
        (["trial"], 1, "was altered"),
        (["class_counts", 0], 2**70, "wrong class_counts.0"),
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
    write_json(path, changed)  # NaN becomes null
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


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda data: b"hello\n",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["predictions.npz", "model.pt"])
def test_damaged_files_of_a_record_are_named(tmp_path: Path, add_record: Add, damage: str, name: str) -> None:
    folder = add_record(tmp_path, "ce", 0, 0.6).folder
    write_tensors(folder / "model.pt", {"weight": torch.ones(2)})
    reseal(folder)
    assert ltbench.load_results(tmp_path).model()["weight"].tolist() == [1, 1]
    path = folder / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=str(path)):
        Record.read(folder).model() if name == "model.pt" else Record.read(folder).test_predictions()


def claiming(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("test_logits.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})


def of_many_classes(path: Path, saved: dict[str, np.ndarray]) -> None:
    images = len(saved["test_ids"])
    largest = {"largest_classes": np.zeros((images, 2), "u1"), "largest_logits": np.zeros((images, 2), "f2")}
    largest |= {"log_rest": np.zeros(images, "f4"), "class_count": np.array(10**12)}
    del saved["test_logits"]
    write_arrays(path, {**saved, **{f"test_{name}": own for name, own in largest.items()}})


FORGED: dict[str, Callable[[Path, dict[str, np.ndarray]], Any]] = {
    "flat logits": lambda path, saved: write_arrays(path, {**saved, "test_logits": saved["test_logits"][:, 0]}),
    "fewer logits": lambda path, saved: write_arrays(path, {**saved, "test_logits": saved["test_logits"][1:]}),
    "two classes": lambda path, saved: write_arrays(path, {**saved, "test_logits": saved["test_logits"][:, :2]}),
    "labels of text": lambda path, saved: write_arrays(path, {**saved, "val_labels": saved["val_ids"]}),
    "no class": lambda path, saved: write_arrays(path, {**saved, "val_labels": saved["val_labels"] + 1}),
    "not finite": lambda path, saved: write_arrays(path, {**saved, "val_logits": saved["val_logits"] * np.nan}),
    "4 TB": lambda path, saved: claiming(path),
    "many classes": of_many_classes,
    "nothing": lambda path, saved: write_arrays(path, {}),
}


@pytest.mark.parametrize("forge", FORGED)
def test_predictions_of_another_form_are_one_line(tmp_path: Path, add_record: Add, forge: str) -> None:
    record = add_record(tmp_path, "ce", 0, 0.6)
    FORGED[forge](record.folder / "predictions.npz", record.predictions())
    reseal(record.folder)
    with pytest.raises(UserError, match=str(record.folder) + (".*claims .* MiB" if forge == "4 TB" else "")):
        Record.read(record.folder).predictions()


@pytest.mark.parametrize("name", ["result.json", "predictions.npz"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, add_record: Add, name: str) -> None:
    folder = add_record(tmp_path, "ce", 0, 0.6).folder
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="not a regular file"):
        Record.read(folder).predictions()
