"""Boards: what is admitted, what verification refuses, and what a board gives back."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from written import reseal

import ltbench
from ltbench.benchmarks import leaderboard, publish
from ltbench.benchmarks.executors.execution import Execution
from ltbench.benchmarks.publishing.admission import changed
from ltbench.benchmarks.publishing.board import FOLDER, boards_in, read_board
from ltbench.benchmarks.publishing.reproductions import Reproduction
from ltbench.benchmarks.publishing.tables import average_ranks, board_tables
from ltbench.benchmarks.publishing.verification import check_sums, sums_text, verify
from ltbench.benchmarks.training import trial
from ltbench.benchmarks.training.planning.plan import plan
from ltbench.files import read_json, write_arrays, write_bytes

TINY: dict[str, Any] = {"ratios": [5], "n_max": 30, "val_per_class": 3, "test_per_class": 4, "dataset": "synthetic"}
TINY |= {"device": "cpu", "jobs": 1, "protocol": {"epochs": 1, "image_size": 16, "batch_size": 16}}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials of two methods, by code that is committed."""
    out = tmp_path_factory.mktemp("trained") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "code_version", lambda: "1.0+abc")
        ltbench.run(ltbench.Request(["ce", "rs"], trials=2, out=out, **TINY))
    return out


@pytest.fixture(scope="module")
def published(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of boards that holds one."""
    boards = tmp_path_factory.mktemp("boards")
    on = ["--boards", str(boards)]
    assert publish.main([*on, "create", str(results), "--board", "tiny", "--title", "Tiny"]) == 0
    assert publish.main([*on, "add", str(results), "--board", "tiny"]) == 0
    return boards


@pytest.fixture
def boards(published: Path, tmp_path: Path) -> Path:
    """A copy of the boards, to change."""
    return shutil.copytree(published, tmp_path / "boards")


def test_what_is_added_verifies_and_is_shown(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["--boards", str(boards), "verify"]) == 0
    assert "2 rows, 4 trials" in capsys.readouterr().out
    text = (boards / "tiny" / "board.md").read_text()
    assert text.count("2/2") == 2 and text.count("recomputed |") == 2
    changes = (boards / "tiny" / "CHANGELOG.md").read_text().splitlines()
    assert len([line for line in changes if "2 of 2 there" in line]) == 2
    assert not list(boards.glob(".*"))


def test_a_flipped_bit_in_any_file_is_refused_by_name(boards: Path) -> None:
    board = read_board("tiny", boards)
    files = [path for path in sorted(board.folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
    assert len(files) > 15
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ltbench.UserError, match=str(path)):
            verify(read_board("tiny", boards))
        path.write_bytes(whole)
    sums = board.folder / "SHA256SUMS"
    sums.write_bytes(b"0" + sums.read_bytes()[1:])
    with pytest.raises(ltbench.UserError, match="SHA256SUMS"):
        verify(read_board("tiny", boards))


def forged_number(folder: Path) -> None:
    """Edit a number and renew the record's own digests."""
    record = next(folder.glob("records/*/rs-*/trial0"))
    held = read_json(record / "result.json")
    held["test"]["macro_auroc"] += 1e-6
    reseal(record, test=held["test"])


def forged_setting(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), protocol_digest="0" * 64)


def forged_seed(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), seed=7)


def dirty(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), code_version="1.0+abc-dirty")


def swapped(folder: Path) -> None:
    (path,) = folder.glob("splits/*.csv")
    lines = path.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join([*lines, ""]))


def copied_trial(one: Path, other: Path) -> None:
    """Let a trial have the predictions and epochs of another, and all numbers that they give."""
    for name in ("predictions.npz", "metrics.jsonl"):
        shutil.copy(one / name, other / name)
    held = read_json(one / "result.json")
    reseal(other, **{name: held[name] for name in ("val", "test", "selection", "cost")})


def another_number(folder: Path) -> None:
    """Let trial 1 of one method be trial 0 of another."""
    copied_trial(next(folder.glob("records/*/ce-*/trial0")), next(folder.glob("records/*/rs-*/trial1")))


def copied_logits(folder: Path) -> None:
    """Let every trial of one method have the predictions, and their metrics, of the other."""
    for number in (0, 1):
        one, other = (next(folder.glob(f"records/*/{name}-*/trial{number}")) for name in ("ce", "rs"))
        copied_trial(one, other)


def other_images(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    with np.load(record / "predictions.npz", allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    arrays["test_ids"] = np.array([f"x{number}" for number in range(len(arrays["test_ids"]))])
    write_arrays(record / "predictions.npz", arrays)
    reseal(record)


def other_classes(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    reseal(record, class_names=read_json(record / "result.json")["class_names"][::-1])


def other_groups(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), groups={"head": [0], "medium": [1], "tail": [2, 3, 4, 5, 6, 7]})


def other_selection(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    reseal(record, selection={**read_json(record / "result.json")["selection"], "score": 0.99})


def other_hyperparameters(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), hyperparameters={}, changed={})


def shifted_copy(folder: Path) -> None:
    """Let trial 1 be trial 0 with another constant in its logits: the same probabilities."""
    one, other = (next(folder.glob(f"records/*/rs-*/trial{number}")) for number in (0, 1))
    with np.load(one / "predictions.npz", allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    arrays |= {name: arrays[name].astype(np.float64) + 1 for name in ("val_logits", "test_logits")}
    copied_trial(one, other)
    write_arrays(other / "predictions.npz", arrays)
    reseal(other)


def other_epochs(folder: Path) -> None:
    next(folder.glob("records/*/rs-*/trial0")).joinpath("metrics.jsonl").write_text("{}")


def no_epochs(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    (record / "metrics.jsonl").write_text("")
    reseal(record)


def other_epoch(folder: Path) -> None:
    """Report an epoch that there was not."""
    record = next(folder.glob("records/*/rs-*/trial0"))
    reseal(record, selection={**read_json(record / "result.json")["selection"], "epoch": 7})


def better_epoch(folder: Path) -> None:
    """Report an epoch though another one had the better validation score."""
    record = next(folder.glob("records/*/rs-*/trial0"))
    (line,) = (record / "metrics.jsonl").read_text().splitlines()
    best = {**json.loads(line), "epoch": 1, "steps": 0, "images": 0, "val_recall": [1.0] * 8}
    (record / "metrics.jsonl").write_text(f"{line}\n{json.dumps(best)}\n")
    reseal(record)


def fewer_steps(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    cost = read_json(record / "result.json")["cost"]
    cost["stages"][0]["steps"] -= 1
    reseal(record, cost=cost)


def other_method(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), method="supersota")


def no_plugin(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), plugin="0" * 64)


def other_default(folder: Path) -> None:
    record = next(folder.glob("records/*/rs-*/trial0"))
    reseal(record, hyperparameters={**read_json(record / "result.json")["hyperparameters"], "power": 0.25})


def no_commit(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), code_version="1.0")


def other_title(folder: Path) -> None:
    reseal(next(folder.glob("records/*/rs-*/trial0")), title="Photographs of real lesions")


def other_request(folder: Path) -> None:
    held = yaml.safe_load((folder / "board.yaml").read_text())
    held["settings"][0]["request"]["protocol"]["epochs"] = 2
    (folder / "board.yaml").write_text(yaml.safe_dump(held))


def stray(folder: Path) -> None:
    write_bytes(folder / "plugins" / "other.py", b"")


def moved(folder: Path) -> None:
    row = next(folder.glob("records/*/rs-*"))
    row.rename(row.with_name("rs-mine"))


def linked(folder: Path) -> None:
    row = next(folder.glob("records/*/rs-*"))
    row.rename(folder.parent / "elsewhere")
    row.symlink_to(folder.parent / "elsewhere")


def claimed(folder: Path) -> None:
    """Claim that a trial was trained again that is not there."""
    entry = {"row": "synthetic-paper-r5/rs-0", "trial": 9, "when": "2026-01-01", "device": "x", "code_version": "1"}
    entry |= {"largest_difference": 0.0, "accuracy_difference": 0.0}
    (folder / "reproduced.yaml").write_text(yaml.safe_dump([entry]))


def other_table(folder: Path) -> None:
    path = folder / "board.csv"
    table = path.read_text().splitlines()
    path.write_text("\n".join([table[0], table[2], table[1], ""]))


@pytest.mark.parametrize(
    ("forge", "what"),
    [
        (forged_number, "macro_auroc"),
        (forged_setting, "protocol_digest"),
        (forged_seed, "seed"),
        (dirty, "changed code"),
        (swapped, "was changed"),
        (copied_logits, "has the logits of"),
        (other_images, "images are not those of the split"),
        (other_classes, "classes"),
        (other_groups, "groups"),
        (other_selection, "selection"),
        (other_hyperparameters, "place of another result"),
        (shifted_copy, "has the logits of"),
        (other_epochs, "metrics.jsonl"),
        (moved, "place of another result"),
        (linked, "is a link"),
        (claimed, "which is not there"),
        (another_number, "has the logits of"),
        (no_epochs, "stages none"),
        (other_epoch, "epoch 7 of"),
        (better_epoch, "not the best one"),
        (fewer_steps, "steps and images"),
        (other_method, "does not have"),
        (no_plugin, "is not its file"),
        (other_default, "differ from the defaults"),
        (no_commit, "which commit"),
        (other_title, "title"),
        (other_request, "another protocol"),
        (stray, "belongs to no record"),
        (other_table, "board.csv"),
    ],
)
def test_what_a_forger_with_new_sums_changes_is_refused(boards: Path, forge: Callable[[Path], None], what: str) -> None:
    folder = boards / "tiny"
    forge(folder)
    if forge is not linked:
        write_bytes(folder / "SHA256SUMS", sums_text(folder).encode())
    with pytest.raises(ltbench.UserError, match=what):
        verify(read_board("tiny", boards))


def test_a_board_without_rows_verifies_and_a_wrong_one_hides_no_other(
    boards: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ["--boards", str(boards)]
    assert publish.main([*on, "create", str(results), "--board", "empty", "--title", "Nothing yet"]) == 0
    assert f"--boards {boards} add {results} --board empty" in capsys.readouterr().out
    assert publish.main([*on, "verify"]) == 0
    (boards / "empty" / "board.md").write_text("")
    assert publish.main([*on, "verify"]) == 2
    shown = capsys.readouterr()
    assert "empty: 0 rows" in shown.out and shown.out.count("tiny: 2 rows") == 2 and "board.md was altered" in shown.err
    assert publish.main([*on, "create", str(results), "--board", "My Board", "--title", "x"]) == 2
    (boards / "tiny" / "CHANGELOG.md").unlink()
    assert publish.main([*on, "restore", "tiny", "--out", str(boards / "out")]) == 2
    assert not (boards / "out").exists()


def test_what_does_not_belong_is_not_added(
    boards: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (boards / "tiny" / "SHA256SUMS").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "code_version", lambda: "1.0+abc")
        ltbench.run(ltbench.Request(["focal"], trials=1, out=tmp_path / "one", **TINY))
    ltbench.run(ltbench.Request(["cb"], trials=2, out=tmp_path / "two", **{**TINY, "seed": 1}))
    refused = {tmp_path / "one": "lacks trial 1", tmp_path / "two": "does not belong", results: "all of these 4 trials"}
    for folder, reason in refused.items():
        assert publish.main(["--boards", str(boards), "add", str(folder), "--board", "tiny"]) == 2
        assert reason in capsys.readouterr().err
        assert (boards / "tiny" / "SHA256SUMS").read_bytes() == before
    arguments = ["--boards", str(boards), "add", str(tmp_path / "one"), "--board", "tiny", "--partial"]
    assert publish.main(arguments) == 0
    assert "1/2" in (boards / "tiny" / "board.md").read_text()
    assert "3 rows, 5 trials" in verify(read_board("tiny", boards))


def test_a_restored_board_is_done_and_takes_another_row(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "restored"
    for written in ("4 of 4", "0 of 4"):
        assert publish.main(["--boards", str(boards), "restore", "tiny", "--out", str(out)]) == 0
        assert written in capsys.readouterr().out
    again = ["--boards", str(boards), "reproduce", "tiny", "--method", "rs", "--device", "cpu", "--out", str(out)]
    assert publish.main([*again, "--record"]) == 2  # nothing would be trained
    assert "done already" in capsys.readouterr().err
    planned = plan(ltbench.Request(["ce", "rs", "logit_adjust"], trials=2, out=out, **TINY))
    assert sorted(outcome.status for outcome in Execution(planned).outcomes()) == ["done"] * 2 + ["skipped"] * 4
    assert leaderboard.main(["--results", str(out)]) == 0
    assert "logit_adjust" in capsys.readouterr().out


def test_a_trial_is_trained_again_to_the_bit_and_its_row_says_so(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "code_version", lambda: "1.0+def")
    on = ["--boards", str(boards), "reproduce", "tiny", "--trial", "1", "--device", "cpu"]
    assert publish.main([*on, "--method", "rs", "--out", str(tmp_path / "elsewhere")]) == 0
    assert publish.main([*on, "--method", "rs", "--trained", str(tmp_path / "elsewhere"), "--record"]) == 0
    assert capsys.readouterr().out.count("the same to the bit") == 2
    assert "reproduced (1/2)" in (boards / "tiny" / "board.md").read_text()
    for folder in (tmp_path, boards / "tiny" / "records"):  # no such trial, and the published one itself
        assert publish.main([*on, "--method", "rs", "--trained", str(folder), "--record"]) == 2
    (again,) = (tmp_path / "elsewhere").glob("*/rs-*/trial1")
    for forge in ({"code_version": "1.0+def-dirty"}, {"test": read_json(again / "result.json")["val"]}):
        reseal(again, **forge)
        assert publish.main([*on, "--method", "rs", "--trained", str(tmp_path / "elsewhere"), "--record"]) == 2
    verify(read_board("tiny", boards))
    assert publish.main([*on, "--method", "rt"]) == 2
    assert "did you mean 'rs'" in capsys.readouterr().err


def test_on_the_same_cpu_only_the_same_bits_agree() -> None:
    found = Reproduction("row", 0, "2026-01-01", "cpu", "1", 0.5, 0.0, allowed=0.1)
    assert found.agrees and not replace(found, exact=True).agrees
    assert replace(found, exact=True, largest_difference=0.0).agrees
    assert not replace(found, allowed=float("nan")).agrees


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy_difference": "abc"},
        {"when": "1999-13-77"},
        {"allowed": 1.0, "accuracy_difference": -0.5},
        {"nonsense": 1},
        {"code_version": "1.0+abc-dirty"},
    ],
)
def test_a_list_of_reproductions_is_facts_alone(wrong: dict[str, Any], boards: Path, capsys: Any) -> None:
    board = read_board("tiny", boards)
    row = board.records[0].folder.parent.relative_to(board.records_folder).as_posix()
    entry = {"row": row, "trial": 0, "when": "2026-01-01", "device": "x", "code_version": "1.0+abc"}
    entry |= {"largest_difference": 0.0, "accuracy_difference": 0.0, **wrong}
    (board.folder / "reproduced.yaml").write_text(yaml.safe_dump([entry]))
    write_bytes(board.folder / "SHA256SUMS", sums_text(board.folder).encode())
    assert publish.main(["--boards", str(boards), "verify"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: tiny: ")


@pytest.mark.parametrize(
    "edit",
    [
        {"tables": ["nonsense"]},
        {"tables": None},
        {"trials": "5"},
        {"trials": 0},
        {"request": {}},
        {"groups": 3},
        {"nonsense": 1},
    ],
)
def test_a_wrong_description_is_one_line(edit: dict[str, Any], boards: Path, capsys: Any) -> None:
    path = boards / "tiny" / "board.yaml"
    held = yaml.safe_load(path.read_text())
    held["settings"][0] |= edit
    path.write_text(yaml.safe_dump(held))
    write_bytes(boards / "tiny" / "SHA256SUMS", sums_text(boards / "tiny").encode())
    for command in (["verify"], ["table", "tiny"])[: 1 if "request" in edit else 2]:
        assert publish.main(["--boards", str(boards), *command]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "board.yaml" in line


def test_an_interrupted_change_is_found_and_leftovers_go(boards: Path, capsys: Any) -> None:
    before = boards / ".tiny-abcdefgh" / "before"
    before.parent.mkdir()
    (boards / "tiny").rename(before)
    assert publish.main(["--boards", str(boards), "table", "tiny"]) == 2
    assert f"rename {before} to {boards / 'tiny'}" in capsys.readouterr().err
    before.rename(boards / "tiny")
    assert publish.main(["--boards", str(boards), "table", "tiny", "--write"]) == 0
    assert [path.name for path in boards.glob(".*")] == []
    assert publish.main(["--boards", str(boards), "verify"]) == 0


def test_an_altered_board_is_not_signed_anew(boards: Path, capsys: Any) -> None:
    (boards / "tiny" / "CHANGELOG.md").write_text("# other\n")
    assert publish.main(["--boards", str(boards), "table", "tiny", "--write"]) == 2
    assert "CHANGELOG.md was altered" in capsys.readouterr().err


def test_every_board_is_looked_at(boards: Path, capsys: Any) -> None:
    shutil.copytree(boards / "tiny", boards / "another")
    next((boards / "another").glob("records/*/*/trial0/metrics.jsonl")).unlink()
    (boards / "another" / "SHA256SUMS").write_bytes(sums_text(boards / "another").encode())
    assert publish.main(["--boards", str(boards), "verify"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: another: ") and shown.out.startswith("tiny: 2 rows")


def test_a_split_that_is_not_the_boards_is_not_kept(boards: Path, tmp_path: Path, capsys: Any) -> None:
    on = ["--boards", str(boards), "restore", "tiny", "--out", str(tmp_path / "out")]
    board = read_board("tiny", boards)
    row = tmp_path / "out" / board.records[0].folder.parent.relative_to(board.records_folder)
    write_bytes(row / "split.csv", b"id,label\n")
    assert publish.main(on) == 2
    assert "split.csv" in capsys.readouterr().err and not list(row.glob("trial*/result.json"))


def test_settings_of_the_same_data_share_rows_and_show_their_own_trials(boards: Path) -> None:
    board = read_board("tiny", boards)
    main = board.settings[0]
    part = replace(main, name="part", methods=["ce"], trials=1, tables=["cost"])
    with changed(board) as draft:
        write_bytes(draft.folder / "board.yaml", replace(board, settings=[main, part]).text().encode())
    board = read_board("tiny", boards)
    verify(board)
    shown = [(name, table.kind, list(table.frame["method"])) for name, table in board_tables(board)]
    assert [name for name, *_ in shown] == [main.name] * 2 + ["part"] * 2
    assert [kind for _, kind, _ in shown] == ["overview", "reliability", "overview", "cost"]
    assert [set(names) for *_, names in shown] == [{"ce", "rs"}] * 2 + [{"ce"}] * 2
    numbers = pd.read_csv(boards / "tiny" / "board.csv")
    assert list(numbers["n"]) == [2, 2, 1] and numbers["macro_coverage"].notna().tolist() == [True, True, False]
    record = board.records[0]
    variant = replace(record, result=replace(record.result, changed={"beta": 0.9}))
    assert main.differences(variant) == [] and replace(main, variants=False).differences(variant) == ["hyperparameters"]
    (ranked,) = average_ranks([board, board])
    assert sorted(ranked.frame["mean_rank"].unique()) == [1, 2]


@pytest.mark.parametrize("name", boards_in(FOLDER))
def test_the_boards_of_this_repository_are_whole_and_small_enough_for_git(name: str) -> None:
    board = read_board(name)
    check_sums(board)
    assert sum(path.stat().st_size for path in board.folder.rglob("*") if path.is_file()) < 10e6
