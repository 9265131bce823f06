"""A leaderboard as a picture: methods below each other, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltbench.benchmarks.analysis.standings import BASELINE, common_trials, compare
from ltbench.benchmarks.plots.style import COLOURS, GREY, WIDTH, drawing, new_figure, of_trials, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.standings import Panel


@drawing
def ranking(panel: Panel) -> Figure:
    """Draw mean per-class accuracy of each row of a panel with its 95 % interval, best first.

    Filled: told from the baseline by the adjusted test of the leaderboard; open: whether it differs is open. A dotted
    line is the baseline's mean over the trials of the panel that it has.
    """
    rows, baseline = panel.rows, panel.setting.baseline
    found = compare(rows, baseline)
    title = f"Mean per-class accuracy on test, {of_trials(rows[0], 'mean')}, 95 % intervals"
    figure = new_figure(WIDTH, 1.1 + 0.24 * len(rows), title)
    axes = figure.subplots()
    for place, (row, comparison) in enumerate(zip(rows, found, strict=True)):
        value, low, high = (100 * each for each in (row.accuracy.value, row.accuracy.low, row.accuracy.high))
        differs = not comparison.open and not comparison.reference and not np.isnan(comparison.p_value)
        colour = GREY if comparison.reference else COLOURS[0]
        filled = colour if differs or comparison.reference else "white"
        axes.errorbar(
            [value], [place], xerr=[[value - low], [high - value]], fmt="o", color=colour, markerfacecolor=filled
        )
    common = [] if baseline is None else common_trials(rows[0], baseline)
    if baseline is not None and common:
        axes.axvline(100 * baseline.of_trials(common).accuracy.value, color=GREY, linestyle=":", linewidth=0.9)
    axes.set_yticks(range(len(rows)), [wrapped(row.name, 44) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"percent; filled: differs from {BASELINE}, open: whether it does is open")
    return figure
