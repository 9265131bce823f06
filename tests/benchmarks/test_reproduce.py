"""What a table of the paper needs: the runs, what is done of them, the table at the end."""

from pathlib import Path
from typing import Any

import pytest

from ltbench.benchmarks import reproduce, run
from ltbench.benchmarks.training.request import Request
from ltbench.methods import available

SETTINGS = {"dataset": "synthetic", "epochs": 1, "image-size": 16, "n-max": 60, "val-per-class": 3, "jobs": 1}
SETTINGS |= {"test-per-class": 4, "batch-size": 16, "precision": "fp32", "trials": 1}
TINY = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]


def _requests(target: str) -> list[Request]:
    return reproduce.requests(reproduce.TARGETS[target], reproduce.parser().parse_args([target]))


def test_the_runs_are_those_of_the_paper() -> None:
    (table1,) = _requests("table1")
    assert len(table1.methods) == 11 and set(table1.methods) <= set(available()) and not table1.hyperparameters
    assert table1.ratios == (100, 200, 500) and table1.trials == 5
    (table2,) = _requests("table2")
    assert table2.methods == ("ce", "rs", "rw", "cb", "elf", "flex") and table2.dataset == "isic_archive"
    table3 = _requests("table3")
    assert len(table3) == 10 and all(request.methods == ("flex",) for request in table3)
    assert {"pretrain": "ce", "query": "none"} in [request.hyperparameters for request in table3]
    assert {} in [request.hyperparameters for request in table3]
    assert [request.methods for request in _requests("figure3")] == [("ce", "rw", "flex")]


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ltbench.benchmarks.throughput.images_per_second", lambda planned: 100.0)
    out = tmp_path / "results"
    assert reproduce.main(["table1", "--dry-run", *TINY, "--n-max", "500", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("table1, data: synthetic") and "33 trials missing: about" in printed
    assert printed.count("a measured step") == 33 and not out.exists()


def test_what_is_missing_is_run_and_the_table_printed(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    cheap = [(["flex"], ["pretrain=none", f"query={query}"]) for query in ("none", "random")]
    monkeypatch.setattr(reproduce, "variants", lambda target: cheap)
    out = ["--out", str(tmp_path)]
    assert run.main(["--method", "flex", "--set", *cheap[0][1], "--ratio", "10", *TINY, *out]) == 0
    capsys.readouterr()
    assert reproduce.main(["table3", "--ratio", "10", *TINY, *out]) == 0
    printed = capsys.readouterr().out
    assert "1 trial missing" in printed and "done trials of other runs" in printed
    table = printed[printed.index("### flex; ") :]
    assert "| none        | anchor" in table and "query: none" in table and "query: random" in table
    assert "Table 3, beside" not in table  # the paper has no ratio 10
    assert reproduce.main(["table3", "--ratio", "10", "--dry-run", *TINY, *out]) == 0
    assert "everything is done" in capsys.readouterr().out


BAD = {
    "table4": "did you mean 'table",
    "table1 --method ce": "chooses --method itself",
    "table3 --set query=none": "chooses --set itself",
    "table1 --epoch 3": "unrecognized arguments",
    "": "required: table1|table2",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line(arguments: str, refuses: Any) -> None:
    refuses(reproduce.main, arguments.split(), BAD[arguments])
