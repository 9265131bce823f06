"""Images with a caption each, in named rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltbench.benchmarks.plots.style import WIDTH, drawing, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6


@drawing
def montage(rows: Mapping[str, Sequence[tuple[np.ndarray, str]]], title: str) -> Figure:
    """Draw images, uint8 [3, S, S], six side by side, each kind under its name."""
    lines = [
        (kind, images[start : start + _COLUMNS])
        for kind, images in rows.items()
        for start in range(0, len(images), _COLUMNS)
    ]
    figure = new_figure(WIDTH, 0.4 + 1.38 * len(lines), title, images=True)
    grid = figure.subplots(len(lines), _COLUMNS, squeeze=False)
    for places, (kind, images) in zip(grid, lines, strict=True):
        for axes in places:
            axes.set_axis_off()
        for axes, (pixels, caption) in zip(places, images, strict=False):
            axes.imshow(pixels.transpose(1, 2, 0))
            axes.set_title("\n".join(wrapped(line, 22) for line in caption.splitlines()), fontsize=5)
        places[0].text(
            -0.12, 0.5, kind, rotation=90, ha="right", va="center", fontsize=6, transform=places[0].transAxes
        )
    return figure
