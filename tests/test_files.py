"""Files: whole or not there, refused by name when they are damaged, hashed, locked, with progress."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from exploit import Exploit

from ltbench import files
from ltbench.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_write_replaces_the_whole_file(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "file"
    files.write_bytes(path, b"a long first version", durable=durable)
    files.write_bytes(path, b"short", durable=durable)
    assert path.read_bytes() == b"short" and names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def failing(self: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(type(error)):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, files.replacing(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "file")


def test_a_failed_write_leaves_no_temporary(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "file.json", {"value": object()})
    assert names(tmp_path) == []
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(UserError):
        files.write_bytes(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (np.float32("nan"), None),
        (np.float64(0.1), 0.1),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1.0, np.nan]), [1.0, None]),
        (np.array(2.5), 2.5),
        ((1, (2.0, float("-inf"))), [1, [2.0, None]]),
        ({"a": {1: np.arange(2)}}, {"a": {"1": [0, 1]}}),
        (None, None),
        ("NaN", "NaN"),
    ],
)
def test_values_as_json_keeps_them(tmp_path: Path, value: Any, kept: Any) -> None:
    assert files.plain(value) == kept
    files.write_json(tmp_path / "file.json", {"value": value})
    text = (tmp_path / "file.json").read_text()
    assert files.read_json(tmp_path / "file.json") == json.loads(text, parse_constant=pytest.fail) == {"value": kept}


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.write_lines(path, [{"epoch": 0, "loss": float("nan")}])
    files.append_line(path, {"epoch": 1, "loss": np.float32(0.5)})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"epoch": 0, "loss": None},
        {"epoch": 1, "loss": 0.5},
    ]


def test_tensors_and_arrays_round_trip(tmp_path: Path) -> None:
    value = {
        "float": torch.randn(3, 2),
        "half": torch.randn(4).bfloat16(),
        "count": torch.tensor(7),
        "plain": {"written": 5, "names": ["a"], "score": 0.1, "none": None},
    }
    files.write_tensors(tmp_path / "model.pt", value)
    again = files.read_tensors(tmp_path / "model.pt")
    assert all(torch.equal(again[name], value[name]) for name in ("float", "half", "count"))
    assert again["plain"] == value["plain"] and names(tmp_path) == ["model.pt"]
    arrays = {
        "test_ids": np.array(["a", "bcd"]),
        "test_labels": np.array([1, 0], dtype=np.int64),
        "test_logits": np.array([[0.1, np.nan], [np.inf, -2]], dtype=np.float32),
    }
    files.write_arrays(tmp_path / "predictions.npz", arrays)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as again:
        assert set(again) == arrays.keys()
        for name, array in arrays.items():
            assert again[name].dtype == array.dtype
            np.testing.assert_array_equal(again[name], array)


READERS: dict[str, Callable[[Path], Any]] = {"json": files.read_json, "tensors": files.read_tensors}


def damaged(path: Path, kind: str, damage: str) -> None:
    if kind == "json":
        files.write_json(path, {"value": list(range(500))})
    else:
        files.write_tensors(path, {"value": torch.randn(500)})
    data = path.read_bytes()
    changed = bytearray(data)
    middle = slice(len(data) // 2, len(data) // 2 + 20)
    changed[middle] = bytes(255 - byte for byte in data[middle])
    contents = {
        "empty": b"",
        "halved": data[: len(data) // 2],
        "flipped": bytes(changed),
        "garbage": b"\x93 not what it seems \xff\x00" * 30,
        "text": b"hello\n",
        "zeros": bytes(len(data)),
    }
    path.write_bytes(contents[damage])


@pytest.mark.parametrize("damage", ["empty", "halved", "flipped", "garbage", "text", "zeros"])
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_named(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / "file"
    damaged(path, kind, damage)
    with pytest.raises(UserError, match=str(path)):
        READERS[kind](path)


@pytest.mark.parametrize("kind", READERS)
def test_missing_files_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        READERS[kind](tmp_path / "file")


def save_bare(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_bare])
def test_tensors_with_code_are_named_and_it_does_not_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    save({"value": Exploit(trace)}, path)
    with pytest.raises(UserError, match=str(path)):
        files.read_tensors(path)
    assert not trace.exists()


class Slow(io.BytesIO):
    """A file that takes three bytes at a time, as an unbuffered one may, and none beyond its `room`."""

    room = 8

    def write(self, data: Any) -> int:
        return super().write(data[: min(3, self.room - self.tell())])


def test_a_place_in_a_file_is_written_in_full_or_an_error() -> None:
    file = Slow(bytes(10))
    files.write_at(file, 1, b"abcdefg")
    assert file.getvalue() == b"\0abcdefg\0\0"
    with pytest.raises(OSError, match="No space left"):
        files.write_at(file, 2, b"1234567")


def test_hashes_and_fingerprints(tmp_path: Path) -> None:
    path, content = tmp_path / "large", bytes(range(256)) * 10_000
    path.write_bytes(content)
    assert files.file_hash(path) == hashlib.sha256(content).hexdigest()
    assert files.file_hash(path, "md5") == hashlib.md5(content).hexdigest()
    assert [files.fingerprint(b""), files.fingerprint(b"12 34")] == [-5426141060434712860, 4553695716537345936]
    assert -(2**63) <= files.fingerprint(b"x") < 2**63


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    files.require_room(tmp_path, 2**20, "the store")
    with pytest.raises(UserError, match=rf"^the store needs 2.0 MiB in {tmp_path} and 1.0 MiB are free; .*another fol"):
        files.require_room(tmp_path, 2**21, "the store")


def test_progress_is_a_line_at_the_start_and_one_every_20_seconds(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    with (
        files.ProgressLine("fetching", 3 * 2**20, done=2**20) as fetching,
        files.ProgressLine("hashing", 60, unit="files") as hashing,
        files.ProgressLine("nothing", 5, quiet=True) as nothing,
    ):
        for now[0] in (10.0, 20.0, 30.0, 45.0):
            fetching.update(2**18)
            hashing.update()
            nothing.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("hashing")] == [
        f"hashing: {done} of 60 files" for done in (0, 2, 4)
    ]
    assert len(lines) == 6 and [lines[0], lines[-2]] == [f"fetching: {done}.0 MiB of 3.0 MiB" for done in (1, 2)]
    now = [0.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    pace = files.Pace(2.0)
    now[0] = 2.0
    assert pace.due and pace.due
    pace.restart()
    assert not pace.due
