"""The command line of advice: formats, and bad input as one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltbench.benchmarks.advise import main

Add = Callable[..., Any]


@pytest.fixture
def results(tmp_path: Path, add_trials: Add) -> Path:
    """Two methods of three trials, and another ratio with one."""
    add_trials(tmp_path, "rs", 3, 0.9)
    add_trials(tmp_path, "ce", 3, 0.6)
    add_trials(tmp_path, "ce", 3, 0.6, ratio=100.0)
    return tmp_path


def test_advice_is_text_or_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main([str(results), "--format", "json", "--baseline", "ce"]) == 0
    told = json.loads(capsys.readouterr().out)
    (setting,) = told["settings"]
    assert setting["lines"] == lines and setting["baseline"] == "ce"
    assert [method["name"] for method in setting["methods"]] == ["rs", "ce"]
    assert setting["methods"][0]["best"]["p_value"] is None
    assert all("adjusted" in text for text in told["p_values"].values())


def test_infinite_is_not_unknown_in_json(tmp_path: Path, add_record: Add, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trials that differ by much, and two methods that are equal: images alone, or trials alone, cannot tell."""
    labels = np.repeat(np.arange(4), 20)
    for method, wrong in (("rs", (0, 1, 40)), ("ce", (40, 0, 2))):
        for trial, count in enumerate(wrong):
            logits = np.eye(4)[np.where(np.arange(80) < count, 3 - labels, labels)]
            add_record(tmp_path, method, trial, 0, logits=logits)
    assert main([str(tmp_path), "--format", "json"]) == 0
    (setting,) = json.loads(capsys.readouterr().out)["settings"]
    assert setting["two_best"]["images"] == "infinite" and setting["two_best"]["trials"] > 3
    assert "no number of test images alone" in " ".join(setting["lines"])
    assert setting["methods"][0]["best"]["p_value"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere"], "does not exist"),
        (["--baseline", "re"], "unknown baseline 're'; did you mean 'rs'"),
        (["--format", "yaml"], "unknown format 'yaml'"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], said: str, results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    assert main(options if options == ["nowhere"] else [str(results), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert said in captured.err


def test_one_method_no_trial_and_a_damaged_record_are_refused(
    tmp_path: Path, add_trials: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no finished trial; run" in capsys.readouterr().err
    add_trials(tmp_path, "ce", 2, 0.6)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "only ce; run `" in err and "--method rs --trial 0 1 --out" in err and err.count("\n") == 1
    add_trials(tmp_path, "rs", 2, 0.6)
    next(tmp_path.glob("*/rs-*/trial0/result.json")).write_text("{", encoding="utf-8")
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "result.json" in err and err.count("\n") == 1
