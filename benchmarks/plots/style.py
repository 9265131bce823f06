"""What all pictures share: fonts, colours, and figures as PNG and SVG.

Colours are those of Okabe and Ito, which people with colour-blindness can distinguish; line styles, markers and
hatches repeat what colours say, so that a print in grey still reads. A figure drawn twice is the same file to the byte.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.rows import Row

WIDTH = 7.0
"""Inches: the text width of a paper."""

DPI = 200
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
GREY = "#777777"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 1.5, 2.5, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1)))
_TITLE_SIZE = 9
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": _TITLE_SIZE,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a `$` in a name is a dollar
    "svg.hashsalt": "ltbench",
}

Parameters = ParamSpec("Parameters")


@contextmanager
def _styled() -> Iterator[None]:
    """Apply our style within a block; a user's own settings of matplotlib neither matter nor change."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def drawing(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Let a function that draws do so in our style.

    The layout is found once, here: found again for every file, it would depend on which was written first.
    """

    @functools.wraps(draw)
    def styled(*arguments: Parameters.args, **options: Parameters.kwargs) -> Figure:
        with _styled():
            figure = draw(*arguments, **options)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return styled


def new_figure(width: float, height: float, title: str = "", *, images: bool = False) -> Figure:
    """Return an empty figure that no window system ever sees.

    Parameters
    ----------
    width, height : inches
    title : broken to fit
    images : whether axes hold images, whose sides keep their proportion
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="compressed" if images else "constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(wrapped(title, int(13 * width)))
    return figure


def series_style(number: int) -> dict[str, Any]:
    """Return colour, marker and line of one series among many: 64 that differ, and neighbours in all three."""
    place, turn = number % len(COLOURS), number // len(COLOURS)
    line, marker = _LINES[(place + turn) % len(_LINES)], _MARKERS[(place + 2 * turn) % len(_MARKERS)]
    return {"color": COLOURS[place], "linestyle": line, "marker": marker}


def wrapped(text: str, width: int, lines: int | None = None) -> str:
    """Return a text in lines of at most `width` letters, and cut after a number of lines."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False, max_lines=lines, placeholder=" …"))


def class_labels(names: Sequence[str]) -> list[str]:
    """Return names of classes short enough to stand beside an axis."""
    return [wrapped(name, 20, lines=2) for name in names]


def of_trials(row: Row, what: str = "", *, pooled: bool = True) -> str:
    """Return "1 trial", "`what` of 2 trials", ... or, of folds that are pooled, "5 folds, pooled"."""
    if row.folds and pooled:
        return row.extent
    return f"{what} of {row.repeats}" if what and len(row.trials) > 1 else row.repeats


def svg_of(figure: Figure) -> bytes:
    """Return a figure as SVG without any reference to another file, fonts included."""
    svg = _rendered(figure, "svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", svg, count=1)  # it names a file of w3.org


def png_of(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as PNG of width x `dpi` by height x `dpi` pixels."""
    return _rendered(figure, "png", dpi=dpi)


def _rendered(figure: Figure, style: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _styled():
        figure.savefig(buffer, format=style, **options)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write `<path>.png` and `<path>.svg`, each through a temporary name; return both paths."""
    from ltbench.files import write_bytes

    png, svg = (path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg"))
    write_bytes(png, png_of(figure))
    write_bytes(svg, svg_of(figure))
    return png, svg
