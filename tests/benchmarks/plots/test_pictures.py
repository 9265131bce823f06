"""Pictures: the numbers in them, their files, and the command line; from records written by hand and a real trial."""

import io
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from written import COUNTS, EPOCHS, QUICK, STORY, TOLD, rows_of, split_of, write_trial

import ltbench.benchmarks
from ltbench.benchmarks.figures import main
from ltbench.benchmarks.plots.accuracy import per_class_accuracy
from ltbench.benchmarks.plots.pictures import few_rows, pictures, trial_pictures
from ltbench.benchmarks.plots.style import DPI, png_of, save, svg_of


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods; one is flex with a story."""
    folder = tmp_path_factory.mktemp("results")
    for trial in range(2):
        write_trial(folder, trial=trial)
    write_trial(folder, "flex", story=STORY, epochs=TOLD, changed={"query": "random", "selection": "edge"})
    write_trial(folder, "rs")
    return folder


def draw(results: Path) -> dict[str, Figure]:
    """Draw all pictures that need no image store, by name; of those that each row has, flex's alone."""
    rows = rows_of(results)
    flex = [row for row in rows if row.result.method == "flex"]
    found = [
        *pictures(("per-class", "reliability", "counts"), rows, results, few_rows(rows)),
        *pictures(("curves", "confusion", "story", "samples"), flex, results, flex),
    ]
    drawn = {picture.name: picture.draw() for picture in found}
    return {name: figure for name, figure in drawn.items() if isinstance(figure, Figure)}


def test_files_are_valid_and_the_same_whenever_they_are_drawn(results: Path, tmp_path: Path) -> None:
    first = {name: (png_of(figure), svg_of(figure)) for name, figure in draw(results).items()}
    assert len(first) == 6
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "svg.fonttype": "none", "lines.linewidth": 5}):
        again = draw(results)
        assert {name: (png_of(figure), svg_of(figure)) for name, figure in again.items()} == first
    for name, (png, svg) in first.items():
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert image.format == "PNG" and image.size == tuple((again[name].get_size_inches() * DPI).astype(int))
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        references = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(reference.startswith(("#", "data:")) for reference in references)
        assert b"<!DOCTYPE" not in svg and not re.search(rb"url\((?!#)|@import|<script|<text", svg)
    for path, data in zip(save(again["counts"], tmp_path / "counts"), first["counts"], strict=True):
        assert path.read_bytes() == data


def test_of_many_classes_no_picture_shows_each(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltbench.benchmarks.plots.pictures._MOST_CLASSES", len(COUNTS) - 1)
    assert {name.partition("-")[0] for name in draw(results)} == {"reliability", "curves", "confusion"}


@pytest.mark.parametrize(("method", "told"), [("flex", {"story"}), ("ce", set())])
def test_pictures_of_one_trial(results: Path, method: str, told: set[str]) -> None:
    record = next(row.records[-1] for row in rows_of(results) if row.result.method == method)
    drawn = {picture.kind: picture.draw() for picture in trial_pictures(record)}
    assert drawn.keys() == {"curves", "confusion", "reliability"} | told
    assert all(isinstance(figure, Figure) for figure in drawn.values())
    assert "1 trial" in drawn["curves"].get_suptitle()  # not its row's other trials


def test_another_process_draws_the_same_bytes(results: Path, tmp_path: Path) -> None:
    command = [sys.executable, Path(ltbench.benchmarks.__file__).with_name("figures.py"), "--figure", "per-class"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    subprocess.run([*command, "--results", results, "--out", tmp_path], env=environment, check=True)
    rows = rows_of(results)
    figure = per_class_accuracy(rows)
    assert (tmp_path / "toy-paper-r30" / "per-class.svg").read_bytes() == svg_of(figure)
    assert (tmp_path / "toy-paper-r30" / "per-class.png").read_bytes() == png_of(figure)


LONG = "actinic keratoses and intraepithelial carcinoma (Bowen's disease)"


@pytest.mark.parametrize("counts", [(5, 4), tuple(1000 // 2**label + 3 for label in range(14))], ids=len)
def test_nothing_is_cut_off(tmp_path: Path, counts: tuple[int, ...]) -> None:
    """Long names of classes and methods, two classes and fourteen, one of them without a test image, $ in a name."""
    names = [LONG, "$x^2$ & <y>", *(f"class number {label}" for label in range(2, len(counts)))]
    shared = {"class_counts": counts, "class_names": names, "test_counts": [0] + [4] * (len(counts) - 1)}
    recalls = [{**row, "val_recall": row["val_recall"] and [0.5] * len(counts)} for row in EPOCHS]
    changed = {"query_resets_patience": False, "selection": "edge", "query": "random", "pretrain": "none"}
    told = {"anchors": {"counts": [1] * len(counts), "indices": []}}
    write_trial(tmp_path, "flex", changed=changed, story=told, epochs=recalls, **shared)
    for number in range(4):
        write_trial(tmp_path, f"method_with_a_long_name_{number}", epochs=recalls, **shared)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in draw(tmp_path).items():
            png_of(figure, 50)
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert box.x0 > -0.02 and box.y0 > -0.02, name
            assert box.x1 < width + 0.02 and box.y1 < height + 0.02, name


def test_the_baseline_is_among_the_few_rows(tmp_path: Path) -> None:
    labels = split_of(COUNTS, (20,) * 4).part("test")[1]
    for number in range(8):
        write_trial(tmp_path, f"m{number}", logits=np.eye(4)[labels])
    write_trial(tmp_path)
    rows = rows_of(tmp_path)
    assert [row.name for row in few_rows(rows, 3)] == [rows[0].name, rows[1].name, "ce"]
    assert [row.name for row in few_rows(rows[:8], 3)] == [row.name for row in rows[:3]]
    assert few_rows(rows, 9) == list(rows)


def test_command_line_draws_what_is_asked_for(results: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["--results", str(results), "--out", str(tmp_path), "--figure", "curves", "counts", "--method"]
    assert main([*command, "flex"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(paths) == sorted(tmp_path.glob("*/*")) and len(paths) == 4
    assert {path.name.partition("-")[0] for path in paths} == {"curves", "counts.png", "counts.svg"}
    assert main([*command, "flex (query=random, selection=edge)", "rs"]) == 0
    assert len(list(tmp_path.glob("*/curves-*.png"))) == 2


def test_settings_of_one_folder_are_kept_apart(tmp_path: Path) -> None:
    write_trial(tmp_path / "results")
    write_trial(tmp_path / "results", "rs", protocol=replace(QUICK, epochs=31))
    out = tmp_path / "out"
    assert main(["--results", str(tmp_path / "results"), "--out", str(out), "--figure", "counts"]) == 0
    assert len(list(out.glob("toy-paper-r30-*/counts.png"))) == 2


def test_rows_left_out_of_shared_axes_are_told(tmp_path: Path, capsys: Any) -> None:
    for number in range(7):
        write_trial(tmp_path / "results", f"m{number}")
    command = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"), "--figure", "per-class"]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert "per-class shows" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--figure confusoin", "did you mean 'confusion'?"),
        ("--method flxe", "did you mean 'flex'?"),
        ("--results nowhere", "does not exist"),
        ("--figure story --method ce", "none of the chosen figures (story) exists"),
        ("--figure", "expected at least one argument"),
        ("--out /dev/null", "is no folder that is writable"),
    ],
)
def test_command_line_refuses_in_one_line(results: Path, refuses: Any, arguments: str, reason: str) -> None:
    refuses(main, ["--results", str(results), "--out", "out", *arguments.split()], reason)


def test_command_line_names_a_corrupt_file(tmp_path: Path, refuses: Any) -> None:
    path = write_trial(tmp_path / "results").folder / "metrics.jsonl"
    path.write_text("{")
    refuses(main, ["--results", "results", "--out", "out", "--figure", "curves"], "trial0/metrics.jsonl")
