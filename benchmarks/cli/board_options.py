"""The options of commands that show a published board instead of a results folder, and how they show it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import invocation, named_path
from ltbench.errors import UserError

if TYPE_CHECKING:
    from ltbench.benchmarks.publishing.board import Board


def add_board_options(parsed: argparse.ArgumentParser) -> None:
    """Add `--board` and `--boards`."""
    parsed.add_argument("--board", metavar="NAME", help="a published board, instead of a results folder")
    about_boards = "folder of boards that --board is in; default: the repository's"
    parsed.add_argument("--boards", type=named_path, metavar="DIR", help=about_boards)


@contextmanager
def shown_results(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder of `--results`; of a board, a folder for the time being that holds its trials.

    Raises
    ------
    UserError : a file of the board is not what it was, or what is raised meanwhile: it names the board's own folder
    """
    if options.board is None:
        if options.boards is not None:
            raise UserError("--boards is the folder that --board is in; name the board, too")
        yield options.results
        return
    with _restored(options) as folder:
        yield folder


@contextmanager
def _restored(options: argparse.Namespace) -> Iterator[Path]:
    """Yield a results folder for the time being that holds the trials of a board, after checking its files."""
    from ltbench.benchmarks.publishing.board import BRING_BACK, FOLDER, read_board
    from ltbench.benchmarks.publishing.restoring import restored
    from ltbench.benchmarks.publishing.verification import check_sums
    from ltbench.files import REMEDY

    board = read_board(options.board, options.boards or FOLDER)
    check_sums(board)
    _require_own_places(board)
    with restored(board) as folder:
        try:
            yield folder
        except UserError as error:
            text = str(error).replace(str(folder), str(board.records_folder))
            raise UserError(text.replace(REMEDY, BRING_BACK)) from error


def status_notes(options: argparse.Namespace) -> list[str]:
    """Return a line on where the status of a board's rows is to be seen; none of a results folder."""
    if options.board is None:
        return []
    boards = "" if options.boards is None else f"--boards {shlex.quote(str(options.boards))} "
    return [f"Status of each row (recomputed, reproduced): {invocation('publish')} {boards}table {options.board}"]


def _require_own_places(board: Board) -> None:
    """Refuse a board without records, or with one in the place of another, where it would be counted as that."""
    if not board.records:
        raise UserError(f"board {board.name} has no trial yet")
    for record in board.records:
        board.require_own_place(record)
