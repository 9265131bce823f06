"""What is kept of predictions: the same tables with and without, and nothing that is damaged is believed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written import write_trial

from ltbench.benchmarks.analysis import records
from ltbench.benchmarks.analysis.record_files.damage import sound_records
from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
from ltbench.benchmarks.analysis.rendering import KINDS, render
from ltbench.benchmarks.analysis.tables import all_tables
from ltbench.errors import UserError


def shown(results: Path, derived: DerivedFiles | None = None) -> str:
    found, damaged = sound_records(results, derived=derived)
    assert not damaged
    return render(all_tables(found, KINDS), "csv")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method, trial in (("ce", 0), ("ce", 1), ("rs", 0), ("rs", 1)):
        write_trial(tmp_path, method, trial, special_classes=["class 1"])
    return tmp_path


DAMAGE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "flipped": lambda entries: [entry[:-9] + bytes([entry[-9] ^ 1]) + entry[-8:] for entry in entries],
    "cut": lambda entries: [entry[: len(entry) // 2] for entry in entries],
    "empty": lambda entries: [b"" for _ in entries],
    "of others": lambda entries: entries[1:] + entries[:1],
}


def test_tables_are_the_same_with_what_is_kept(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived, expected = DerivedFiles.under(results), shown(results)
    assert shown(results, derived) == expected
    paths = sorted(path for path in derived.folder.rglob("*") if path.is_file())
    for damaged in DAMAGE.values():
        for path, entry in zip(paths, damaged([path.read_bytes() for path in paths]), strict=True):
            path.write_bytes(entry)
        assert shown(results, derived) == expected
    assert shown(results, DerivedFiles(Path("/dev/null/nowhere"))) == expected  # cannot be written to

    def read(path: Path) -> Any:
        raise UserError("read again")

    monkeypatch.setattr(records, "read_predictions", read)
    assert shown(results, derived) == expected
    with pytest.raises(AssertionError):
        shown(results, DerivedFiles(derived.folder, recompute=True))


def test_kept_numbers_that_contradict_the_result_are_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived = DerivedFiles.under(results)
    get = DerivedFiles.get

    def forged(self: DerivedFiles, key: str, compute: Callable[[], Any]) -> Any:
        value, arrays = compute()
        value["test"] = {**value["test"], "top1": 0.125}
        return get(self, key, lambda: (value, arrays))

    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(DerivedFiles, "get", forged)
        shown(results, derived)
    with pytest.raises(UserError, match="top1"):
        shown(results, derived)
    assert shown(results, DerivedFiles(derived.folder, recompute=True)) == shown(results, derived)
