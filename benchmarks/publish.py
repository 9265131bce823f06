"""Boards: published results that anyone can check, extend and train again.

    ltbench publish verify
    ltbench publish restore synthetic-r100 --out results
    ltbench publish add results --board synthetic-r100
    ltbench publish reproduce synthetic-r100 --method rs --trial 0

A board lies in benchmarks/boards/: its description, split manifests, each trial's result and logits, and SHA-256 sums.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.rendering import FORMATS
from ltbench.benchmarks.cli.command import (
    EXIT_BAD_INPUT,
    Parser,
    about,
    guarded,
    invocation,
    named_path,
    new_file,
    script,
)
from ltbench.errors import UserError, counted, in_one_line
from ltbench.files import REMEDY

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.publishing.board import Board


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("publish"),
        description=about(__doc__, "publish", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsed.add_argument("--boards", type=named_path, metavar="DIR", help="folder of boards; default: the repository's")
    actions = parsed.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="recompute every metric from the logits, check every digest")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all boards")
    table = actions.add_parser("table", help="print the table of a board")
    table.add_argument("name", metavar="NAME")
    table.add_argument("--format", default="github", metavar="NAME", help=f"{', '.join(FORMATS)}; default: github")
    about_picture = "draw the main table into a PNG instead"
    instead = table.add_mutually_exclusive_group()
    instead.add_argument("--picture", type=new_file, metavar="FILE.png", help=about_picture)
    instead.add_argument("--write", action="store_true", help="write the board's tables and sums anew instead")
    restore = actions.add_parser("restore", help="put a board back as a results folder, in which its trials are done")
    restore.add_argument("name", metavar="NAME")
    restore.add_argument("--out", type=named_path, required=True, metavar="DIR")
    _add_admission(actions)
    again = actions.add_parser("reproduce", help="train one trial again, and say whether it agrees")
    again.add_argument("name", metavar="NAME")
    again.add_argument("--method", required=True, metavar="NAME", help="row, as the table shows it")
    again.add_argument("--trial", type=int, default=0, metavar="K", help="default: 0")
    again.add_argument("--setting", metavar="NAME", help="default: the board's main one")
    again.add_argument("--data-root", type=named_path, metavar="DIR", help="default: $LTBENCH_DATA, else ./data")
    again.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N")
    kept = again.add_mutually_exclusive_group()
    kept.add_argument("--out", type=named_path, metavar="DIR", help="keep the trial there; default: a temporary folder")
    about_trained = "train nothing: compare the trial of this results folder, which another machine has trained"
    kept.add_argument("--trained", type=named_path, metavar="RESULTS", help=about_trained)
    again.add_argument("--record", action="store_true", help="write what was found into the board")
    for action in actions.choices.values():  # also behind the action, as `leaderboard` and `report` have it
        action.add_argument("--boards", type=named_path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parsed


def _add_admission(actions: argparse._SubParsersAction[Parser]) -> None:
    add = actions.add_parser("add", help="put finished trials of a results folder onto a board")
    create = actions.add_parser("create", help="a new board with the settings of a results folder, without rows")
    for each in (add, create):
        each.add_argument("results", type=named_path, metavar="RESULTS")
        each.add_argument("--board", required=True, metavar="NAME")
        each.add_argument("--method", nargs="+", metavar="NAME", help="default: all in the folder")
        each.add_argument("--ratio", nargs="+", metavar="R", help="default: all in the folder")
        each.add_argument(
            "--protocol", default="", metavar="DIGEST", help="first digits of the protocol's; default: all"
        )
    add.add_argument("--partial", action="store_true", help="admit rows whose trials are not all there")
    add.add_argument("--plugin", type=named_path, nargs="+", default=[], metavar="FILE.py", help="files of new methods")
    create.add_argument("--title", required=True, metavar="TEXT", help="in one line")
    create.add_argument("--about", nargs="+", default=[], metavar="TEXT", help="paragraphs of what it is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 what was checked does not hold."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.board import FOLDER

    options.boards = options.boards or FOLDER
    try:
        return ACTIONS[options.action](options)
    except UserError as error:
        if options.action in ("add", "create"):  # of a results folder
            raise
        raise UserError(_of_board(error)) from error


def _board(options: argparse.Namespace, name: str) -> Board:
    from ltbench.benchmarks.publishing.board import read_board

    return read_board(name, options.boards)


def _verify(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.board import boards_in
    from ltbench.benchmarks.publishing.verification import verify

    names = options.names or boards_in(options.boards)
    if not names:
        raise UserError(f"{options.boards} holds no boards")
    wrong = 0
    for name in names:
        try:
            print(verify(_board(options, name)), flush=True)
        except (OSError, UserError) as error:
            wrong += 1
            print(f"error: {name}: {in_one_line(_of_board(error))}", file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT if wrong else 0


def _of_board(error: Exception) -> str:
    """Return what is wrong with a published file, with advice that fits it."""
    from ltbench.benchmarks.publishing.board import BRING_BACK

    return str(error).replace(REMEDY, BRING_BACK)


def _table(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.rendering import render
    from ltbench.benchmarks.cli.arguments import check_format
    from ltbench.benchmarks.publishing.admission import changed
    from ltbench.benchmarks.publishing.tables import board_tables, generated

    check_format(options.format)
    board = _board(options, options.name)
    if options.write:
        with changed(board, edited=True):
            pass
        print(f"{board.folder}: tables and sums written")
    elif options.picture is not None:
        _draw(board, options.picture)
    elif options.format == "github":
        print(generated(board)["board.md"], end="")
    else:
        print(render([table for _, table in board_tables(board)], options.format))
    return 0


def _draw(board: Board, out: Path) -> None:
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.plots.ranking import ranking
    from ltbench.benchmarks.plots.style import png_of
    from ltbench.benchmarks.publishing.restoring import restored
    from ltbench.files import write_bytes

    main = board.settings[0]
    with restored(board) as folder:
        own = main.among(find_records(folder))
        if not own:
            raise UserError(f"board {board.name} has no row in its setting {main.name!r}")
        (setting,) = settings_of(own)
        write_bytes(out, png_of(ranking(setting.panels()[0])))
    print(out)


def _restore(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.restoring import restore
    from ltbench.benchmarks.publishing.verification import check_sums

    board = _board(options, options.name)
    check_sums(board)
    written = restore(board, options.out)
    print(f"{options.out}: {written} of {len(board.records)} trials of {board.name} written; a run there skips them")
    return 0


def _selected(options: argparse.Namespace) -> list[Record]:
    from ltbench.benchmarks.analysis.record_files.selection import select
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.training.request import ratio_values

    ratios = None if options.ratio is None else ratio_values(options.ratio)
    found = select(list(find_records(options.results)), None, options.method, ratios, options.protocol)
    if not found:
        raise UserError(f"{options.results} holds no finished trial that --method, --ratio and --protocol leave")
    return found


def _create(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.admission import create
    from ltbench.benchmarks.publishing.board import FOLDER, Board

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", options.board):
        raise UserError(f"a board's name has small letters, digits, dots and dashes, got {options.board!r}")
    board = create(Board(options.boards / options.board, options.title, options.about, ()), _selected(options))
    folder = "" if options.boards == FOLDER else f"--boards {shlex.quote(str(options.boards))} "
    command = f"{folder}add {shlex.quote(str(options.results))} --board {options.board}"
    settings = counted(len(board.settings), "setting")
    print(f"{board.folder}: {settings}; now add rows by `{invocation('publish')} {command}`")
    return 0


def _add(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.admission import add
    from ltbench.benchmarks.publishing.board import DESCRIPTION

    board = _board(options, options.board)
    for line in add(board, _selected(options), options.plugin, partial=options.partial):
        print(f"{board.name}: {line}")
    print(f"now see that title and about in {board.folder / DESCRIPTION} say what the table shows")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.publishing.admission import changed, log
    from ltbench.benchmarks.publishing.reproductions import (
        compared,
        record_of,
        reproductions,
        trained_elsewhere,
        write_reproductions,
    )

    board = _board(options, options.name)
    record = record_of(board, options.method, options.trial, options.setting)
    with tempfile.TemporaryDirectory(prefix="ltbench-reproduce-") as folder:
        if options.trained is None:
            again = _trained_again(options, board, record, options.out or Path(folder))
        else:
            again = trained_elsewhere(board, record, options.trained)
        found = compared(board, record, again)
    print(found.line())
    if options.record:
        with changed(board) as draft:
            write_reproductions(draft, [*reproductions(draft), found])
            log(draft, [f"trained again: {found.line()}"])
    return 0 if found.agrees else EXIT_BAD_INPUT


def _trained_again(options: argparse.Namespace, board: Board, record: Record, out: Path) -> Record:
    from ltbench.benchmarks.executors.execution import run
    from ltbench.benchmarks.publishing.reproductions import request_of
    from ltbench.benchmarks.training.planning.plan import plan
    from ltbench.benchmarks.training.request import Request

    of_here = {"data_root": options.data_root, "device": options.device, "jobs": 1, "out": out}
    request = Request(**request_of(board, record, **of_here))
    (folder,) = plan(request).trial_folders()
    if (folder / "result.json").exists():
        raise UserError(f"{folder} is done already; give another --out, or --trained to compare with it")
    (again,) = run(request).records
    return again


ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "verify": _verify,
    "table": _table,
    "restore": _restore,
    "add": _add,
    "create": _create,
    "reproduce": _reproduce,
}


if __name__ == "__main__":
    script(__file__)
