"""The command line of the leaderboard and its four formats."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.analysis.rendering import FORMATS, KINDS, Cell, Table, render
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.tables import render_all
from ltbench.benchmarks.leaderboard import main
from ltbench.benchmarks.training.protocol import PRESETS

FLEX = {"pretrain": "ssl", "selection": "anchor", "query": "none"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, add_record: Callable[..., dict[str, Any]]) -> Path:
    """Three methods at two ratios, one with hyper-parameters of its own; only read."""
    folder = tmp_path_factory.mktemp("results")
    for ratio in (30.0, 100.0):
        for trial in range(2):
            add_record(folder, "my_best", trial, 0.95, ratio=ratio)
            add_record(folder, "ce", trial, 0.6, ratio=ratio)
            add_record(folder, "flex", trial, 0.7, changed={"query": "none"}, hyperparameters=FLEX, ratio=ratio)
    return folder


def records(results: Path) -> list[Record]:
    return list(find_records(results))


def toy(text: str, **more: Any) -> Table:
    frame = pd.DataFrame({"method": [text, "b"], "x": [1 / 3, 2.0]})
    return Table(
        "A, title", frame, ["method", "x"], [[Cell(text), Cell("33.33 ≈")], [Cell("b"), Cell("2 ± 1", True)]], **more
    )


def test_github_marks_the_best() -> None:
    lines = render([toy("a|b", notes=["A note."])], "github").splitlines()
    assert lines[0] == "### A, title" and lines[-1] == "A note."
    assert r"a\|b" in lines[4] and "**2 ± 1**" in lines[5]
    assert lines[3].startswith("|:--") or lines[3].startswith("|--")


def test_latex_is_a_booktabs_table() -> None:
    text = render([toy("my_best", notes=["A note."])], "latex")
    lines = text.splitlines()
    assert lines[0] == "% A, title" and r"\begin{tabular}" in text and lines[-1] == r"\end{tabular}"
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [1, 1, 1, 0]
    assert r"my\_best" in text and r"\textbf{2 $\pm$ 1}" in text and r"$\approx$" in text and "±" not in text


@pytest.mark.parametrize("letter", ["_", "%", "&", "#", "$", "{", "}"])
def test_latex_escapes(letter: str) -> None:
    text = render([toy(f"a{letter}b")], "latex")
    assert f"a\\{letter}b" in text and f"a{letter}b" not in text


@pytest.mark.parametrize(
    ("sign", "written"), [("<", r"\textless{}"), (">", r"\textgreater{}"), ("|", r"\textbar{}"), ('"', "''")]
)
def test_latex_writes_signs_that_its_first_font_encoding_lacks(sign: str, written: str) -> None:
    text = render([toy(f"a{sign}b")], "latex")
    assert f"a{written}b" in text and sign not in text


@pytest.mark.parametrize("name", ["*a*", "[2] b"])
def test_latex_takes_no_name_for_an_argument(name: str) -> None:
    assert f"\n{{}}{name} " in render([toy(name)], "latex")


def test_latex_has_a_minus_before_numbers_alone() -> None:
    text = render([toy("-0.21 [-3.0, 2.5] 1-2 mel-1")], "latex")
    assert "$-$0.21 [$-$3.0, 2.5] 1-2 mel-1" in text


def test_html_escapes() -> None:
    text = render([toy("<script>&")], "html")
    assert "&lt;script&gt;&amp;" in text and "<script>" not in text and "<b>2 ± 1</b>" in text


MARKDOWN = {
    "<script>": r"\<script\>",
    "*a*": r"\*a\*",
    "_a_ __b": r"\_a\_ \_\_b",
    "`a` ~b~": r"\`a\` \~b\~",
    r"a\*": r"a\\\*",
    "&lt; &#42;": r"\&lt; \&#42;",
    "[a](b) [a]: b": r"[a\](b) [a\]: b",
    **{name: name for name in ("la_posthoc (tau=1)", "R&D", "é_2 [a1b2]", "2 ± 1 ≈", "-0.21 [-3.0, 2.5]")},
}


@pytest.mark.parametrize("name", MARKDOWN)
def test_github_prints_names_as_they_are(name: str) -> None:
    table = replace(toy(name), title=f"A {name}", headers=["method", f"x {name}"], notes=[f"N {name}"])
    title, _, head, _, first, *_, note = render([table], "github").splitlines()
    written = MARKDOWN[name]
    assert (title, note) == (f"### A {written}", f"N {written}")
    assert f" x {written} |" in head and first.startswith(f"| {written} ")


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("space", ["\n", "\r\n", "\t", "\x0b", "\x0c", "\x85", "\u2028", " \n\n "], ids=ascii)
def test_white_space_in_a_text_is_one_blank(style: str, space: str) -> None:
    def table(between: str) -> Table:
        name, header = f"a{between}b", f"x{between}y"
        frame = pd.DataFrame({"method": [name, "b"], header: [1 / 3, 2.0]})
        cells = [[Cell(name), Cell(f"1{between}≈", True)], [Cell("b"), Cell("2")]]
        return Table(f"A{between}title", frame, ["method", header], cells, [f"A{between}note."])

    assert render([table(space)], style) == render([table(" ")], style)


def test_csv_holds_unrounded_numbers_of_all_tables() -> None:
    tables = [toy("a"), toy("c")]
    again = pd.read_csv(io.StringIO(render(tables, "csv")))
    assert (again.pop("title") == "A, title").all()
    expected = pd.concat([table.frame for table in tables], ignore_index=True)
    pd.testing.assert_frame_equal(again, expected, check_exact=True, check_dtype=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", FORMATS)
def test_command_line_prints_every_table_in_every_format(
    results: Path, capsys: pytest.CaptureFixture[str], kind: str, style: str
) -> None:
    assert main(["--results", str(results), "--table", kind, "--format", style]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == render_all(records(results), style, [kind]).strip() and captured.err == ""
    assert "flex" in captured.out
    if style == "html":
        parsed = _Balanced()
        parsed.feed(captured.out)
        assert parsed.open == []
    if style == "csv":
        frame = pd.read_csv(io.StringIO(captured.out))
        assert set(frame["ratio"]) == {30, 100} and frame["title"].notna().all()


class _Balanced(HTMLParser):
    """Keeps the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(results: Path, tmp_path: Path) -> None:
    bodies = [render_all(records(results), "latex", [kind]) for kind in KINDS]
    settings = settings_of(records(results))
    from ltbench.benchmarks.analysis.published import beside

    bodies.append(render(beside(settings, PRESETS), "latex"))
    bodies += [render([toy(name, notes=[name])], "latex") for name in ('<a>|"b"', "*a\nb*", "[a] \\~^%&#$_{}")]
    source = "\n\n".join(bodies)
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n%s\n\\end{document}\n"
    (tmp_path / "tables.tex").write_text(document % source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 1000


def test_tables_are_in_order_of_ratio(results: Path) -> None:
    titles = re.findall(r"^### .*?(ratio \d+)", render_all(records(results), "github"), re.MULTILINE)
    assert titles == ["ratio 30", "ratio 100"]


def test_published_numbers_beside_ours(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(results), "--published"]) == 0
    out = capsys.readouterr().out
    assert "55.09 ± 4.10" in out and "59.32 ± 1.58" in out and "other data (toy)" in out


def test_the_papers_numbers_need_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["--results", str(folder), "--published"]) == 0
        assert capsys.readouterr().out.count("Misprint in the paper: Table 1, RS") == 2


@pytest.mark.parametrize("name", ["result.json", "predictions.npz"])
def test_damaged_records_are_named_and_left_out(
    name: str, tmp_path: Path, add_record: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in range(3):
        add_record(tmp_path, "ce", trial, 0.6)
    paths = sorted(tmp_path.rglob(name))
    paths[1].write_bytes(b"{")
    assert main(["--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert str(paths[1]) in line and "Without 1 damaged record" in captured.out
    for path in paths:
        path.write_bytes(b"{")
    assert main(["--results", str(tmp_path)]) == 2 and capsys.readouterr().out == ""


BAD = {
    "--results file": "is a file",
    "--format gihtub": "did you mean 'github'",
    "--table ratio": "did you mean 'ratios'",
    "--results nowhere": "does not exist",
    "--results .": "holds no finished trial",
}


@pytest.mark.parametrize("arguments", BAD)
def test_command_line_refuses_in_one_line(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and BAD[arguments] in captured.err and len(captured.err.splitlines()) == 1


def shown(text: str) -> tuple[list[str], int]:
    """Return the methods that tables name, and the number of tables."""
    named = [name for name in ("ce", "flex", "my_best") if re.search(rf"^\|.*\b{name}\b", text, re.MULTILINE)]
    return named, text.count("### ")


@pytest.mark.parametrize(
    ("chosen", "methods", "tables"),
    [
        ([], ["ce", "flex", "my_best"], 2),
        (["--ratio", "100"], ["ce", "flex", "my_best"], 1),
        (["--ratio", "30", "100", "--method", "ce", "flex"], ["ce", "flex"], 2),
        (["--dataset", "toy", "--protocol", PRESETS["quick"].digest()[:6]], ["ce", "flex", "my_best"], 2),
    ],
)
def test_trials_are_selected(
    chosen: list[str], methods: list[str], tables: int, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(results), *chosen]) == 0
    assert shown(capsys.readouterr().out) == (methods, tables)


def test_a_selection_changes_no_number(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(results), "--ratio", "100"]) == 0
    alone = capsys.readouterr().out
    assert main(["--results", str(results)]) == 0
    assert alone.strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (["--method", "flexx"], "did you mean 'flex'"),
        (["--dataset", "tyo"], "did you mean 'toy'"),
        (["--ratio", "big"], "a number or natural"),
        (["--ratio", "natural"], "holds no trial that --dataset"),
        (["--ratio", "31"], "holds no trial that --dataset"),
        (["--protocol", "zz"], "holds no trial that --dataset"),
    ],
    ids=str,
)
def test_a_selection_of_nothing_is_refused_in_one_line(
    chosen: list[str], reason: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(results), *chosen]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and reason in captured.err and len(captured.err.splitlines()) == 1


def test_a_table_without_rows_is_told(
    tmp_path: Path, add_record: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    add_record(tmp_path, "ce", 0, 0.6)
    assert main(["--results", str(tmp_path), "--table", "ablation"]) == 2
    assert "holds no trial for this table" in capsys.readouterr().err
