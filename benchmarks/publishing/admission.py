"""How results come onto a board: checked one by one, all or none of them."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.analysis.standings import Setting, settings_of
from ltbench.benchmarks.publishing.board import (
    BEFORE,
    CHANGES,
    DESCRIPTION,
    GENERATED,
    SUMS,
    TRIAL_FILES,
    Board,
    BoardSetting,
    draft_prefix,
    drafts_of,
    row_key,
    rows_in,
)
from ltbench.benchmarks.publishing.record_checks import require_known_code
from ltbench.benchmarks.publishing.tables import generated
from ltbench.benchmarks.publishing.verification import check_records, check_sums, sums_text
from ltbench.errors import UserError, counted
from ltbench.files import content_digest, file_hash, read_json, require_regular, write_bytes
from ltbench.locks import locked

_OF_A_RUN = {"methods", "trials", "hyperparameters", "plugins", "gpus", "jobs", "threads", "out", "fresh", "device"}
_OF_A_RUN |= {"data_root", "split_dir", "wandb", "wandb_artifacts", "executor", "checkpoint_seconds"}


def create(board: Board, records: Sequence[Record]) -> Board:
    """Write a new board without rows, whose settings are those of some records; return it.

    Parameters
    ----------
    board : name, title and text; its settings are replaced

    Raises
    ------
    UserError : its folder is there already, or a record has no configuration beside it
    """
    if board.folder.exists():
        raise UserError(f"{board.folder} exists; choose another name")
    if "\n" in board.title or not board.title.strip():
        raise UserError(f"a board's title is one line, got {board.title!r}")
    settings = []
    for number, setting in enumerate(settings_of(records)):
        first, trials = _with_request(setting), max(len(row.trials) for row in setting.rows)
        held = read_json(first.verified("config.json"))["request"]
        request = {name: value for name, value in held.items() if name not in _OF_A_RUN}
        name = "main" if not number else f"setting{number + 1}"
        settings.append(BoardSetting.of(first, name=name, about="", trials=trials, request=request))
    made = replace(board, settings=settings)
    with _beside(board.folder) as place:
        draft = replace(made, folder=place / board.name)
        write_bytes(draft.folder / DESCRIPTION, made.text().encode())
        write_bytes(draft.folder / CHANGES, f"# {board.name}\n\n".encode())
        write_generated(draft)
        draft.folder.rename(made.folder)
    return made


def _with_request(setting: Setting) -> Record:
    """Return a record of a setting that has its configuration beside it."""
    records = [record for row in setting.rows for record in row.records]
    for record in records:
        if record.path("config.json").exists():
            return record
    raise UserError(
        f"{records[0].folder} has no config.json, which says how to train it again, as trials restored from a board; "
        "name by --method a row that was trained here, and add the others afterwards"
    )


def add(board: Board, records: Sequence[Record], plugins: Iterable[Path] = (), *, partial: bool = False) -> list[str]:
    """Put trials onto a board; return a line for each row that is new or has more trials.

    Parameters
    ----------
    plugins : files of their methods from outside the package
    partial : admit rows whose trials are not all there; the table says how many are

    Raises
    ------
    UserError : a record does not belong to the board, or does not hold; nothing is written then
    """
    files = {content_digest(require_regular(path).read_bytes()): path for path in plugins}
    with changed(board) as draft:
        lines = []
        for row in rows_in(records):
            fresh = [record for record in row if not _there(draft, record)]
            if fresh:
                lines.append(_line(board, row, len(fresh), partial))
            for record in fresh:
                require_known_code(record)
                _require_plugin(record, files)
                _copy(draft, record, files)
        if not lines:
            raise UserError(f"board {board.name} has all of these {len(records)} trials already")
        check_records(Board.read(draft.folder))
        log(draft, lines)
    return lines


@contextmanager
def changed(board: Board, *, edited: bool = False) -> Iterator[Board]:
    """Yield a copy of a board to change; it takes the board's place, by a rename, if nothing fails.

    Tables and sums are written anew at the end. One process changes a board at a time. One that was killed between
    the two renames has left the board in its draft: `read_board` says where.

    Parameters
    ----------
    edited : whether description and tables may be other files than the sums say

    Raises
    ------
    UserError : a file of the board was altered; another process is changing it
    """
    with (
        locked(board.folder.with_name(f".{board.folder.name}.lock"), f"changing board {board.name}") as claim,
        _beside(board.folder) as place,
    ):
        check_sums(board, but=(DESCRIPTION, *GENERATED) if edited else ())
        draft, before = replace(board, folder=place / board.name), place / BEFORE
        for path in board.folder.rglob("*"):
            if path.is_file():  # and not `copytree`, whose error on a full disk names every file
                write_bytes(draft.folder / path.relative_to(board.folder), path.read_bytes())
        yield draft
        write_generated(Board.read(draft.folder))
        claim.require()
        board.folder.rename(before)
        try:
            draft.folder.rename(board.folder)
        except OSError:
            before.rename(board.folder)
            raise


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside that of a board; what a process that was killed has left there goes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in drafts_of(folder):
        if folder.exists():
            shutil.rmtree(left)
    place = Path(tempfile.mkdtemp(prefix=draft_prefix(folder.name), dir=folder.parent))
    try:
        yield place
    finally:
        if not (place / BEFORE).exists() or folder.exists():
            shutil.rmtree(place)


def write_generated(board: Board) -> None:
    """Write the tables of a board and the sums of its files."""
    for name, text in generated(board).items():
        write_bytes(board.folder / name, text.encode())
    write_bytes(board.folder / SUMS, sums_text(board.folder).encode())


def log(board: Board, lines: Iterable[str]) -> None:
    """Add lines to the log of changes, with the date."""
    path, today = board.folder / CHANGES, datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    text = path.read_text(encoding="utf-8") + "".join(f"- {today}: {line}\n" for line in lines)
    write_bytes(path, text.encode())


def _place(board: Board, record: Record) -> Path:
    return board.records_folder.joinpath(*record.folder.parts[-3:])


def _there(board: Board, record: Record) -> bool:
    """Return whether a board has a trial; another result in its place is an error."""
    path = _place(board, record) / "result.json"
    if not path.exists():
        return False
    if file_hash(path) != file_hash(record.folder / "result.json"):
        raise UserError(f"board {board.name} has another result of {'/'.join(record.folder.parts[-3:])}")
    return True


def _require_plugin(record: Record, files: Mapping[str, Path]) -> None:
    digest = record.result.plugin
    if digest is not None and digest not in files:
        raise UserError(
            f"{record.folder} is of a method from outside the package; give by --plugin its one file, as it was then "
            f"(SHA-256 {digest[:16]})"
        )


def _line(board: Board, row: Sequence[Record], new: int, partial: bool) -> str:
    setting, name = board.setting_of(row[0]), settings_of(row)[0].rows[0].name
    there = {record.result.trial for record in (*row, *board.records) if row_key(record) == row_key(row[0])}
    missing = sorted(set(range(setting.trials)) - there)
    if missing and not partial:
        raise UserError(
            f"{name} lacks trial {', '.join(map(str, missing))} of {setting.trials} of setting {setting.name!r}; "
            "finish it, or admit it as it is by --partial"
        )
    return f"{name}, setting {setting.name}: {counted(new, 'trial')} added, {len(there)} of {setting.trials} there"


def _copy(board: Board, record: Record, files: Mapping[str, Path]) -> None:
    target, result = _place(board, record), record.result
    for name in TRIAL_FILES:
        path = record.verified(name) if name in result.files else require_regular(record.folder / name)
        write_bytes(target / name, path.read_bytes())
    split = board.split_path(result.split_digest)
    if not split.exists():
        write_bytes(split, record.verified("split.csv").read_bytes())
    if result.plugin is not None and not board.plugin_path(result.plugin).exists():
        write_bytes(board.plugin_path(result.plugin), files[result.plugin].read_bytes())
