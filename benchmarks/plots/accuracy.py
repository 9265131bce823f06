"""Accuracy on the test images, from the saved predictions: by class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.analysis.metrics import confusion_matrix
from ltbench.benchmarks.plots.style import WIDTH, class_labels, drawing, new_figure, of_trials, series_style, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.rows import Row

MOST_CLASSES = 500
"""Of a confusion matrix: of more, a class would be narrower than a dot of the picture."""

_MANY_CLASSES = 16  # from here on the numbers of a confusion matrix would not be legible


def class_shares(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean accuracy over the trials of each class, and its 95 % interval: float [K], three times.

    The interval is that of `Row.class_estimate`; NaN for a class without a test image.
    """
    found = [row.class_estimate(label) for label in range(len(row.result.data.class_names))]
    value, low, high = np.array([[each.value, each.low, each.high] for each in found]).T
    return value, low, high


def confusion_counts(row: Row) -> np.ndarray:
    """Return test images by true (first) and predicted class, summed over trials: int [K, K]."""
    classes = len(row.result.data.class_names)
    by_trial = [confusion_matrix(own.labels, own.predicted, classes) for own in row.summaries]
    return np.sum(by_trial, axis=0)


@drawing
def per_class_accuracy(rows: Sequence[Row]) -> Figure:
    """Draw test accuracy of each class against its number of training images (the paper's Figure 3).

    A point is the mean over the trials and stands at the size of its class; the interval of `class_shares` is the bar
    beside it. Where classes are so alike in size that their names would overlap, they stand side by side instead, on an
    axis of names.

    Parameters
    ----------
    rows : of one setting, few enough to be distinguished
    """
    result = rows[0].result
    sizes, names = np.asarray(result.data.class_counts), result.data.class_names
    figure = new_figure(WIDTH, 4.0, _title(rows))
    axes = figure.subplots()
    places, room = _class_places(sizes)
    for number, row in enumerate(rows):
        share, low, high = class_shares(row)
        beside = _beside(places, room, (number - (len(rows) - 1) / 2) / len(rows))
        x = beside if room is None else places
        drawn = np.argsort(x)
        arms = 100 * np.array([share - low, high - share]).clip(min=0)
        style = series_style(number) | {"linewidth": 0.9}
        if room is None:
            style["linestyle"] = "none"
        label = wrapped(f"{row.name}, {row.repeats if row.folds else f'n = {len(row.trials)}'}", 40)
        axes.plot(x[drawn], 100 * share[drawn], label=label, **style)
        bars: dict[str, Any] = {"ecolor": style["color"], "elinewidth": 0.8, "capsize": 1.5, "alpha": 0.7}
        axes.errorbar(beside, 100 * share, arms, fmt="none", **bars)
    _name_classes(axes, places, names, sizes, logarithmic=room is not None)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("test accuracy of the class (%)")
    columns = min(4 if max(len(row.name) for row in rows) < 18 else 2, len(rows))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure


def _title(rows: Sequence[Row]) -> str:
    """Return what points and bars of class accuracies are."""
    counts = {len(row.trials) for row in rows}
    if rows[0].folds:
        title, each = "All folds pooled, and beside it the 95 % interval (Wilson's, of fewer images)", "folds"
    else:
        over = "test images (Wilson's)" if counts == {1} else "trials and test images"
        title, each = f"Mean over n trials, and beside it the 95 % interval over {over}", "n"
    if len(counts) == 1:
        return title
    verb = "are" if rows[0].folds else "is"
    return f"{title}; {each} {verb} not the same for all methods: {min(counts)} to {max(counts)}"


def _class_places(sizes: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return where classes stand, float [K]: at their sizes, with the smallest gap between logarithms; or in a row.

    In a row, largest class first, there is no such gap: None.
    """
    known = np.maximum(sizes, 1).astype(float)
    gaps = np.diff(np.sort(np.log(known)))
    if len(gaps) and gaps.min() > 0.04 * gaps.sum():
        return known, float(gaps.min())
    return np.argsort(np.argsort(-sizes, kind="stable")).astype(float), None


def _beside(places: np.ndarray, room: float | None, shift: float) -> np.ndarray:
    """Return places moved sideways by a share of the room between two classes."""
    return places + 0.8 * shift if room is None else places * np.exp(-0.64 * shift * room)


def _name_classes(
    axes: Axes, places: np.ndarray, names: Sequence[str], sizes: np.ndarray, *, logarithmic: bool
) -> None:
    """Name the classes: below where they stand in a row, on top of an axis of their sizes."""
    labels = [f"{name}\n{size}" for name, size in zip(class_labels(names), sizes, strict=True)]
    if not logarithmic:
        axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlabel("class, and its training images")
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training images of the class (log)")
    axes.invert_xaxis()  # head first, as everywhere
    top = axes.secondary_xaxis("top")
    top.set_xscale("log")
    top.set_xticks(places, labels, rotation=30, ha="left", rotation_mode="anchor")
    top.minorticks_off()


@drawing
def confusion(row: Row) -> Figure:
    """Draw the confusion matrix of a row: per cent of the test images of each true class, over all trials."""
    names = class_labels(row.result.data.class_names)
    totals = confusion_counts(row)
    sizes = totals.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(totals, sizes, out=np.full(totals.shape, np.nan), where=sizes > 0)
    side = min(WIDTH, max(3.6, 2.2 + 0.4 * len(names)))
    title = f"{row.name}: % of the test images of each true class, {of_trials(row, 'sum')}"
    figure = new_figure(side, 0.9 * side, title, images=True)
    axes = figure.subplots()
    axes.grid(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(names) < _MANY_CLASSES:
        for (true, predicted), share in np.ndenumerate(shares):
            text = "n/a" if np.isnan(share) else f"{share:.0f}"
            axes.text(
                predicted, true, text, ha="center", va="center", color="white" if share > 55 else "black", fontsize=7
            )
    figure.colorbar(image, ax=axes, shrink=0.7, label="test images of the true class (%)")
    return figure
