"""A record counts once, by what it is and not by where it lies."""

import shutil
from pathlib import Path

import pytest
from written import reseal, write_record

from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import render
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.tables import all_tables


def test_a_copied_folder_adds_no_trials(tmp_path: Path) -> None:
    for trial in range(3):
        for method, accuracy in (("ce", 0.4), ("rs", 0.6)):
            write_record(tmp_path, method, trial, accuracy)
    before = settings_of(find_records(tmp_path))
    (folder,) = tmp_path.glob("*/rs-*")
    shutil.copytree(folder, folder.with_name("rs-copy"))
    (setting,) = settings_of(find_records(tmp_path))
    assert [len(row.records) for row in setting.rows] == [3, 3]
    assert [row.accuracy for row in setting.rows] == [row.accuracy for row in before[0].rows]
    counted = [note for note in setting.notes if note.startswith("Counted once")]
    assert len(counted) == 3 and all("rs-copy" in note for note in counted)
    for kind in ("overview", "ratios", "ranks"):
        shown = render(all_tables(find_records(tmp_path), [kind]), "github")
        assert all(shown.count(f"Counted once: trial {trial} of rs") == 1 for trial in range(3))


def test_a_copy_with_other_numbers_says_so(tmp_path: Path) -> None:
    write_record(tmp_path, "ce", 0, 0.4)
    (folder,) = tmp_path.glob("*/ce-*")
    copy = folder.with_name("ce-copy")
    shutil.copytree(folder, copy)
    reseal(copy / "trial0", code_version="1", test={"mean_class_accuracy": 0.5, "macro_f1": 0.123})
    (setting,) = settings_of(find_records(tmp_path))
    assert len(setting.rows[0].records) == 1 and "gives other numbers" in setting.notes[0]


@pytest.mark.parametrize(
    "moved", ["ce-copy/trial0", "rs-00000000/trial0", "ce-00000000/trial7", "../away/ce-00000000/trial0"]
)
def test_records_in_another_place_and_of_several_versions_are_named(moved: str, tmp_path: Path) -> None:
    folders = [write_record(tmp_path, "ce", trial, 0.4).folder for trial in range(2)]
    assert settings_of(find_records(tmp_path))[0].notes == ()
    reseal(folders[1], code_version_at_start="earlier")
    place = folders[0].parent.parent / moved
    place.parent.mkdir(parents=True)
    folders[0].rename(place)
    version, held = settings_of(find_records(tmp_path))[0].notes
    assert "of ce" in held and str(place.resolve()) in held.replace(str(place), str(place.resolve()))
    assert version.startswith("Several versions") and "0, earlier" in version
