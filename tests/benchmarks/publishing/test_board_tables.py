"""What a board says, in each of its forms: the same text, rows, status, costs, devices and libraries."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from written_board import ABOUT, beside_the_paper, rewrite, said, to_be_said, write_board

from ltbench.benchmarks import publish
from ltbench.benchmarks.publishing import tables
from ltbench.benchmarks.publishing.board import Board, read_board
from ltbench.benchmarks.publishing.tables import board_tables, generated, sections

STAGE = {"name": "train", "cached": False, "epochs": 2, "images": 9, "forward_images": 9, "seconds": 1.0}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Two rows of all five trials."""
    return write_board(tmp_path, [("ce", range(5), {}), ("rs", range(5), {})], about=ABOUT, tables=[])


def statuses(board: Board) -> list[tuple[str, str, str]]:
    """Return setting, row and status of all rows."""
    return [
        (name, row[1].text, row[-1].text)
        for name, table in board_tables(board)
        if table.kind == "overview"
        for row in table.cells
    ]


@pytest.mark.parametrize("name", ["board.md", "board.html"])
def test_a_board_says_the_same_in_every_form(name: str, board: Board) -> None:
    page = generated(beside_the_paper(board))[name]
    assert [part for part in to_be_said(board) if part not in said(page)] == []
    assert "publish.py reproduce written --method" in page
    if name == "board.html":
        assert page.count("<table>") == 2 and "<code>--preset quick</code>" in page


def test_a_setting_counts_the_reproductions_of_its_own_trials(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    row = board.records[0].folder.parent.relative_to(board.records_folder).as_posix()
    again = [SimpleNamespace(row=row, trial=trial, agrees=trial != 2) for trial in (0, 2, 3, 4)]
    monkeypatch.setattr(tables, "reproductions", lambda _: again)
    main = board.settings[0]
    found = statuses(replace(board, settings=[main, replace(main, name="part", trials=2)]))
    assert ("main", "ce", "reproduced (3/5), NOT reproduced (1/5)") in found
    assert ("part", "ce", "reproduced (1/2)") in found
    assert ("main", "rs", "recomputed") in found and ("part", "rs", "recomputed") in found


def test_the_example_is_a_trial_of_the_main_setting_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = write_board(tmp_path, [("ce", (2, 3), {})])
    assert sections(board)[0].example == ("ce", 2)
    assert "reproduce written --method ce --trial 2" in (board.folder / "board.md").read_text()
    main = board.settings[0]
    rewrite(replace(board, settings=[replace(main, methods=["rs"]), replace(main, name="other")]))
    empty = read_board("written", tmp_path)
    assert [section.example for section in sections(empty)] == [None, ("ce", 2)]
    assert "publish.py reproduce" not in (empty.folder / "board.md").read_text()
    assert publish.main(["--boards", str(tmp_path), "table", "written"]) == 0
    assert "publish.py reproduce" not in capsys.readouterr().out


def test_the_csv_has_costs_in_one_line_a_row_and_the_table_of_costs_reads(tmp_path: Path) -> None:
    cost = {"stages": [{**STAGE, "steps": 30}], "forward_images": 700, "parameters": 9, "images_seen": 600}
    board = write_board(tmp_path, [("ce", range(5), {"cost": cost}), ("rs", range(5), {"cost": cost})], tables=["cost"])
    numbers = pd.read_csv(board.folder / "board.csv")
    columns = ["optimizer_steps", "forward_images", "images_seen", "parameters"]
    assert numbers[columns].to_numpy().tolist() == [[30, 700, 600, 9]] * 2
    assert list(numbers["n"]) == [5, 5]
    (_, leaderboard), (_, table) = board_tables(board)
    assert table.title == "Cost, 5 trials" and leaderboard.kind == "overview"
    assert [cell.text for cell in table.cells[0][1:3]] == ["30", "1.00"]


def test_devices_stand_with_versions_of_torch_and_the_rows_of_each(tmp_path: Path) -> None:
    card: dict[str, Any] = {"device": "a card", "versions": {"torch": "2.11.0", "numpy": "2.5.2"}}
    cpu: dict[str, Any] = {"device": "a CPU", "versions": {"torch": "2.14.1", "numpy": "2.4.6"}}
    board = write_board(tmp_path, [("ce", range(5), card), ("rs", range(4), card), ("focal", range(5), cpu)], tables=[])
    (_, whole), (_, part) = board_tables(board)
    assert whole.notes[0] == "Trained on a CPU (torch 2.14.1): 5 trials; a card (torch 2.11.0): 5 trials of ce."
    assert part.notes[0] == "Trained on a card (torch 2.11.0): 4 trials."
    libraries = (
        "Several versions of libraries: torch 2.11.0, numpy 2.5.2: 9 trials; torch 2.14.1, numpy 2.4.6: 5 trials"
    )
    assert any(note == f"{libraries} of focal." for note in whole.notes)


def test_no_note_sends_to_a_table_that_is_not_there(tmp_path: Path) -> None:
    stage, first = {**STAGE, "steps": 30}, {**STAGE, "steps": 60}
    rows = [("ce", range(5), {"cost": {"stages": [stage]}}), ("rs", range(5), {"cost": {"stages": [first]}})]
    text = (write_board(tmp_path, rows).folder / "board.md").read_text()
    assert "rs 2.00 (numbers: leaderboard --table cost)" in text and "leaderboard --table conformal" in text
    assert "the table of" not in text
