"""Tables from records written by hand, as trials write them."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ltbench.benchmarks.leaderboard import build_table, main, render, render_all
from ltbench.benchmarks.metrics import evaluate, frequency_groups
from ltbench.benchmarks.protocol import PRESETS, Protocol, json_digest
from ltbench.benchmarks.records import SCHEMA, Record, find_records, write_arrays, write_json

QUICK = PRESETS["quick"]
COUNTS = [300, 100, 30, 10]
GROUPS = frequency_groups(COUNTS)


def add(
    results: Path,
    method: str,
    trial: int,
    accuracy: float,
    *,
    protocol: Protocol = QUICK,
    changed: dict[str, Any] | None = None,
    test_counts: tuple[int, ...] = (20, 20, 20, 20),
    **setting: Any,
) -> dict[str, Any]:
    """Write the record of one trial that is right with a probability; return its result."""
    labels, rng = np.repeat(np.arange(4), test_counts), np.random.default_rng([trial, *method.encode()])
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, (labels + 1 + rng.integers(3)) % 4)
    logits = (3 * np.eye(4)[predicted] + rng.random((len(labels), 4))).astype(np.float32)
    measured = evaluate(labels, logits, GROUPS)
    result = {
        "schema": SCHEMA,
        "dataset": "toy",
        "variant": "",
        "title": "Toy lesions",
        "split": "paper",
        "ratio": 30.0,
        "class_names": list("abcd"),
        "class_counts": COUNTS,
        "groups": GROUPS,
        "notes": [],
        "method": method,
        "hyperparameters": changed or {},
        "changed": changed or {},
        "trial": trial,
        "seed": trial,
        "protocol": asdict(protocol),
        "protocol_digest": protocol.digest(),
        "split_digest": "5" * 64,
        "test": measured,
        "val": measured,
        "cost": {"train_seconds": 10.0 + trial, "images_seen": 5000},
        **setting,
    }
    tag = json_digest([changed, protocol.digest(), *map(str, setting.items())])[:8]
    folder = results / f"toy-paper-r{result['ratio']:g}" / f"{method}-{tag}" / f"trial{trial}"
    arrays = {"ids": np.array([f"i{row}" for row in range(len(labels))]), "labels": labels, "logits": logits}
    write_arrays(
        folder / "predictions.npz",
        {f"{part}_{name}": array for part in ("val", "test") for name, array in arrays.items()},
    )
    write_json(folder / "result.json", result)
    return result


def records(results: Path) -> list[Record]:
    return list(find_records(results))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three methods: one clearly best, the baseline, and one with a single trial."""
    for trial in range(3):
        add(tmp_path, "my_best", trial, 0.95)
        add(tmp_path, "ce", trial, 0.6)
    add(tmp_path, "rw", 0, 0.6, changed={"scheme": "sqrt"})
    return tmp_path


def test_numbers_are_those_of_the_trials(results: Path) -> None:
    table = build_table(records(results)).set_index("method")
    assert set(table.index) == {"my_best", "ce", "rw (scheme=sqrt)"}
    for method in ("my_best", "ce"):
        trials = [record.result for record in records(results) if record.result["method"] == method]
        for name in ("mean_class_accuracy", "top1", "head", "medium", "tail", "macro_f1", "macro_auroc", "ece"):
            values = [trial["test"][name] for trial in trials]
            assert table.loc[method, name] == pytest.approx(np.mean(values), rel=1e-12)
            assert table.loc[method, f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12)
        assert table.loc[method, "n"] == 3 and table.loc[method, "train_seconds"] == 11.0


def test_one_trial_has_no_spread(results: Path) -> None:
    row = build_table(records(results)).set_index("method").loc["rw (scheme=sqrt)"]
    assert row["n"] == 1 and np.isnan(row["mean_class_accuracy_sd"])


def test_ranks_differences_and_ties(results: Path) -> None:
    table = build_table(records(results))
    assert table["rank"].tolist() == [1, 2, 3] and table["method"][0] == "my_best"
    assert table["mean_class_accuracy"].is_monotonic_decreasing
    by_method = table.set_index("method")
    assert by_method.loc["ce", "delta"] == 0
    gap = by_method.loc["my_best", "mean_class_accuracy"] - by_method.loc["ce", "mean_class_accuracy"]
    assert by_method.loc["my_best", "delta"] == pytest.approx(gap) and gap > 0.1
    assert table["tie"].tolist() == [False, False, False]


def test_what_chance_explains_is_a_tie(tmp_path: Path) -> None:
    for trial in range(3):
        add(tmp_path, "ce", trial, 0.7)
        add(tmp_path, "rs", trial, 0.7)
    table = build_table(records(tmp_path))
    assert table["tie"].tolist() == [False, True]
    assert render(table, "t", "github").count("≈") == 2  # the row's, and the footer's


def test_without_the_baseline_there_is_no_difference(tmp_path: Path) -> None:
    add(tmp_path, "rs", 0, 0.7)
    table = build_table(records(tmp_path))
    assert table["delta"].isna().all() and "n/a" in render(table, "t", "github")


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": replace(QUICK, epochs=31)},
        {"ratio": 31.0},
        {"dataset": "other"},
        {"variant": "other"},
        {"split": "lesion"},
        {"split_digest": "6" * 64},
    ],
)
def test_other_settings_never_share_a_table(results: Path, change: dict[str, Any]) -> None:
    add(results, "rs", 0, 0.99, **change)
    with pytest.raises(ValueError, match="do not share a table"):
        build_table(records(results))
    tables = render_all(records(results), "github").split("### ")[1:]
    assert len(tables) == 2
    assert sorted("my_best" in table for table in tables) == [False, True]
    assert all(("my_best" in table) != (" rs " in table) for table in tables)


def test_tables_are_in_order_of_ratio(tmp_path: Path) -> None:
    for ratio in (500.0, 100.0, 20.0):
        add(tmp_path, "ce", 0, 0.7, ratio=ratio)
    text = render_all(records(tmp_path), "github")
    assert text.index("ratio 20,") < text.index("ratio 100,") < text.index("ratio 500,")


def test_two_versions_of_a_plugin_are_two_rows(tmp_path: Path) -> None:
    for version in ("a" * 64, "b" * 64):
        for trial in range(2):
            add(tmp_path, "mine", trial, 0.7, plugin=version)
    table = build_table(records(tmp_path))
    assert len(table) == 2 and (table["n"] == 2).all()
    assert table["method"].str.fullmatch(r"mine \[[0-9a-f]{8}\]").all()


def test_undefined_is_not_a_number(tmp_path: Path) -> None:
    for trial in range(2):
        add(tmp_path, "ce", trial, 0.7, test_counts=(20, 20, 20, 0))
    assert records(tmp_path)[0].result["test"]["macro_auroc"] is None
    table = build_table(records(tmp_path))
    assert table[["macro_auroc", "tail"]].isna().all(axis=None)
    row = render(table, "t", "github").splitlines()[4]
    assert row.count("n/a") == 3 and " 0.00 |" not in row


def test_github_shows_percent_and_marks_the_best(results: Path) -> None:
    table = build_table(records(results))
    lines = render(table, "Title", "github").splitlines()
    best, single = lines[4], next(line for line in lines if "rw (scheme=sqrt)" in line)
    mean, sd = 100 * table["mean_class_accuracy"][0], 100 * table["mean_class_accuracy_sd"][0]
    assert lines[0] == "### Title" and lines[2].startswith("|")
    assert f"**{mean:.2f} ± {sd:.2f}**" in best and "| my_best" in best
    assert "±" not in single and sum("**" in line for line in lines) == 1
    assert "mean per-class accuracy" in lines[2] and "micro top-1" not in lines[2]
    assert "ddof = 1" in lines[-1] and "micro top-1 equals mean per-class accuracy" in lines[-1]


def test_micro_top1_is_shown_where_the_test_set_is_not_balanced(tmp_path: Path) -> None:
    add(tmp_path, "ce", 0, 0.7, test_counts=(40, 10, 10, 20))
    assert "micro top-1" in render(build_table(records(tmp_path)), "t", "github").splitlines()[2]


def test_title_names_data_and_protocol(results: Path) -> None:
    title = render_all(records(results), "github").splitlines()[0]
    network = f"{QUICK.backbone} {QUICK.image_size} px"
    for part in ("Toy lesions", "ratio 30", "split paper", "5" * 8, QUICK.digest()[:8], network):
        assert part in title


def test_latex_is_a_booktabs_table(results: Path) -> None:
    text = render(build_table(records(results)), "Title", "latex")
    lines = text.splitlines()
    assert lines[0] == "% Title" and lines[1].startswith(r"\begin{tabular}") and lines[-1] == r"\end{tabular}"
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [1, 1, 1, 0]
    assert r"my\_best" in text and r"\textbf{" in text and r"$\pm$" in text and "±" not in text


@pytest.mark.parametrize("letter", ["_", "%", "&", "#", "$", "{", "}"])
def test_latex_escapes(tmp_path: Path, letter: str) -> None:
    add(tmp_path, "ce", 0, 0.7, changed={"name": f"a{letter}b"})
    text = render(build_table(records(tmp_path)), "t", "latex")
    assert f"a\\{letter}b" in text and f"a{letter}b" not in text


def test_csv_holds_the_same_numbers(results: Path) -> None:
    table = build_table(records(results))
    again = pd.read_csv(io.StringIO(render(table, "A, title", "csv")), engine="python")
    assert (again.pop("title") == "A, title").all()
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)


def test_csv_of_two_settings_is_one_table(results: Path) -> None:
    add(results, "rs", 0, 0.9, ratio=100.0)
    frame = pd.read_csv(io.StringIO(render_all(records(results), "csv")))
    assert len(frame) == 4 and frame["rank"].tolist() == [1, 2, 3, 1]


@pytest.mark.parametrize("style", ["github", "latex", "csv"])
def test_command_line_prints_the_tables(results: Path, capsys: pytest.CaptureFixture[str], style: str) -> None:
    assert main(["--results", str(results), "--format", style]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == render_all(records(results), style).strip() and captured.err == ""


def test_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, reason in (
        (["--results", str(tmp_path / "nowhere")], "does not exist"),
        (["--results", str(tmp_path)], "holds no finished trial"),
        (["--results", str(tmp_path), "--format", "gihtub"], "did you mean 'github'?"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and reason in captured.err and len(captured.err.splitlines()) == 1
