"""Damaged records: the sound ones beside them, and what is said of those that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ltbench.benchmarks.analysis.records import Record, trial_folders
from ltbench.errors import UserError


def sound_records(results: Path, pattern: str = "*/*/trial*/result.json") -> tuple[list[Record], dict[Path, str]]:
    """Return the finished trials whose result and predictions can be read; of the others what is wrong, by folder.

    Parameters
    ----------
    pattern : of the paths to look at

    Raises
    ------
    UserError : the folder is missing
    """
    sound, damaged = [], {}
    for folder in trial_folders(results, pattern):
        try:
            sound.append(sound_record(folder))
        except UserError as error:
            damaged[folder] = str(error)
    return sound, damaged


def sound_record(folder: Path) -> Record:
    """Return the record of a finished trial's folder, after checking that its predictions can be read.

    Raises
    ------
    UserError : its result or its predictions are missing, corrupt or altered
    """
    record = Record.read(folder)
    record.test_predictions()
    return record


def is_sound(folder: Path) -> bool:
    """Return whether result and predictions of a finished trial can be read."""
    try:
        sound_record(folder)
    except UserError:
        return False
    return True


def left_out(damaged: Mapping[Path, str]) -> list[str]:
    """Return the note of a table that was made without damaged records; none where there are none."""
    count = f"{len(damaged)} damaged record{'s' * (len(damaged) > 1)}"
    return [f"Without {count}, named on stderr."] if damaged else []
