"""Reliability diagrams: how often a method is right when it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.analysis.probabilities import CALIBRATION_BINS as BINS
from ltbench.benchmarks.analysis.probabilities import calibration_bins
from ltbench.benchmarks.plots.style import COLOURS, GREY, WIDTH, drawing, new_figure, of_trials, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.rows import Row

_COLUMNS = 4


def reliability_bins(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, mean confidence and accuracy of each bin of ECE, over all trials: int [15], float [15] twice.

    Confidence and accuracy of an empty one are NaN.
    """
    confidence = np.concatenate([own.confidence for own in row.summaries])
    right = np.concatenate([own.right for own in row.summaries])
    bins = calibration_bins(confidence)
    size, *sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (None, confidence, right))
    confidence, accuracy = (np.divide(part, size, out=np.full(BINS, np.nan), where=size > 0) for part in sums)
    return size, confidence, accuracy


@drawing
def reliability(shown: Sequence[Row]) -> Figure:
    """Draw a reliability diagram of each row: accuracy against confidence in 15 bins, over all trials.

    Bars are accuracies; hatched parts the gap to the mean confidence of the bin, which a dash marks; the strip below
    is the share of test images in each bin. The ECE is the mean of the trials' own, of folds that of all
    images, as in the leaderboard.
    """
    columns = min(_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(WIDTH if columns > 2 else 2.6 * columns, 0.5 + 2.2 * lines)
    grid = figure.subplots(2 * lines, columns, squeeze=False, height_ratios=[3, 1] * lines)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, row in enumerate(shown):
        line, column = divmod(number, columns)
        upper, lower = grid[2 * line, column], grid[2 * line + 1, column]
        _draw_bins(upper, lower, *reliability_bins(row))
        ece = f"ECE {100 * row.values('ece').mean():.1f} %, {of_trials(row)}"
        upper.set_title(f"{wrapped(row.name, 28)}\n{ece}", fontsize=7)
        if column == 0:
            upper.set_ylabel("accuracy (%)")
            lower.set_ylabel("share (%)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_bins(upper: Axes, lower: Axes, size: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> None:
    width = 100 / BINS
    middle = width * (np.arange(BINS) + 0.5)
    bar: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4}
    gap: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[1], "hatch": "////", "linewidth": 0.4, "label": "gap"}
    upper.bar(middle, 100 * accuracy, width, color=COLOURS[5], label="accuracy", **bar)
    upper.bar(middle, 100 * np.abs(confidence - accuracy), width, 100 * np.fmin(confidence, accuracy), **gap)
    upper.hlines(
        100 * confidence, middle - width / 2, middle + width / 2, color="black", linewidth=1, label="mean confidence"
    )
    upper.plot([0, 100], [0, 100], color="#555555", linestyle="--", linewidth=0.8, label="calibrated")
    lower.bar(middle, 100 * size / size.sum(), width, color=GREY, **bar)
    upper.set(xlim=(0, 100), ylim=(0, 100), xticklabels=[])
    lower.set(xlim=(0, 100), xlabel="confidence (%)")
    for axes in (upper, lower):
        axes.set_axis_on()
