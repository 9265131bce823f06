"""A table as text: GitHub's Markdown, LaTeX (booktabs), CSV of unrounded numbers, HTML."""

from __future__ import annotations

import html
import re
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
OPEN = " ?"
"""Behind a number whose comparison leaves it open which of the two is better."""

_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},  # OT1 has other signs there
    **{"±": r"$\pm$", "≈": r"$\approx$", "Δ": r"$\Delta$", "−": "$-$", "≥": r"$\geq$"},
}
# An underscore inside a word marks nothing; `&` does where it begins an entity, `]` where it ends the text of a link.
_MARKDOWN = re.compile(r"[\\`*~<>|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|\](?=[(\[:])")


class Cell(NamedTuple):
    """A cell's text, in bold where `strong`."""

    text: str
    strong: bool = False


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
    """

    title: str
    frame: pd.DataFrame
    headers: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def render(tables: Sequence[Table], style: str) -> str:
    """Return tables as text, one below the other; CSV is one table with the title as a column.

    White space within a text is one blank, since a line break in a name would end a row, a heading or a comment; other
    control signs are replaced, and in CSV a text that begins like a formula begins with an apostrophe.
    """
    if style == "csv":
        return _csv(tables) if tables else ""
    return "\n\n".join({"github": _github, "latex": _latex, "html": _html}[style](_in_lines(table)) for table in tables)


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


def _in_cell(value: Any) -> Any:
    """Return a text so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _csv(tables: Sequence[Table]) -> str:
    import pandas as pd

    frames = [table.frame.assign(title=table.title) for table in tables]
    numbers = pd.concat(frames).map(_in_line).map(_in_cell)
    numbers.columns = [_in_cell(_in_line(name)) for name in numbers.columns]
    return numbers.to_csv(index=False, lineterminator="\n").rstrip("\n")


def _github(table: Table) -> str:
    body = _tabulated(table, "github", _markdown_escaped, "**{}**")
    notes = "".join(f"\n{_markdown_escaped(note)}\n" for note in table.notes)
    return f"### {_markdown_escaped(table.title)}\n\n{body}\n{notes}".rstrip("\n")


def _markdown_escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _latex(table: Table) -> str:
    body = _tabulated(table, "latex_raw", latex_escaped, r"\textbf{{{}}}")
    rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
    lines = [next(rules) if line == r"\hline" else line for line in body.splitlines()]
    # A row that begins with [ or * would be taken for an argument of the command that ends the row before.
    lines = [re.sub(r"^ *(?=[\[*])", "{}", line) for line in lines]
    comments = [f"% {line}" for line in (table.title, r"needs \usepackage{booktabs}", *table.notes)]
    return "\n".join([*comments, *lines])


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

    rows = [
        [bold.format(escape(cell.text)) if cell.strong else escape(cell.text) for cell in row] for row in table.cells
    ]
    texts = text_columns(table.cells)
    aligned = ["left" if number in texts else "right" for number in range(len(table.headers))]
    headers = [escape(header) for header in table.headers]
    return tabulate(rows, headers, tablefmt=style, colalign=aligned if rows else None, disable_numparse=True)


def text_columns(cells: Sequence[Sequence[Cell]]) -> set[int]:
    """Return the columns that hold names rather than numbers."""
    return {
        column for row in cells for column, cell in enumerate(row) if cell.text[:1].isalpha() and cell.text != "n/a"
    }
