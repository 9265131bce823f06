"""The text of a board as HTML: as much of Markdown as its headings, paragraphs and commands need."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from ltbench.benchmarks.analysis.rendering import Table, render

_CODE = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"(#{1,6}) (.*)")
_BLOCK = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)


def as_html(parts: Iterable[str | Table]) -> str:
    """Return texts in Markdown, and tables, as HTML; of Markdown headings, blocks of code, and code in paragraphs."""
    return "\n".join(_text(part) if isinstance(part, str) else render([part], "html") for part in parts)


def _text(text: str) -> str:
    if block := _BLOCK.fullmatch(text):
        return f"<pre>{html.escape(block[1])}</pre>"
    heading = _HEADING.fullmatch(text)
    tag, inner = (f"h{len(heading[1])}", heading[2]) if heading else ("p", text)
    written = _CODE.sub(r"<code>\1</code>", html.escape(inner))
    return f"<{tag}>{written}</{tag}>"
