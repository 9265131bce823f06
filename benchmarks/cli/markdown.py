"""Tables in Markdown, as commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def github_table(rows: Iterable[Sequence[Any]], headers: Sequence[str], alignment: Sequence[str] | None = None) -> str:
    """Return a table whose cells may hold a bar.

    Parameters
    ----------
    alignment : `left` or `right`, of each column; None: all to the left
    """
    escaped = [
        [cell.replace("|", r"\|") if isinstance(cell, str) else cell for cell in row] for row in (headers, *rows)
    ]
    return tabulate(escaped[1:], escaped[0], tablefmt="github", disable_numparse=True, colalign=alignment)
