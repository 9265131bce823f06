"""The page of a board: it says what the board says, and each picture has a file of its own."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from written_board import ABOUT, beside_the_paper, said, to_be_said, write_board

import ltbench


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    path = Path(ltbench.__file__).parent / "docs" / "boards.py"
    spec = importlib.util.spec_from_file_location("pages_of_boards", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_board_says(pages: ModuleType, tmp_path: Path) -> None:
    board = write_board(tmp_path, [("ce", range(2), {})], about=ABOUT, tables=[])
    page, pictures = pages.board_page(beside_the_paper(board))
    assert [part for part in to_be_said(board) if part not in said(page)] == []
    assert f"reproduce {board.name} --method ce --trial 0" in page and "2026-01-01: written" in page
    assert sorted(re.findall(r"\]\((.*?)\)\n", page)) == sorted(pictures)


def test_every_picture_has_a_file_of_its_own(pages: ModuleType, tmp_path: Path) -> None:
    all_right = np.repeat(5 * np.eye(4, dtype=np.float32), 20, axis=0)
    power = {"changed": {"power": 0.5}, "hyperparameters": {"power": 0.5}, "logits": all_right}
    rows = [("rs", (0, 1, 2, 3), power), ("rs", (0, 1, 2, 3), {}), ("flex", (0, 1, 2, 4), {})]
    board = write_board(tmp_path, rows, tables=[])
    main = board.settings[0]
    page, pictures = pages.board_page(replace(board, settings=[main, replace(main, name="main 1", methods=["flex"])]))
    files = re.findall(r"!\[.*\]\((.*?)\)", page)
    assert len(files) == len(set(files)) == len(pictures) and set(files) == set(pictures)
    assert all(re.fullmatch(r"[\w.-]+\.svg", file) for file in files)
    curves = dict(re.findall(r"!\[Training curves of (.*)\]\((.*?)\)", page.partition("## main 1")[0]))
    assert set(curves) == {"rs (power=0.5)", "rs", "flex"}
    assert curves["rs (power=0.5)"] != curves["rs"]


def test_a_page_whose_main_setting_is_empty_shows_no_trial_to_reproduce(pages: ModuleType, tmp_path: Path) -> None:
    board = write_board(tmp_path, [("ce", (0,), {})], tables=[])
    main = board.settings[0]
    page, _ = pages.board_page(replace(board, settings=[replace(main, methods=["rs"]), replace(main, name="other")]))
    assert "publish.py restore written" in page and "publish.py reproduce" not in page
