"""Damaged records: the sound ones beside them, and what is said of those that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltbench.benchmarks.analysis.records import Record, trial_folders
from ltbench.errors import UserError


def sound_records(results: Path, pattern: str = "*/*/trial*/result.json") -> tuple[list[Record], list[str]]:
    """Return the finished trials whose result, predictions and split can be read, and for each other one what is wrong.

    Parameters
    ----------
    pattern : of the paths to look at

    Raises
    ------
    UserError : the folder is missing
    """
    sound, damaged, splits = [], [], set[tuple[Path, str]]()
    for folder in trial_folders(results, pattern):
        try:
            record = Record.read(folder)
            record.test_predictions()
            _check_split(record, splits)
        except UserError as error:
            damaged.append(str(error))
        else:
            sound.append(record)
    return sound, damaged


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


def left_out(damaged: Sequence[str]) -> list[str]:
    """Return the note of a table that was made without damaged records; none where there are none."""
    count = f"{len(damaged)} damaged record{'s' * (len(damaged) > 1)}"
    return [f"Without {count}, named on stderr."] if damaged else []
