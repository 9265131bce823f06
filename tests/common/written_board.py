"""A board of records written by hand: nothing is trained for it."""

import html
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from written import write_trial

from ltbench.benchmarks.analysis.published import read_published
from ltbench.benchmarks.publishing.admission import write_generated
from ltbench.benchmarks.publishing.board import Board, BoardSetting
from ltbench.benchmarks.publishing.tables import STATUS
from ltbench.files import write_bytes

ABOUT = ("First: copies of 200 x 150 pixels & `--preset quick`.", "Second, <5 % of what there is.")
REQUEST = {"ratios": [30.0], "dataset": "synthetic", "preset": "quick", "protocol": {}}


def write_board(
    boards: Path,
    rows: Iterable[tuple[str, Sequence[int], Mapping[str, Any]]],
    *,
    about: Sequence[str] = (),
    **described: Any,
) -> Board:
    """Write the board `written`, of toy data that are called synthetic, with one setting of five trials; return it.

    Parameters
    ----------
    rows : method, numbers of its trials, and further keys of `write_trial`
    described : of the setting, what no record says
    """
    written, folder = boards / ".written", boards / "written"
    held = [
        write_trial(written, method, trial, dataset="synthetic", **others)
        for method, trials, others in rows
        for trial in trials
    ]
    told: dict[str, Any] = {"name": "main", "about": "Five trials.", "trials": 5, "request": REQUEST, **described}
    setting = BoardSetting.of(held[0], **told)
    board = Board(folder, "Written", about, [setting])
    for record in held:
        place = board.records_folder / setting.row_folder(record) / record.folder.name
        shutil.copytree(record.folder, place)
        write_bytes(board.split_path(record.result.split_digest), record.path("split.csv").read_bytes())
    shutil.rmtree(written)
    write_bytes(folder / "CHANGELOG.md", b"# written\n\n- 2026-01-01: written\n")
    rewrite(board)
    return Board.read(folder)


def rewrite(board: Board) -> None:
    """Write the description of a board, then its tables and sums."""
    write_bytes(board.folder / "board.yaml", board.text().encode())
    write_generated(Board.read(board.folder))


def beside_the_paper(board: Board) -> Board:
    """Return a board that lacks rows, with a second setting, without any row, of what the paper reports."""
    main = board.settings[0]
    second = replace(main, name="isic", about="No row.", dataset="isic2019", ratio=100.0, expected=["flex", "rw"])
    return replace(board, settings=[replace(main, expected=["ce", "ldam", "oltr"]), second])


def to_be_said(board: Board) -> list[str]:
    """Return what each form of the board that `beside_the_paper` returns has to say."""
    printed = read_published()
    own = printed[(printed["dataset"] == "isic2019") & (printed["ratio"] == "100") & (printed["table"] == 1)]
    own = own[own["metric"] == "mean_class_accuracy"]
    rows = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(own["mean"], own["sd"], strict=True)]
    lacking = ["No trial is published yet.", "Not trained yet: ldam, oltr.", "Not trained yet: flex, rw."]
    texts = [board.title, *board.about, STATUS, "main", "Five trials.", "isic", "No row.", *lacking]
    return [said(part) for part in (*texts, "What the paper reports, isic2019, ratio 100", *rows)]


def said(page: str) -> str:
    """Return the text of Markdown or HTML without marks, in one line."""
    text = re.sub(r"</?code>", "", page)
    text = html.unescape(re.sub(r"</?[a-z][^>]*>", " ", text))
    return " ".join(re.sub(r"[`*\\]", "", text).split())
