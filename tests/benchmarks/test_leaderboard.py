"""The command line of the leaderboard and its four formats."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from written import write_trial

from ltbench.benchmarks.analysis.columns import IMPORTANCE, by_importance, chosen, fitted
from ltbench.benchmarks.analysis.published import beside
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import FORMATS, KINDS, Cell, Table, line_width, render
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.tables import tables_of
from ltbench.benchmarks.cli import table_output
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


@pytest.fixture(scope="module")
def tables(results: Path) -> dict[str, list[Table]]:
    settings = settings_of(find_records(results))
    return {kind: tables_of(kind, settings) for kind in KINDS}


def test_a_leaderboard_imports_what_tables_need(results: Path) -> None:
    program = f"""import sys; from ltbench.benchmarks.leaderboard import main
for kind in ("overview", "reliability", "ranks"):
    main(["--results", {str(results)!r}, "--table", kind, "--ratio", "30"])
print({{"torch", "sklearn", "scipy.stats", "matplotlib", "wandb"}} & sys.modules.keys(), file=sys.stderr)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "set()\n")


def toy(text: str, **more: Any) -> Table:
    frame = pd.DataFrame({"method": [text, "b"], "x": [1 / 3, 2.0]})
    cells = [[Cell(text), Cell("33.33 ≈")], [Cell("b"), Cell("2 ± 1", True)]]
    return Table("A, title", frame, ["method", "x"], cells, **more)


def test_formats_escape_and_mark_the_best() -> None:
    lines = render([toy("a|b", notes=["A note."])], "github").splitlines()
    assert lines[0] == "### A, title" and lines[-1] == "A note."
    assert r"a\|b" in lines[4] and "**2 ± 1**" in lines[5]
    assert lines[3].startswith("|:--") or lines[3].startswith("|--")
    text = render([toy("my_best", notes=["A note."])], "latex")
    table = re.search(r"(?s)\\begin\{table\}\n(.*)\\end\{table\}$", text)
    assert table and text.startswith("% needs ") and "% A note." in text
    assert r"\caption{A, title}" in table[1] and r"\label{tab:table}" in table[1] and table[1].count("tabular") == 2
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [1, 1, 1, 0]
    assert r"my\_best" in text and r"\textbf{2 $\pm$ 1}" in text and r"$\approx$" in text and "±" not in text
    text = render([toy("<script>&")], "html")
    assert "&lt;script&gt;&amp;" in text and "<script>" not in text and "<b>2 ± 1</b>" in text


LATEX = {
    **{f"a{letter}b": f"a\\{letter}b" for letter in "_%&#${}"},
    **{"a<b": r"a\textless{}b", "a>b": r"a\textgreater{}b", "a|b": r"a\textbar{}b", 'a"b': "a''b"},
    **{"*a*": "\n{}*a* ", "[2] b": "\n{}[2] b "},  # no arguments of the end of the row before
    "-0.21 [-3.0, 2.5] 1-2 mel-1": "$-$0.21 [$-$3.0, 2.5] 1-2 mel-1",
}


@pytest.mark.parametrize("name", LATEX)
def test_latex_prints_names_as_they_are(name: str) -> None:
    text = render([toy(name)], "latex")
    assert LATEX[name] in text and (name in LATEX[name] or name not in text)


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
def test_no_name_is_a_command_to_a_terminal_or_a_spreadsheet(style: str) -> None:
    names = [*("a\x1b[2Jb", "a\x9b2Jb", "a\0b", "a\u202eb", "a\ud800b"), *("=1+1", "+1", "-1", "@a")]
    text = render([toy(name, notes=[name]) for name in names], style)
    assert not set("\x1b\x9b\0\u202e\ud800") & set(text)
    assert style != "csv" or not re.search(r"^[=+@-]", text, re.MULTILINE)
    assert render([replace(toy("a"), frame=pd.DataFrame({"=1": ["a"]}))], "csv").startswith("'=1,")


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
    results: Path, tables: dict[str, list[Table]], capsys: Any, kind: str, style: str
) -> None:
    assert main(["--results", str(results), "--table", kind, "--format", style]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == render(tables[kind], style).strip() and captured.err == ""
    assert "flex" in captured.out
    if style == "csv":
        frame = pd.read_csv(io.StringIO(captured.out))
        assert set(frame["ratio"]) == {30, 100} and frame["title"].notna().all()


@pytest.mark.parametrize("kind", [*KINDS, "published"])
def test_a_terminal_shows_what_fits_and_says_what_is_left_out(
    results: Path, tables: dict[str, list[Table]], monkeypatch: pytest.MonkeyPatch, capsys: Any, kind: str
) -> None:
    command = ["--results", str(results), *(["--published"] if kind == "published" else ["--table", kind])]
    headers, found = set(), {}
    for width in (500, 120, 80, 60):
        monkeypatch.setattr(table_output, "terminal_width", lambda width=width: width)
        assert main(command) == 0
        text = capsys.readouterr().out
        lines = text.splitlines()
        found[width] = next(line for line in lines if line.startswith("|"))
        shown = {header.strip() for header in found[width].strip("|").split("|")}
        headers |= shown
        assert all(len(line) <= width for line in lines)
        lacking = re.search(r"No room for: (.*?); --columns all or --out FILE", text.replace("\n", " "))
        assert set(lacking[1].split(", ") if lacking else ()) - {"whole names"} == headers - shown
        assert by_importance(tables[kind][0])[0] in shown if kind in tables else "paper" in shown
        assert main([*command, "--columns", "All"]) == 0
        assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("|")) == found[500]
    if kind in tables:
        assert set(IMPORTANCE[kind]) - headers <= {"*", "micro top-1"}


def test_names_are_shortened_as_long_as_they_differ() -> None:
    names = [f"flex ({'a' * 30}, query={query})" for query in ("none", "random")] + ["ce"]
    cells = [[Cell(name), Cell("1")] for name in names]
    short = fitted(Table("A", pd.DataFrame(), ["method", "x"], cells), 60, "more")
    assert [row[0].text for row in short.cells] == [f"{name[:45]}…" for name in names[:2]] + ["ce"]
    assert short.notes == ["No room for: whole names; more."] and line_width(short) <= 60


@pytest.mark.parametrize("style", FORMATS)
def test_columns_are_chosen_in_every_format_and_go_to_a_file(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, style: str
) -> None:
    suffix = {"github": "md", "latex": "tex"}.get(style, style)
    out, command = tmp_path / f"table.{suffix}", ["--results", str(results), "--columns", "TAIL", "method"]
    assert main([*command, "--format", style]) == 0
    text = capsys.readouterr().out
    headers = next(line for line in text.splitlines() if "method" in line and not line.startswith(("#", "%")))
    words = re.sub(r"<[^>]*>|\W", " ", headers).split()
    assert words == ["method", "tail", *(["title"] if style == "csv" else [])]
    monkeypatch.setattr(table_output, "terminal_width", lambda: 20)
    assert main([*command, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out) and out.read_text(encoding="utf-8").endswith(text)
    assert style != "html" or out.read_text(encoding="utf-8").startswith("<!doctype html>")
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert labels == ["tab:overview-toy-paper-r30", "tab:overview-toy-paper-r100"] * (style == "latex")


def test_columns_are_chosen_by_their_headers_in_ascii(tables: dict[str, list[Table]]) -> None:
    shown = chosen(tables["overview"], ["D ce", "val - test"], "github")
    assert {tuple(table.headers) for table in shown} == {("Δ ce", "val − test")}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(results: Path, tables: dict[str, list[Table]], tmp_path: Path) -> None:
    bodies = [render(tables[kind], "latex") for kind in KINDS]
    bodies.append(render(beside(settings_of(find_records(results)), PRESETS), "latex"))
    bodies += [render([toy(name, notes=[name])], "latex") for name in ('<a>|"b"', "*a\nb*", "[a] \\~^%&#$_{}")]
    source = "\n\n\\clearpage\n".join(bodies)
    document = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\tiny\n%s\n\\end{document}\n"
    (tmp_path / "tables.tex").write_text(document % source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 1000


def test_ratios_are_in_order_and_a_selection_changes_no_number(
    tables: dict[str, list[Table]], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.findall(r"ratio \d+", " ".join(table.title for table in tables["overview"])) == ["ratio 30", "ratio 100"]
    assert main(["--results", str(results), "--ratio", "100"]) == 0
    alone = capsys.readouterr().out
    assert main(["--results", str(results)]) == 0
    assert alone.strip() in capsys.readouterr().out


def test_published_numbers_beside_ours_and_alone(
    results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--results", str(results), "--published"]) == 0
    out = capsys.readouterr().out
    assert "55.09 ± 4.10" in out and "59.32 ± 1.58" in out and "other data (toy)" in out
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
    assert main(["--results", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert str(paths[1]) in line and "Without 1 damaged record" in captured.out
    for path in paths:
        path.write_bytes(b"{")
    assert main(["--results", str(tmp_path)]) == 2 and capsys.readouterr().out == ""


@pytest.mark.parametrize("pipe", [False, True])
def test_records_of_a_damaged_split_are_named_and_left_out(pipe: bool, tmp_path: Path, capsys: Any) -> None:
    record = [write_trial(tmp_path, method) for method in ("ce", "rs")][1]
    path = record.path("split.csv")
    text = path.read_text()
    path.unlink()
    os.mkfifo(path) if pipe else path.write_text(f"{text}i,0,a,i,test\n")
    assert main(["--results", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert str(record.folder) in line and "Without 1 damaged record" in captured.out and "| rs" not in captured.out


BAD = {
    "--results file": "is a file",
    "--published --results file": "is a file",
    "--format gihtub": "did you mean 'github'",
    "--table ratio": "did you mean 'ratios'",
    "--results nowhere": "does not exist",
    "--results .": "holds no finished trial",
    "--out .": "is a folder; show it with --results",
    "--out file/table.md": "is no folder",
    "--out table.docx": "known: .md, .markdown, .txt, .tex, .csv, .html, .htm; use",
}


@pytest.mark.parametrize("arguments", BAD)
def test_command_line_refuses_in_one_line(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    refuses(main, arguments.split(), BAD[arguments])


def shown(text: str) -> tuple[list[str], int]:
    """Return the methods that tables name, and the number of tables."""
    named = [name for name in ("ce", "flex", "my_best") if re.search(rf"^\|.*\b{name}\b", text, re.MULTILINE)]
    return named, text.count("### ")


@pytest.mark.parametrize(
    ("options", "methods", "tables"),
    [
        ([], ["ce", "flex", "my_best"], 2),
        (["--ratio", "100"], ["ce", "flex", "my_best"], 1),
        (["--ratio", "30", "100", "--method", "ce", "flex"], ["ce", "flex"], 2),
        (["--dataset", "toy", "--protocol", PRESETS["quick"].digest()[:6]], ["ce", "flex", "my_best"], 2),
    ],
)
def test_trials_are_selected(options: list[str], methods: list[str], tables: int, results: Path, capsys: Any) -> None:
    assert main(["--results", str(results), *options]) == 0
    assert shown(capsys.readouterr().out) == (methods, tables)


SELECTIONS = {
    "--method flexx": "did you mean 'flex'",
    "--method crt": "no trial of the method 'crt'; there are trials of: ce, flex, my_best",
    "--dataset tyo": "did you mean 'toy'",
    "--ratio big": "a number or natural",
    "--ratio natural": "holds no trial that --dataset",
    "--ratio 31": "holds no trial that --dataset",
    "--protocol zz": "holds no trial that --dataset",
    "--columns tial": "did you mean 'tail'",
    "--columns accuracy": "did you mean 'mean per-class accuracy'",
    "--columns all tial": "did you mean 'tail'",
    "--columns tail --format csv --out table.csv --table cost": "unknown column 'tail'",
}


@pytest.mark.parametrize("options", SELECTIONS)
def test_a_selection_of_nothing_is_refused_in_one_line(options: str, results: Path, refuses: Any) -> None:
    refuses(main, ["--results", str(results), *options.split()], SELECTIONS[options])


@pytest.mark.parametrize("style", FORMATS)
def test_a_table_without_rows_is_told(
    style: str, tmp_path_factory: pytest.TempPathFactory, add_record: Callable[..., Any], refuses: Any
) -> None:
    results = tmp_path_factory.mktemp("results")
    add_record(results, "ce", 0, 0.6)
    refuses(
        main, ["--results", str(results), "--table", "ablation", "--format", style], "holds no trial for this table"
    )
