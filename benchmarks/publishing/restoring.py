"""A board put back as a results folder, in which its trials are done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.publishing.board import TRIAL_FILES, Board
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import file_hash, write_bytes
from ltbench.locks import claimed, holder, lock_of


def restore(board: Board, out: Path) -> int:
    """Write the trials of a board into a results folder; return how many were not there yet.

    Each is done there: a run skips it. Weights are not published, so models cannot be loaded from it.

    Raises
    ------
    UserError : the folder holds another result in the place of one of the board, or a process is running its trial
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is no folder; give another --out")
    written = 0
    for record in board.records:
        target = Record(out / record.folder.relative_to(board.records_folder), record.result)
        there = target.folder / "result.json"
        if there.exists():
            if file_hash(there) != file_hash(record.folder / "result.json"):
                raise UserError(f"{target.folder} holds another result than board {board.name}; give another --out")
            continue
        target.folder.parent.mkdir(parents=True, exist_ok=True)
        with claimed(lock_of(target.folder)) as claim:
            if claim is None:
                raise UserError(f"{holder(lock_of(target.folder))} is running {target.folder}; give another --out")
            _write(board, record, target)
        written += 1
    return written


def _write(board: Board, record: Record, target: Record) -> None:
    """Write the files of a trial, last the one that means done."""
    split = target.path("split.csv")
    if split.exists():
        Manifest.verify(split, record.result.split_digest)
    else:
        write_bytes(split, board.split_path(record.result.split_digest).read_bytes())
    for name in sorted(TRIAL_FILES, key=lambda name: name == "result.json"):
        write_bytes(target.folder / name, (record.folder / name).read_bytes())


@contextmanager
def restored(board: Board) -> Iterator[Path]:
    """Yield a temporary results folder that holds the trials of a board."""
    folder = Path(tempfile.mkdtemp(prefix="ltbench-board-"))
    try:
        restore(board, folder)
        yield folder
    finally:
        shutil.rmtree(folder)
