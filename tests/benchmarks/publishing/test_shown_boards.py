"""`leaderboard --board` and `report --board`: whole boards alone, in the words of the board's own folder."""

from pathlib import Path

import pytest
from written import reseal
from written_board import write_board

from ltbench.benchmarks import leaderboard, report
from ltbench.benchmarks.publishing.board import Board
from ltbench.benchmarks.publishing.verification import sums_text

COMMANDS = {"leaderboard": leaderboard.main, "report": report.main}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Two rows of two trials, in a folder of boards of one's own."""
    return write_board(tmp_path / "my boards", [("ce", range(2), {}), ("rs", range(2), {})], tables=[])


@pytest.fixture
def shown(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that show the board; reports are written to this folder."""
    monkeypatch.chdir(tmp_path)
    return ["--board", board.name, "--boards", str(board.folder.parent)]


def refusal(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line by which a command refuses its arguments; nothing is shown."""
    assert COMMANDS[name](arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "ltbench-board-" not in printed.err
    return printed.err


def test_a_board_of_ones_own_is_shown_and_its_status_is_where_it_says(
    board: Board, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaderboard.main(shown) == 0
    printed = capsys.readouterr().out
    assert "| ce " in printed and "| rs " in printed
    assert f"--boards '{board.folder.parent}' table written" in printed.splitlines()[-1]
    assert report.main(shown) == 0 and "rs" in Path("report.html").read_text()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("file", ["predictions.npz", "result.json", "metrics.jsonl"])
def test_one_altered_file_is_refused(
    name: str, file: str, board: Board, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = board.records[0].folder / file
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} was altered" in refusal(name, shown, capsys)
    assert not Path("report.html").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_what_sums_do_not_see_is_refused_in_the_words_of_the_board(
    name: str, board: Board, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, row = board.records[0].folder, board.records[2].folder.parent
    whole = (first / "predictions.npz").read_bytes()
    (first / "predictions.npz").write_bytes(whole[:-1])
    renew(board)
    refused = refusal(name, shown, capsys)
    assert str(first / "predictions.npz") in refused and "from git" in refused and "--fresh" not in refused
    (first / "predictions.npz").write_bytes(whole)
    row.rename(row.with_name("rs-00000000"))
    renew(board)
    assert "its own is" in refusal(name, shown, capsys)


def test_what_a_board_does_not_hold_is_refused_in_its_words(
    board: Board, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(board.records_folder) in refusal("leaderboard", [*shown, "--ratio", "7"], capsys)
    assert "'written'" in refusal("leaderboard", ["--board", "writen", *shown[2:]], capsys)
    for name in COMMANDS:
        assert "--board is in" in refusal(name, shown[2:], capsys)


def test_records_that_belong_to_no_setting_are_refused(
    board: Board, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reseal(board.records[0].folder, protocol_digest="0" * 64)
    renew(board)
    assert "does not belong to board written" in refusal("leaderboard", shown, capsys)


def renew(board: Board) -> None:
    """Write the sums of a board's files anew, as a forger would."""
    (board.folder / "SHA256SUMS").write_text(sums_text(board.folder))
