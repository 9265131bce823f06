"""Whether a board is what it says: every digest, every number from the logits, every table from the numbers."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ltbench.benchmarks.analysis.metrics import FURTHER, evaluate
from ltbench.benchmarks.analysis.record_files.predictions import PARTS
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.publishing.board import BRING_BACK, REPRODUCED, SUMS, TRIAL_FILES, Board, rows_in
from ltbench.benchmarks.publishing.reproductions import reproductions
from ltbench.benchmarks.publishing.tables import generated
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import file_hash, plain, require_regular

_SAME = 1e-6  # probabilities that differ by less, of all images, are those of one network
AGREEMENT = 1e-9
"""Largest difference of a stated number from the one that the logits give."""


def verify(board: Board) -> str:
    """Return in one line what was checked.

    Raises
    ------
    UserError : the first thing that does not hold, with the file's name
    """
    check_sums(board)
    for record in board.records:
        check_record(board, record)
    check_rows(board, board.records)
    _check_reproductions(board)
    _check_tables(board)
    rows = len(list(rows_in(board.records)))
    return f"{board.name}: {rows} rows, {len(board.records)} trials, all files, digests, numbers and tables agree"


def sums_text(folder: Path) -> str:
    """Return the SHA-256 of every file of a board, as `sha256sum --check` reads it."""
    return "".join(f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder))


def check_sums(board: Board) -> None:
    """Check that the files of a board are those that its sums name, to the bit.

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
        if file_hash(found[name]) != stated[name]:
            raise UserError(f"{found[name]} was altered: its SHA-256 is not that in {path}; {BRING_BACK}")


def check_record(board: Board, record: Record) -> None:
    """Check that a record belongs to a board and that its numbers are what its logits give.

    Raises
    ------
    UserError : saying what differs
    """
    setting, result = board.setting_of(record), record.result
    for version in (result.code_version, result.code_version_at_start):
        if "dirty" in (version or ""):
            raise UserError(f"{record.folder} was made by changed code ({version}); commit, and train it again")
    protocol = Protocol.from_json(dict(result.protocol))
    if protocol.digest() != result.protocol_digest:
        raise UserError(f"{record.folder}: its protocol does not have the digest that it states")
    if result.seed != protocol.seed + result.trial:
        raise UserError(f"{record.folder} has the seed {result.seed}, which is not that of its trial {result.trial}")
    if result.trial >= setting.trials:
        raise UserError(
            f"{record.folder} is trial {result.trial}; setting {setting.name!r} has {setting.trials} trials"
        )
    expected = f"{setting.row_folder(record)}/trial{result.trial}"
    if record.folder.parts[-3:] != tuple(expected.split("/")):
        raise UserError(f"{record.folder} lies in the place of another result; its own is {expected}")
    for name in TRIAL_FILES:
        if name in result.files:
            record.verified(name)
    _check_selection(record, protocol)
    arrays = record.predictions()
    manifest = Manifest.verify(board.split_path(result.split_digest), result.split_digest)
    data = result.data
    _check_classes(record, manifest)
    for part in PARTS:
        ids, labels, logits = (arrays[f"{part}_{name}"] for name in ("ids", "labels", "logits"))
        named, classes = manifest.part(part)
        order = np.argsort(named)
        if not (np.array_equal(np.sort(ids), named[order]) and np.array_equal(labels[np.argsort(ids)], classes[order])):
            raise UserError(f"{record.folder / 'predictions.npz'}: its {part} images are not those of the split")
        stated = getattr(result, part)
        further = [name for name in FURTHER if name in stated]  # records of earlier versions hold them
        found = evaluate(labels, logits, data.groups, data.class_names, data.special_classes, further)
        if difference := _difference(dict(stated), plain(found)):
            raise UserError(f"{record.folder / 'result.json'}: {part} {difference}")
    missing = [name for name in board.metrics if name not in result.test]
    if missing:
        raise UserError(f"{record.folder / 'result.json'} lacks the metrics {', '.join(missing)}")


def _check_selection(record: Record, protocol: Protocol) -> None:
    """Check that the reported epoch was chosen by the protocol's metric, and has the score that validation gives."""
    selection = record.result.selection
    score = dict(record.result.val).get(protocol.selection_metric)
    wrong = selection.metric != protocol.selection_metric or not isinstance(score, int | float)
    if wrong or abs(float(score) - selection.score) > AGREEMENT:  # type: ignore[arg-type]
        raise UserError(
            f"{record.folder / 'result.json'}: its selection, {selection.metric} {selection.score}, is not "
            f"{protocol.selection_metric} on validation, {score}"
        )


def _check_classes(record: Record, manifest: Manifest) -> None:
    """Check that classes and their training images are those of the split."""
    data = record.result.data
    named = dict(zip(manifest.labels.tolist(), manifest.classes.tolist(), strict=True))
    counts = manifest.class_counts("train", len(data.class_names)).tolist()
    if any(data.class_names[label] != name for label, name in named.items()) or list(data.class_counts) != counts:
        raise UserError(f"{record.folder / 'result.json'}: its classes, or their training images, are not of the split")


def check_rows(board: Board, records: Sequence[Record]) -> None:
    """Check that no trial is another one again: of the same row, or of two methods in all their trials.

    Raises
    ------
    UserError : naming both
    """
    logits = {record.folder: softmax(record.predictions()["test_logits"].astype(float), axis=1) for record in records}
    rows = list(rows_in(records))
    for row in rows:
        for first, second in itertools.combinations(row, 2):
            if first.result.trial == second.result.trial:
                raise UserError(f"{second.folder} is the same trial as {first.folder}")
            if _alike(logits[first.folder], logits[second.folder]):
                raise UserError(f"{second.folder} has the logits of {first.folder}")
    for one, other in itertools.combinations(rows, 2):
        own, others = ({record.result.trial: logits[record.folder] for record in row} for row in (one, other))
        common = own.keys() & others.keys()
        if common and all(_alike(own[trial], others[trial]) for trial in common):
            raise UserError(f"{other[0].folder.parent} has the logits of {one[0].folder.parent} in all common trials")


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether probabilities are the same but for rounding, float64 [n, K] each."""
    return first.shape == second.shape and bool(np.abs(first - second).max() < _SAME)


def _check_reproductions(board: Board) -> None:
    """Check that what was trained again is there, and that the verdicts follow from the differences."""
    there = {(_row_of(board, record), record.result.trial) for record in board.records}
    for each in reproductions(board):
        if (each.row, each.trial) not in there:
            raise UserError(f"{board.folder / REPRODUCED} names {each.row}, trial {each.trial}, which is not there")
        if each.agrees != each.follows:
            raise UserError(
                f"{board.folder / REPRODUCED}: the verdict on {each.row}, trial {each.trial}, does not follow"
            )


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


def _difference(stated: Any, found: Any, place: str = "") -> str:
    """Return where nested JSON values differ by more than `AGREEMENT`, and how; empty where nowhere."""
    if isinstance(stated, Mapping) and isinstance(found, Mapping) and stated.keys() == found.keys():
        return next(filter(None, (_difference(stated[name], found[name], f"{place} {name}") for name in found)), "")
    if isinstance(stated, Sequence) and not isinstance(stated, str) and isinstance(found, list):
        if len(stated) == len(found):
            pairs = enumerate(zip(stated, found, strict=True))
            return next(filter(None, (_difference(*pair, f"{place}[{at}]") for at, pair in pairs)), "")
    elif isinstance(stated, int | float) and isinstance(found, int | float):
        if abs(stated - found) <= AGREEMENT:
            return ""
    elif stated == found:
        return ""
    return f"states{place} {stated!r}, its logits give {found!r}"


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{path} is a link; a board holds files alone")
        if not path.is_dir() and path != folder / SUMS:
            yield require_regular(path)
