"""Tables on a terminal, in a pipe or in a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.rendering import Table

STYLES = {
    **dict.fromkeys(("", ".md", ".markdown", ".txt"), "github"),
    **{".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"},
}
"""Formats that a file's suffix stands for, where none is asked for."""


def terminal_width() -> int | None:
    """Return the letters that a line of the terminal takes, None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_tables(tables: Sequence[Table], style: str, remedy: str, *, whole: bool = False) -> None:
    """Print tables; on a terminal, those of format `github` lose columns until they fit.

    Parameters
    ----------
    remedy : what shows all columns
    whole : keep all columns, whatever the terminal
    """
    from ltbench.benchmarks.analysis.columns import fitted
    from ltbench.benchmarks.analysis.rendering import render

    width = terminal_width() if style == "github" else None
    if width is not None and not whole:
        tables = [fitted(table, width, remedy) for table in tables]
    print(render(tables, style, width))


def remedy_elsewhere(results: Path) -> str:
    """Return what shows all columns of the tables of a results folder, for commands that have no option for it."""
    import shlex

    from ltbench.benchmarks.cli.command import invocation

    chosen = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    return f"{invocation('leaderboard')}{chosen}, with --columns all or --out FILE, shows them"


def write_tables(tables: Sequence[Table], style: str, out: Path) -> None:
    """Write tables to a file and print its path."""
    from ltbench.benchmarks.analysis.rendering import document, render
    from ltbench.files import write_bytes

    write_bytes(out, document(render(tables, style), style, "Tables of ltbench").encode())
    print(out)
