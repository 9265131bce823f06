"""Whether a board is what it says: every digest, every number from the logits, every table from the numbers."""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.publishing.board import (
    BRING_BACK,
    CHANGES,
    DESCRIPTION,
    GENERATED,
    REPRODUCED,
    SUMS,
    TRIAL_FILES,
    Board,
    BoardSetting,
    rows_in,
)
from ltbench.benchmarks.publishing.record_checks import AGREEMENT, check_description, check_record
from ltbench.benchmarks.publishing.reproductions import reproductions
from ltbench.benchmarks.publishing.tables import generated
from ltbench.benchmarks.training.protocol import protocol_for
from ltbench.benchmarks.training.request import Request
from ltbench.errors import UserError
from ltbench.files import file_hash, require_regular

_SAME = 1e-6  # probabilities that differ by less, of all images, are those of one network


def verify(board: Board) -> str:
    """Return in one line what was checked.

    Raises
    ------
    UserError : the first thing that does not hold, with the file's name
    """
    check_sums(board)
    check_records(board)
    _check_reproductions(board)
    _check_tables(board)
    _check_strays(board)
    rows = len(list(rows_in(board.records)))
    return f"{board.name}: {rows} rows, {len(board.records)} trials, all files, digests, numbers and tables agree"


def check_records(board: Board) -> None:
    """Check settings and records of a board: each by itself, and all against each other.

    Raises
    ------
    UserError : saying what does not hold
    """
    for setting in board.settings:
        _check_request(board, setting)
    for record in board.records:
        check_record(board, record)
    for setting in board.settings:
        check_description(setting, board.records)
    check_rows(board.records)


def sums_text(folder: Path) -> str:
    """Return the SHA-256 of every file of a board, as `sha256sum --check` reads it."""
    return "".join(f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder))


def check_sums(board: Board, *, but: Collection[str] = ()) -> None:
    """Check that the files of a board are those that its sums name, to the bit.

    Parameters
    ----------
    but : names of files that may be others

    Raises
    ------
    UserError : naming the first file that is missing, altered or not named
    """
    path = board.folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable ({error}); {BRING_BACK}") from error
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {file.relative_to(board.folder).as_posix(): file for file in _files(board.folder)}
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{board.folder / name} is missing, and {path} names it; {BRING_BACK}")
        if name not in stated:
            raise UserError(f"{found[name]} is not named in {path}; remove it")
        if name not in but and file_hash(found[name]) != stated[name]:
            raise UserError(f"{found[name]} was altered: its SHA-256 is not that in {path}; {BRING_BACK}")


def _check_request(board: Board, setting: BoardSetting) -> None:
    """Check that what trains a trial again is what the setting says."""
    try:
        request = Request(**{**setting.request, "methods": ["ce"]})
        protocol = protocol_for(request.preset or "", seed=request.seed, **request.protocol)
    except (TypeError, UserError) as error:
        raise UserError(f"{board.folder / DESCRIPTION}: request of setting {setting.name!r}: {error}") from error
    wrong = {
        "protocol": protocol.digest() != setting.protocol_digest and protocol.weights == "none",
        "ratios": tuple(request.ratios) not in ((setting.ratio,), ()),
        "dataset": request.dataset != setting.dataset,
        "split": request.split not in (setting.split, None),
    }
    if any(wrong.values()):
        names = ", ".join(name for name, differs in wrong.items() if differs)
        raise UserError(f"{board.folder / DESCRIPTION}: request of setting {setting.name!r} has another {names}")


def check_rows(records: Sequence[Record]) -> None:
    """Check that no trial is another one again: under another number, or of two methods in all their trials.

    Trials of two methods with the same number may agree, where both end at the same network.

    Raises
    ------
    UserError : naming both
    """
    logits = {record.folder: softmax(record.predictions()["test_logits"].astype(float), axis=1) for record in records}
    for first, second in itertools.combinations(records, 2):
        if first.folder.parent == second.folder.parent and first.result.trial == second.result.trial:
            raise UserError(f"{second.folder} is the same trial as {first.folder}")
        if first.result.trial != second.result.trial and _alike(logits[first.folder], logits[second.folder]):
            raise UserError(f"{second.folder} has the logits of {first.folder}")
    for one, other in itertools.combinations(list(rows_in(records)), 2):
        own, others = ({record.result.trial: logits[record.folder] for record in row} for row in (one, other))
        common = own.keys() & others.keys()
        if common and all(_alike(own[trial], others[trial]) for trial in common):
            raise UserError(f"{other[0].folder.parent} has the logits of {one[0].folder.parent} in all common trials")


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether probabilities are the same but for rounding, float64 [n, K] each."""
    return first.shape == second.shape and bool(np.abs(first - second).max() < _SAME)


def _check_reproductions(board: Board) -> None:
    """Check that what was trained again is there, and by committed code."""
    there = {(_row_of(board, record), record.result.trial) for record in board.records}
    for each in reproductions(board):
        if (each.row, each.trial) not in there:
            raise UserError(f"{board.folder / REPRODUCED} names {each.row}, trial {each.trial}, which is not there")
        if "dirty" in each.code_version:
            raise UserError(f"{board.folder / REPRODUCED}: {each.row}, trial {each.trial}, is of changed code")


def _check_strays(board: Board) -> None:
    """Check that a board holds nothing that it does not use."""
    used = {DESCRIPTION, CHANGES, REPRODUCED, *GENERATED}
    for record in board.records:
        used |= {(record.folder / name).relative_to(board.folder).as_posix() for name in TRIAL_FILES}
        used.add(board.split_path(record.result.split_digest).relative_to(board.folder).as_posix())
        if record.result.plugin is not None:
            used.add(board.plugin_path(record.result.plugin).relative_to(board.folder).as_posix())
    for path in _files(board.folder):
        if path.relative_to(board.folder).as_posix() not in used:
            raise UserError(f"{path} belongs to no record of the board; remove it, and run publish table --write")


def _row_of(board: Board, record: Record) -> str:
    return record.folder.parent.relative_to(board.records_folder).as_posix()


def _check_tables(board: Board) -> None:
    """Check that the tables are those of the records: CSV by its numbers, the others by their text."""
    for name, text in generated(board).items():
        path = board.folder / name
        stated = path.read_text(encoding="utf-8")
        same = _same_numbers(stated, text) if name.endswith(".csv") else stated == text
        if not same:
            remedy = f"write it anew by `publish table {board.name} --write`"
            raise UserError(f"{path} is not the table that the records give; {remedy}")


def _same_numbers(first: str, second: str) -> bool:
    import pandas as pd

    if not first.strip() or not second.strip():  # of a board without rows
        return first == second
    tables = [pd.read_csv(io.StringIO(text)) for text in (first, second)]
    if any(list(tables[0].columns) != list(table.columns) or len(tables[0]) != len(table) for table in tables):
        return False
    for name in tables[0].columns:
        one, other = (table[name] for table in tables)
        if pd.api.types.is_numeric_dtype(one) and pd.api.types.is_numeric_dtype(other):
            if not np.allclose(one, other, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True):
                return False
        elif not one.equals(other):
            return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{path} is a link; a board holds files alone")
        if not path.is_dir() and path != folder / SUMS:
            yield require_regular(path)
