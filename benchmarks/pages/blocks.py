"""What a page is built of: tables, pictures, lines of text, and parts that fold up. The template draws them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ltbench.benchmarks.analysis.rendering import OPEN, Cell, Table, text_columns
from ltbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.plots.pictures import Picture

LARGEST_SVG = 300_000
"""Bytes above which a picture is a PNG instead."""

_PNG_DPI = 170
_CSS_DPI = 96


@dataclass(frozen=True)
class Line:
    """A line of text; `style` is a class of the style sheet, or empty."""

    text: str
    style: str = ""
    kind: ClassVar[str] = "line"


@dataclass(frozen=True)
class TableBlock:
    """A table.

    Attributes
    ----------
    title : its heading, and its name for screen readers
    headers, rows, notes : as in `Table`
    row_header : the column that names a row: the first, or the second behind a rank
    right : whether each column is aligned to the right
    level : of the heading; 0: none
    classes : of the table element
    links : addresses that the names of rows lead to, or none
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str]
    row_header: int
    right: Sequence[bool]
    level: int = 0
    classes: str = "sortable"
    links: Sequence[str] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class PictureBlock:
    """A picture: what it shows in words, its size in CSS pixels, the address that holds it, its caption."""

    alt: str
    width: int
    height: int
    source: str
    caption: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class FoldedBlock:
    """Blocks behind a line that opens them; pictures of a gallery stand side by side."""

    summary: str
    blocks: Sequence[Block]
    gallery: bool = False
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class FoldedBlocks:
    """Folded blocks that a button opens all at once."""

    blocks: Sequence[FoldedBlock]
    kind: ClassVar[str] = "all-folded"


Block: TypeAlias = Line | TableBlock | PictureBlock | FoldedBlock | FoldedBlocks


def table_block(table: Table, *, level: int = 0, classes: str = "sortable") -> TableBlock:
    """Return a table of numbers as a block; parameters as the attributes of `TableBlock`."""
    return _block(table.title, table.headers, table.cells, table.notes, level, classes)


def listing(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    level: int = 0,
    classes: str = "sortable",
    links: Sequence[str] = (),
) -> TableBlock:
    """Return a table of texts as a block; parameters as the attributes of `TableBlock`."""
    return _block(title, headers, [[Cell(text) for text in row] for row in rows], notes, level, classes, links)


def _block(
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    notes: Sequence[str],
    level: int,
    classes: str,
    links: Sequence[str] = (),
) -> TableBlock:
    row_header, names = int(headers[0] == "rank"), text_columns(cells)
    shown = ["second" if row_header else "first", classes]
    if any(cell.text.endswith(OPEN) and not cell.strong for row in cells for cell in row):
        shown.append("ties")
    right = [column not in names for column in range(len(headers))]
    return TableBlock(title, headers, cells, notes, row_header, right, level, " ".join(shown), links)


def picture_block(picture: Picture, caption: str, about: str) -> PictureBlock | Line:
    """Return a picture as a block; instead of one that cannot be drawn, the line that says why.

    Parameters
    ----------
    about : data that it is of, for those who do not see it
    """
    try:
        figure = picture.draw()
    except UserError as error:
        figure = str(error)
    if isinstance(figure, str):
        return Line(f"Not drawn ({picture.kind}): {figure}.", "reason")
    name = f"{picture.row.name}: " if picture.row else ""
    width, height = (round(_CSS_DPI * side) for side in figure.get_size_inches())
    return PictureBlock(f"{name}{caption} {about}.", width, height, _data_uri(figure), caption)


def _data_uri(figure: Figure) -> str:
    """Return a figure as an address that holds it.

    As an image of its own, not as part of the page: names of its parts cannot clash with those of other figures.
    """
    from ltbench.benchmarks.plots.style import png_of, svg_of

    data, kind = svg_of(figure), "svg+xml"
    if len(data) > LARGEST_SVG:
        data, kind = png_of(figure, _PNG_DPI), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
