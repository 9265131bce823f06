"""Damaged records: the sound ones beside them, and what is said of those that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
from ltbench.benchmarks.analysis.records import Record, trial_folders
from ltbench.benchmarks.analysis.summaries import is_summarised
from ltbench.errors import UserError


def sound_records(
    results: Path, pattern: str = "*/*/trial*/result.json", derived: DerivedFiles | None = None
) -> tuple[list[Record], dict[Path, str]]:
    """Return the finished trials that tables can be made of; of the others what is wrong.

    Parameters
    ----------
    pattern : of the paths to look at
    derived : as for `Record`

    Raises
    ------
    UserError : the folder is missing
    """
    sound: list[Record] = []
    damaged: dict[Path, str] = {}
    splits: set[tuple[Path, str]] = set()
    for folder in trial_folders(results, pattern):
        try:
            sound.append(sound_record(folder, splits, derived))
        except UserError as error:
            damaged[folder] = str(error)
    return sound, damaged


def sound_record(
    folder: Path, splits: set[tuple[Path, str]] | None = None, derived: DerivedFiles | None = None
) -> Record:
    """Return the record of a finished trial's folder, after checking that predictions and split can be read.

    Parameters
    ----------
    splits : those that were found to be sound, with their digests: trials share one, which is read once
    derived : as for `Record`; what is there was computed from files that could be read

    Raises
    ------
    UserError : result, predictions or split are missing, corrupt or altered
    """
    record = Record.read(folder, derived)
    if not is_summarised(record):
        record.test_predictions()
        _check_split(record, set() if splits is None else splits)
    return record


def is_sound(folder: Path) -> bool:
    """Return whether result, predictions and split of a finished trial can be read."""
    try:
        sound_record(folder)
    except UserError:
        return False
    return True


def _check_split(record: Record, sound: set[tuple[Path, str]]) -> None:
    """Read the split of a record where one lies by, and add it to those that are sound; trials share it."""
    split = record.path("split.csv"), record.result.split_digest
    if split in sound or not split[0].exists():
        return
    try:
        record.manifest()
    except UserError as error:
        raise UserError(f"{record.folder}: {error}") from error
    sound.add(split)


def left_out(damaged: Mapping[Path, str]) -> list[str]:
    """Return the note of a table that was made without damaged records; none where there are none."""
    count = f"{len(damaged)} damaged record{'s' * (len(damaged) > 1)}"
    return [f"Without {count}, named on stderr."] if damaged else []
