"""A table as text: GitHub's Markdown, LaTeX (booktabs), CSV of unrounded numbers, HTML."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ltbench.errors import in_one_line

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("github", "latex", "csv", "html")
KINDS = (
    *("overview", "ratios", "ranks", "groups", "ablation", "per-class", "cost", "metrics"),
    *("reliability", "conformal"),
)
"""Kinds of table, by their names on the command line."""
HEADINGS = {
    "overview": "Leaderboard",
    "groups": "Head, medium and tail",
    "per-class": "Accuracy of each class",
    "metrics": "All metrics",
    "reliability": "Reliability of the probabilities",
    "conformal": "Conformal sets",
    "cost": "Cost",
    "ablation": "Ablation",
}
"""Kinds of table that a setting has, with their headings."""
OPEN = " ?"
"""Behind a number whose comparison leaves it open which of the two is better."""

_LATEX_LETTERS = 80
"""Letters of a line that a page in LaTeX holds; what is wider is made smaller."""
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},  # OT1 has other signs there
    **{"±": r"$\pm$", "≈": r"$\approx$", "Δ": r"$\Delta$", "−": "$-$", "≥": r"$\geq$"},
}
# An underscore inside a word marks nothing; `&` does where it begins an entity, `]` where it ends the text of a link.
_MARKDOWN = re.compile(r"[\\`*~<>|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|\](?=[(\[:])")


_ASCII = {"Δ": "d", "±": "+/-", "≈": "~", "×": "x", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "→": "->"}
"""What stands for the signs of tables where a terminal or a pipe cannot show them."""


class Cell(NamedTuple):
    """A cell's text, in bold where `strong`."""

    text: str
    strong: bool = False


def fixed(number: float, digits: int, sign: str = "") -> str:
    """Return a number with so many digits, and with a sign (`+`: always) unless they are all 0."""
    rounded = round(number, digits)
    return f"{rounded:{sign}.{digits}f}" if rounded else f"{0:.{digits}f}"


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    title : in one line
    frame : the numbers, unrounded: what CSV is
    headers : of the columns that are shown; the first ones that hold names are aligned to the left
    cells : rows as they are shown
    notes : lines to print below
    kind : of `KINDS`, or `published`
    subject : what the table is of; with the kind it makes the label in LaTeX
    """

    title: str
    frame: pd.DataFrame
    headers: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    kind: str = ""
    subject: str = ""


def render(tables: Sequence[Table], style: str, width: int | None = None) -> str:
    """Return tables as text, one below the other; CSV is one table with the title as a column.

    White space within a text is one blank, since a line break in a name would end a row, a heading or a comment; other
    control signs are replaced, and in CSV a text that begins like a formula begins with an apostrophe.

    Parameters
    ----------
    style : one of `FORMATS`
    width : of the terminal that shows `github`, in letters: titles and notes are broken there, and columns stand close
    """
    if style == "csv":
        return _csv(tables) if tables else ""
    shown = [_in_lines(table) for table in tables]
    if style == "latex":
        labels = _labels(shown)
        return "\n\n".join(_latex(table, label) for table, label in zip(shown, labels, strict=True))
    return "\n\n".join(_html(table) if style == "html" else _github(table, width) for table in shown)


def document(text: str, style: str, title: str) -> str:
    """Return tables as the content of a file: HTML is a whole page."""
    head = f"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{html.escape(title)}</title>\n"
    return f"{head if style == 'html' else ''}{text}\n"


def in_ascii(text: str) -> str:
    """Return a text as a stream prints it that can show ASCII alone: other signs as they are spelled, or as `?`."""
    return "".join(sign if sign.isascii() else _ASCII.get(sign, "?") for sign in text)


def line_width(table: Table) -> int:
    """Return the letters of a table's lines on a terminal."""
    return _width(_close_lines(_in_lines(table))[0])


def annotated(tables: Sequence[Table], notes: Sequence[str]) -> list[Table]:
    """Return tables with further notes below the last of them."""
    last = len(tables) - 1
    return [
        replace(table, notes=[*table.notes, *notes]) if number == last else table for number, table in enumerate(tables)
    ]


def _in_lines(table: Table) -> Table:
    return replace(
        table,
        title=_in_line(table.title),
        headers=[_in_line(header) for header in table.headers],
        cells=[[cell._replace(text=_in_line(cell.text)) for cell in row] for row in table.cells],
        notes=[_in_line(note) for note in table.notes],
    )


def _in_line(value: Any) -> Any:
    return in_one_line(value) if isinstance(value, str) else value


def in_cell(value: Any) -> Any:
    """Return a text so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _csv(tables: Sequence[Table]) -> str:
    import pandas as pd

    frames = [table.frame.assign(title=table.title) for table in tables]
    numbers = pd.concat(frames).map(_in_line).map(in_cell)
    numbers.columns = [in_cell(_in_line(name)) for name in numbers.columns]
    return numbers.to_csv(index=False, lineterminator="\n").rstrip("\n")


def _github(table: Table, width: int | None) -> str:
    title, *notes = (markdown_escaped(text) for text in (f"### {table.title}", *table.notes))
    if width is None:
        body = _tabulated(table, "github", markdown_escaped, "**{}**")
    else:
        title, *notes = (textwrap.fill(text, width, break_on_hyphens=False) for text in (title, *notes))
        body = "\n".join(_close_lines(table))
    return "\n".join([title, "", body, *(f"\n{note}" for note in notes)])


def _close_lines(table: Table) -> list[str]:
    """Return the lines of a Markdown table whose columns are no wider than they must be; tabulate's are."""
    rows, texts = _written(table, markdown_escaped, "**{}**"), text_columns(table.cells)
    columns = zip(map(markdown_escaped, table.headers), *rows, strict=True)
    padded = []
    for number, column in enumerate(columns):
        width = max(3, *map(_width, column))
        gaps = [" " * (width - _width(text)) for text in column]
        left = number in texts
        head, *body = (f"{text}{gap}" if left else f"{gap}{text}" for text, gap in zip(column, gaps, strict=True))
        padded.append(
            [f" {head} ", "-" * (width + 2) if left else f"{'-' * (width + 1)}:", *(f" {own} " for own in body)]
        )
    return [f"|{'|'.join(line)}|" for line in zip(*padded, strict=True)]


def _width(text: str) -> int:
    """Return the places that a text takes on a terminal: ideographs take two, combining signs none."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(bool(unicodedata.combining(sign)) for sign in text)


def markdown_escaped(text: str) -> str:
    """Return text with a backslash before what Markdown would take for its own."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _labels(tables: Sequence[Table]) -> list[str]:
    """Return a label for each table, of letters, digits and hyphens; those of the same kind and subject are counted."""
    texts = (f"{table.kind or 'table'} {table.subject}".lower() for table in tables)
    names = [re.sub(r"[^a-z0-9]+", "-", text).strip("-") for text in texts]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"tab:{name}-{count + 1}" if count else f"tab:{name}" for name, count in zip(names, counts, strict=True)]


def _latex(table: Table, label: str) -> str:
    body = _tabulated(table, "latex_raw", latex_escaped, r"\textbf{{{}}}")
    rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
    lines = [next(rules) if line == r"\hline" else line for line in body.splitlines()]
    # A row that begins with [ or * would be taken for an argument of the command that ends the row before.
    lines = [re.sub(r"^ *(?=[\[*])", "{}", line) for line in lines]
    packages = "booktabs"
    if line_width(table) > _LATEX_LETTERS:
        packages, lines = "booktabs,graphicx", [r"\resizebox{\linewidth}{!}{%", *lines, "}"]
    comments = [f"% {line}" for line in (rf"needs \usepackage{{{packages}}}", *table.notes)]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escaped(table.title)}}}", rf"\label{{{label}}}"]
    return "\n".join([*comments, *head, *lines, r"\end{table}"])


def latex_escaped(text: str) -> str:
    """Return text with what LaTeX would take for a command, and the signs that tables use, written for it."""
    written = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", written)


def _html(table: Table) -> str:
    body = _tabulated(table, "unsafehtml", html.escape, "<b>{}</b>")
    notes = "".join(f"\n<p class=note>{html.escape(note)}</p>" for note in table.notes)
    return f"<h3>{html.escape(table.title)}</h3>\n{body}{notes}"


def _tabulated(table: Table, style: str, escape: Callable[[str], str], bold: str) -> str:
    from tabulate import tabulate

    rows = _written(table, escape, bold)
    texts = text_columns(table.cells)
    aligned = ["left" if number in texts else "right" for number in range(len(table.headers))]
    headers = [escape(header) for header in table.headers]
    return tabulate(rows, headers, tablefmt=style, colalign=aligned if rows else None, disable_numparse=True)


def _written(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    return [
        [bold.format(escape(cell.text)) if cell.strong else escape(cell.text) for cell in row] for row in table.cells
    ]


def text_columns(cells: Sequence[Sequence[Cell]]) -> set[int]:
    """Return the columns that hold names rather than numbers."""
    return {
        column for row in cells for column, cell in enumerate(row) if cell.text[:1].isalpha() and cell.text != "n/a"
    }
