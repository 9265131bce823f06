"""Several versions of libraries in one setting are named with what each of them made."""

from pathlib import Path

from written import write_record

from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.standings import settings_of

ONE = {"python": "3.12.3", "torch": "2.11.0", "numpy": "2.4.6"}


def notes(results: Path) -> tuple[str, ...]:
    (setting,) = settings_of(find_records(results))
    return setting.notes


def test_libraries_that_differ_are_named_with_the_rows_that_each_made(tmp_path: Path) -> None:
    for trial in range(3):
        write_record(tmp_path, "ce", trial, 0.4, versions=ONE)
    assert notes(tmp_path) == ()
    for trial in range(2):
        write_record(tmp_path, "rs", trial, 0.5, versions={**ONE, "torch": "2.14.1"})
    assert notes(tmp_path) == ("Several versions of libraries: torch 2.11.0: 3 trials; torch 2.14.1: 2 trials of rs.",)


def test_a_library_that_a_record_does_not_name_is_unknown(tmp_path: Path) -> None:
    write_record(tmp_path, "ce", 0, 0.4, versions={"torch": "2.11.0"})
    write_record(tmp_path, "rs", 0, 0.5, versions={})
    assert "torch unknown: 1 trial of rs" in notes(tmp_path)[0]
