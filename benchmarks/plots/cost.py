"""What accuracy costs: methods by the images that went through their networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltbench.benchmarks.plots.style import WIDTH, drawing, new_figure, of_trials, series_style, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.rows import Row

_SAME, _BESIDE = 0.02, 0.012  # logarithms of costs that are as good as equal, and between rows that stand side by side


@drawing
def accuracy_by_cost(rows: Sequence[Row]) -> Figure:
    """Draw mean per-class accuracy of each row against the images that went through its networks, in thousands (log).

    A point is the mean over the trials, its bar the 95 % interval over trials and test images. Forward passes count
    training, validation and what a method does between stages; stages that rows share are charged to each in full.
    Rows of the same cost stand side by side.

    Parameters
    ----------
    rows : of one setting and the same trials
    """
    figure = new_figure(WIDTH, 4.4, f"Accuracy and cost, {of_trials(rows[0], 'mean')}, 95 % intervals")
    axes = figure.subplots()
    passes = np.array([row.costs("forward_images").mean() / 1000 for row in rows])
    for number, row in enumerate(rows):
        same = np.flatnonzero(np.abs(np.log(passes / passes[number])) < _SAME)
        place = passes[number] * np.exp(_BESIDE * (np.searchsorted(same, number) - (len(same) - 1) / 2))
        estimate = row.accuracy
        arms = 100 * np.array([[estimate.value - estimate.low], [estimate.high - estimate.value]])
        style = series_style(number) | {"linestyle": "none", "elinewidth": 0.8, "capsize": 1.5, "markersize": 5}
        axes.errorbar([place], [100 * estimate.value], arms, label=wrapped(row.name, 40), **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("images through a network in a trial (thousands, log)")
    axes.set_ylabel("mean per-class accuracy on test (%)")
    columns = min(5 if max(len(row.name) for row in rows) < 20 else 2, len(rows))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure
