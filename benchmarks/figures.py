"""Figures: pictures made from the records of finished trials alone, PNG and SVG.

    python benchmarks/figures.py --results results --method ce flex --figure all --out figures

Colours are those of Okabe and Ito, which the colour-blind tell apart; line styles, markers and hatches repeat what
colours say, so that a print in grey still reads. A figure drawn twice is the same file to the byte.
"""

from __future__ import annotations

import argparse
import functools
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.command import Parser, guarded

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ltbench.benchmarks.records import Record
    from ltbench.datasets.image_store import ImageStore
    from ltbench.datasets.manifest import Manifest

FIGURES = ("curves", "per-class", "confusion", "reliability", "story", "counts")
DPI = 200
WIDTH = 7.0  # inches: the text width of a paper
AT_MOST = 8  # methods that share axes: more are not told apart
BINS = 15
_PER_GROUP = 4  # images of a class in each part of a story's montage
_MANY_CLASSES = 16  # from here on the numbers of a confusion matrix would not be legible
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)), (0, (3, 1, 1, 1)))
_HATCHES = ("", "////", "....")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
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


@contextmanager
def _styled() -> Iterator[None]:
    """Apply our style within a block; a user's own settings of matplotlib neither matter nor change."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _drawing(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def styled(*arguments: Any, **options: Any) -> Figure:
        with _styled():
            return draw(*arguments, **options)

    return styled


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg_of(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes whenever it is drawn."""
    return _rendered(figure, "svg", metadata={"Date": None})


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
    from ltbench.benchmarks.records import write_bytes

    png, svg = (path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg"))
    write_bytes(png, png_of(figure))
    write_bytes(svg, svg_of(figure))
    return png, svg


@dataclass(frozen=True)
class Curves:
    """The epochs of one trial in the order in which they ran.

    Attributes
    ----------
    stages : name of each epoch's stage
    accuracy, val_loss, train_loss : float [epochs]: validation mean per-class accuracy and cross-entropy (nats), NaN
        where a stage does not validate; the stage's own training loss, NaN for an evaluation without training
    selected : position of the reported epoch, None where the record does not tell
    """

    stages: tuple[str, ...]
    accuracy: np.ndarray
    val_loss: np.ndarray
    train_loss: np.ndarray
    selected: int | None


def read_curves(record: Record) -> Curves:
    """Return a trial's epochs from its `metrics.jsonl`.

    Raises
    ------
    UserError : missing, empty or corrupt
    """
    import json

    import numpy as np

    from ltbench.errors import UserError

    path = record.folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        stages = tuple(row["stage"] for row in rows)
        recalls = [np.array(row["val_recall"] or [np.nan], dtype=np.float64) for row in rows]
        # What nanmean would do, without its warning for an epoch without validation.
        known = [recall[~np.isnan(recall)] for recall in recalls]
        accuracy = np.array([recall.mean() if len(recall) else np.nan for recall in known])
        losses = [(row["val_loss"], row["terms"].get("loss")) for row in rows]
        places = [(row["stage"], row["epoch"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not readable ({error})") from error
    if not rows:
        raise UserError(f"{path} holds no epoch")
    selection = record.result.get("selection") or {}
    place = (selection.get("stage"), selection.get("epoch"))
    val_loss, train_loss = np.array(losses, dtype=np.float64).T
    return Curves(stages, accuracy, val_loss, train_loss, places.index(place) if place in places else None)


@_drawing
def training_curves(records: Sequence[Record], title: str, reference: Sequence[Record] = ()) -> Figure:
    """Draw validation accuracy and losses of one method over the epochs of all stages.

    A line is the mean of the trials that got that far, the shade their range, a star a trial's reported epoch; stages
    are named at the top, from the mean epoch at which they begin.

    Parameters
    ----------
    records : trials of one method
    title : of the figure
    reference : trials of another method, drawn thin and grey for comparison

    Raises
    ------
    UserError : `metrics.jsonl` missing or corrupt
    """
    trials = [read_curves(record) for record in records]
    figure = _figure(WIDTH, 2.6)
    left, right = figure.subplots(1, 2)
    if reference:
        mean, *_ = _summary([100 * read_curves(record).accuracy for record in reference])
        name = reference[0].result["method"]
        left.plot(range(1, len(mean) + 1), mean, color="#777777", linestyle=":", linewidth=1, label=f"{name} (mean)")
    _band(left, [100 * trial.accuracy for trial in trials], 0, "validation")
    _band(right, [trial.val_loss for trial in trials], 0, "validation (cross-entropy)")
    _band(right, [trial.train_loss for trial in trials], 1, "training (the stage's own loss)")
    label: str | None = "reported epoch"
    for trial in trials:
        if trial.selected is not None:
            place, score = trial.selected, 100 * trial.accuracy[trial.selected]
            left.plot(place + 1, score, "*", color="black", markersize=7, linestyle="none", label=label)
            label = None
    left.set_ylabel("mean per-class accuracy (%)")
    right.set_ylabel("loss (nats)")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("epoch, counted over all stages")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _mark_stages(axes, trials)
        axes.legend(loc="best")
    figure.suptitle(f"{title}: mean and range of {_trials(len(trials))}", fontsize=9)
    return figure


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def _summary(trials: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lowest and highest [longest] over the trials that have the epoch; NaN where none has."""
    import numpy as np

    padded = np.full((len(trials), max(map(len, trials))), np.nan)
    for row, trial in zip(padded, trials, strict=True):
        row[: len(trial)] = trial
    masked = np.ma.masked_invalid(padded)
    return tuple(np.ma.filled(part.astype(float), np.nan) for part in (masked.mean(0), masked.min(0), masked.max(0)))


def _band(axes: Axes, trials: Sequence[np.ndarray], number: int, label: str) -> None:
    mean, low, high = _summary(trials)
    epochs = range(1, len(mean) + 1)
    axes.fill_between(epochs, low, high, color=_COLOURS[number], alpha=0.2, linewidth=0)
    # Markers, because a stage may have a single epoch.
    line, marker = _LINES[number], _MARKERS[number]
    axes.plot(epochs, mean, color=_COLOURS[number], linestyle=line, marker=marker, markersize=2, label=label)


def _mark_stages(axes: Axes, trials: Sequence[Curves]) -> None:
    starts: dict[str, list[int]] = {}
    for trial in trials:
        for name in dict.fromkeys(trial.stages):
            starts.setdefault(name, []).append(trial.stages.index(name) + 1)
    places = {name: sum(own) / len(own) for name, own in starts.items()}
    for place in places.values():
        axes.axvline(place, color="#999999", linewidth=0.6, zorder=0.5)
    top = axes.secondary_xaxis("top")
    top.set_xticks(list(places.values()), list(places), rotation=45, ha="left", rotation_mode="anchor", fontsize=6)
    top.tick_params(length=2, pad=1)


@_drawing
def per_class_accuracy(methods: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw test accuracy of each class against its number of training images (the paper's Figure 3).

    A point is the mean over the trials; its bar is Wilson's 95 % interval of that share among the test images of the
    class. Trials share their test images and are not pooled for it. Where classes are so alike in size that their
    names would overlap, they stand side by side instead.

    Parameters
    ----------
    methods : trials by name of the row, at most `AT_MOST` of them

    Raises
    ------
    ValueError : no method, or too many
    UserError : predictions missing or corrupt
    """
    import numpy as np

    if not 0 < len(methods) <= AT_MOST:
        raise ValueError(f"from 1 to {AT_MOST} methods share axes, got {len(methods)}")
    result = next(iter(methods.values()))[0].result
    sizes, names = np.asarray(result["class_counts"], dtype=float), result["class_names"]
    order = np.argsort(sizes, kind="stable")
    gaps = np.diff(np.log(np.maximum(sizes[order], 1)))
    span = gaps.sum()
    logarithmic = bool(span > 0 and (gaps / span).min(initial=1) > 0.04)
    places = np.maximum(sizes, 1) if logarithmic else np.argsort(np.argsort(-sizes, kind="stable")).astype(float)
    figure = _figure(WIDTH, 3.8)
    axes = figure.subplots()
    for number, (name, records) in enumerate(methods.items()):
        share, low, high = _class_shares(records, len(names))
        shift = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
        x = places * np.exp(shift * 0.8 * gaps.min()) if logarithmic else places + shift
        arms = 100 * np.array([share - low, high - share]).clip(min=0)
        line, style = _LINES[number] if logarithmic else "none", _COLOURS[number]
        drawn = np.argsort(x)
        axes.errorbar(
            *(x[drawn], 100 * share[drawn], arms[:, drawn]),
            **{"color": style, "marker": _MARKERS[number], "linestyle": line, "label": name},
            **{"linewidth": 0.9, "elinewidth": 0.8, "capsize": 1.5},
        )
    _class_axis(axes, places, [f"{name}\n{size:g}" for name, size in zip(names, sizes, strict=True)], logarithmic)
    axes.set_ylim(0, 100)
    axes.set_ylabel("test accuracy of the class (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(methods)))
    return figure


def _class_axis(axes: Axes, places: np.ndarray, labels: Sequence[str], logarithmic: bool) -> None:
    """Name the classes: below where they stand side by side, on top of an axis of their sizes."""
    if not logarithmic:
        axes.set_xticks(places, labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_xlabel("class, and its training images")
        return
    axes.set_xscale("log")
    axes.set_xlabel("training images of the class (log)")
    axes.invert_xaxis()  # head first, as everywhere
    top = axes.secondary_xaxis("top")
    top.set_xscale("log")
    names = [label.replace("\n", ", ") for label in labels]
    top.set_xticks(places, names, rotation=30, ha="left", rotation_mode="anchor")
    top.minorticks_off()


def _class_shares(records: Sequence[Record], num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean accuracy over the trials of each class, and Wilson's interval among its test images: float [K]."""
    import numpy as np

    from ltbench.benchmarks.metrics import wilson_interval

    totals = confusion_counts(records, num_classes) / len(records)
    counts, right = totals.sum(axis=1), np.diag(totals)
    share = np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)
    low, high = np.array([wilson_interval(*pair) for pair in zip(right, counts, strict=True)]).T
    return share, low, high


def test_predictions(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, int [n], and logits, float [n, K], of a trial's test images.

    Raises
    ------
    UserError : missing or corrupt
    """
    from ltbench.errors import UserError

    arrays = record.predictions()
    try:
        return arrays["test_labels"], arrays["test_logits"]
    except KeyError as error:
        raise UserError(f"{record.folder / 'predictions.npz'} lacks {error}") from error


def confusion_counts(records: Iterable[Record], num_classes: int) -> np.ndarray:
    """Return test images by true (row) and predicted class, summed over trials: float [K, K].

    Raises
    ------
    UserError : predictions missing or corrupt
    """
    import numpy as np

    total = np.zeros((num_classes, num_classes))
    for record in records:
        labels, logits = test_predictions(record)
        np.add.at(total, (labels, logits.argmax(axis=1)), 1)
    return total


@_drawing
def confusion(records: Sequence[Record], title: str) -> Figure:
    """Draw the confusion matrix of one method: per cent of the test images of each true class, over all trials.

    Raises
    ------
    UserError : predictions missing or corrupt
    """
    import numpy as np

    names = records[0].result["class_names"]
    totals = confusion_counts(records, len(names))
    sizes = totals.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(totals, sizes, out=np.full_like(totals, np.nan), where=sizes > 0)
    side = min(WIDTH, 1.9 + 0.42 * len(names))
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.grid(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(names) < _MANY_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            text = "n/a" if np.isnan(share) else f"{share:.0f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 55 else "black", fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.7, label="test images of the true class (%)")
    figure.suptitle(f"{title}: sum of {_trials(len(records))}", fontsize=9)
    return figure


def reliability_bins(records: Iterable[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, mean confidence and accuracy of 15 equal bins of confidence, over all trials: float [15] each.

    The bins are those of ECE; confidence and accuracy of an empty one are NaN.

    Raises
    ------
    UserError : predictions missing or corrupt
    """
    import numpy as np
    from scipy.special import softmax

    sums = np.zeros((3, BINS))
    for record in records:
        labels, logits = test_predictions(record)
        probabilities = softmax(logits.astype(np.float64), axis=1)
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
        sums += [np.bincount(bins, weights=values, minlength=BINS) for values in (None, confidence, right)]
    size = sums[0]
    confidence, accuracy = (np.divide(part, size, out=np.full(BINS, np.nan), where=size > 0) for part in sums[1:])
    return size, confidence, accuracy


@_drawing
def reliability(methods: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw a reliability diagram of each method: accuracy against confidence in 15 bins, over all trials.

    Bars are accuracies; hatched parts the gap to the mean confidence of the bin, which a dash marks; the strip below
    is the share of test images in each bin. The ECE is the mean of the trials' own, as in the leaderboard.

    Raises
    ------
    UserError : predictions missing or corrupt
    """
    import numpy as np

    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)
    figure = _figure(WIDTH if columns > 2 else 2.6 * columns, 0.5 + 2.2 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows)
    width = 100 / BINS
    middle = width * (np.arange(BINS) + 0.5)
    for number, (name, records) in enumerate(methods.items()):
        row, column = divmod(number, columns)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        size, confidence, accuracy = reliability_bins(records)
        gap = np.abs(confidence - accuracy)
        upper.bar(middle, 100 * accuracy, width, color=_COLOURS[0], edgecolor="white", linewidth=0.4)
        bottom = 100 * np.fmin(confidence, accuracy)
        upper.bar(middle, 100 * gap, width, bottom, fill=False, edgecolor=_COLOURS[1], hatch="////", linewidth=0.4)
        upper.hlines(100 * confidence, middle - width / 2, middle + width / 2, color="black", linewidth=1)
        upper.plot([0, 100], [0, 100], color="#555555", linestyle="--", linewidth=0.8)
        eces = [record.result["test"].get("ece") for record in records]
        ece = "n/a" if None in eces else f"{100 * np.mean(eces):.1f} %"
        upper.set_title(f"{_wrapped(name)}\nECE {ece}, {_trials(len(records))}", fontsize=7)
        lower.bar(middle, 100 * size / size.sum(), width, color="#777777", edgecolor="white", linewidth=0.4)
        upper.set(xlim=(0, 100), ylim=(0, 100), xticklabels=[])
        lower.set(xlim=(0, 100), xlabel="confidence (%)")
        if column == 0:
            upper.set_ylabel("accuracy (%)")
            lower.set_ylabel("images (%)")
    for unused in range(len(methods), rows * columns):
        row, column = divmod(unused, columns)
        grid[2 * row, column].set_axis_off()
        grid[2 * row + 1, column].set_axis_off()
    return figure


def _wrapped(name: str, width: int = 26) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(name, width) or [name])


def story_events(record: Record) -> list[Mapping[str, Any]]:
    """Return the queries of a flex trial in order; none where it never queried or is of another method."""
    story = record.result.get("story") or {}
    queries = [name for name in story if name.startswith("query") and name.removeprefix("query").isdigit()]
    return [story[name] for name in sorted(queries, key=lambda name: int(name.removeprefix("query")))]


def has_story(record: Record) -> bool:
    """Return whether a trial chose anchor points, so that there is a story to draw."""
    return bool((record.result.get("story") or {}).get("anchors"))


@_drawing
def story(record: Record) -> Figure:
    """Draw what a flex trial decided at each query: class accuracy, difficulty, quotas, and what the pool has left.

    Raises
    ------
    ValueError : the trial chose no anchor points
    """
    import numpy as np

    if not has_story(record):
        raise ValueError(f"{record.folder} has no story of anchors and queries")
    result, events = record.result, story_events(record)
    anchors = np.asarray(result["story"]["anchors"]["counts"])
    pool = np.asarray(result["class_counts"]) - anchors
    empty = np.full((1, len(anchors)), np.nan)

    def over_events(key: str, start: np.ndarray, scale: float = 1) -> np.ndarray:
        return scale * np.vstack([start, *(np.asarray(event[key], dtype=float)[None] for event in events)])

    panels = (
        ("class accuracy before the query (%)", over_events("accuracy", empty, 100)),
        ("difficulty p̂ (1: as hard as the mean)", over_events("difficulty", empty)),
        ("images: anchors, then queried", over_events("quotas", anchors[None])),
        ("images left in the pool", over_events("pool_left", pool[None])),
    )
    figure = _figure(WIDTH, 4.6)
    labels = ["anchors", *(f"query {n}\nepoch {event['epoch']}" for n, event in enumerate(events, 1))]
    for axes, (label, values) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        for class_id, name in enumerate(result["class_names"]):
            style, turn = class_id % len(_COLOURS), class_id // len(_COLOURS)
            line, marker = _LINES[(style + turn) % len(_LINES)], _MARKERS[(style + 2 * turn) % len(_MARKERS)]
            # Squares and circles of one size hide each other where classes meet; rings of falling size do not.
            axes.plot(
                *(values[:, class_id],),
                **{"color": _COLOURS[style], "linestyle": line, "marker": marker, "label": name, "alpha": 0.9},
            )
        axes.set_ylabel(label)
        axes.set_xticks(range(len(labels)), labels)
        axes.margins(x=0.05)
        if label.startswith("images"):
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
    if not events:
        figure.get_axes()[0].text(0, 0.5, "no query", ha="center")
    figure.legend(*figure.get_axes()[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{result['method']}, trial {result['trial']}: epochs counted from the anchors on", fontsize=9)
    return figure


def story_groups(record: Record, labels: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return which training images tell a flex trial's story: rows of the `train` part, of each class.

    Anchor points and, among queried images, those of the highest and the lowest mutual information in the query that
    took them; and images that no query took. Of more than `_PER_GROUP` anchors or images left, some at equal
    distances in the manifest's order.

    Parameters
    ----------
    labels : int64 [n], of the `train` part
    """
    import numpy as np

    anchors = np.asarray(record.result["story"]["anchors"]["indices"], dtype=np.int64)
    events = story_events(record)
    queried = np.array([row for event in events for row in event["queried"]], dtype=np.int64)
    information = np.array([value for event in events for value in event["information"]], dtype=np.float64)
    left = np.setdiff1d(np.arange(len(labels)), np.concatenate([anchors, queried]))
    by_information = queried[np.argsort(-information, kind="stable")]
    score = "information"
    if record.result.get("hyperparameters", {}).get("query") == "random":
        score = "random score"
    groups: dict[str, list[np.ndarray]] = {
        "anchors": [],
        f"queried, highest\n{score}": [],
        f"queried, lowest\n{score}": [],
        "left in the pool": [],
    }
    for class_id in range(len(record.result["class_names"])):
        taken = by_information[labels[by_information] == class_id]
        # One image is not shown as both: the lowest are of those that are not among the highest.
        highest, lowest = taken[:_PER_GROUP], taken[_PER_GROUP:][::-1][:_PER_GROUP]
        own = [_spread(np.sort(rows[labels[rows] == class_id])) for rows in (anchors, left)]
        for group, rows in zip(groups.values(), (own[0], highest, lowest, own[1]), strict=True):
            group.append(rows)
    return groups


def _spread(rows: np.ndarray, count: int = _PER_GROUP) -> np.ndarray:
    import numpy as np

    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _mosaic(pixels: np.ndarray, rows: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return images as one, uint8 [H, W, 3]: a row of at most `columns` images for each entry, white between."""
    import numpy as np

    size = pixels.shape[-1]
    gap = max(1, size // 20)
    step = size + gap
    canvas = np.full((len(rows) * step - gap, columns * step - gap, 3), 255, dtype=np.uint8)
    for line, positions in enumerate(rows):
        for column, position in enumerate(positions):
            top, left = line * step, column * step
            canvas[top : top + size, left : left + size] = pixels[position].transpose(1, 2, 0)
    return canvas


def _draw_mosaic(axes: Axes, mosaic: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(mosaic, interpolation="none", aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    height = mosaic.shape[0] / max(1, len(names))
    axes.set_yticks([height * (row + 0.5) - 0.5 for row in range(len(names))], names)
    axes.set_xticks([])
    axes.tick_params(length=0)


@_drawing
def story_montage(record: Record, manifest: Manifest, store: ImageStore) -> Figure:
    """Draw the training images that tell a flex trial's story, a row a class: see `story_groups`.

    Raises
    ------
    ValueError : the trial chose no anchor points
    UserError : an image is not in the store
    """
    if not has_story(record):
        raise ValueError(f"{record.folder} has no story of anchors and queries")
    ids, labels = manifest.part("train")
    positions, names = store.rows(ids), record.result["class_names"]
    groups = story_groups(record, labels)
    figure = _figure(WIDTH, 0.6 + 0.37 * len(names))
    for number, (axes, (title, rows)) in enumerate(zip(figure.subplots(1, 4), groups.items(), strict=True)):
        mosaic = _mosaic(store.pixels, [positions[own] for own in rows], _PER_GROUP)
        _draw_mosaic(axes, mosaic, names if number == 0 else [])
        axes.set_title(title)
    return figure


@_drawing
def class_counts(manifest: Manifest) -> Figure:
    """Draw how many images each class has in each part, largest class first, on a logarithmic axis."""
    import numpy as np

    names = _class_names(manifest)
    counts = {part: manifest.class_counts(part, len(names)) for part in ("train", "val", "test")}
    order = np.argsort(-counts["train"], kind="stable")
    figure = _figure(WIDTH, 2.8)
    axes = figure.subplots()
    for number, (part, values) in enumerate(counts.items()):
        places = np.arange(len(names)) + 0.27 * (number - 1)
        style = {"color": _COLOURS[(0, 4, 5)[number]], "hatch": _HATCHES[number], "edgecolor": "black"}
        bars = axes.bar(places, values[order], 0.27, label=f"{part} ({values.sum()})", linewidth=0.4, **style)
        axes.bar_label(bars, fontsize=5 if len(names) > 10 else 6, padding=1)
    axes.set_yscale("log")
    axes.set_ylim(0.8, 2 * max(values.max() for values in counts.values()))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("images (log)")
    axes.set_xticks(range(len(names)), [names[label] for label in order], rotation=20, ha="right")
    axes.grid(False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def _class_names(manifest: Manifest) -> list[str]:
    """Return class names by class id; a class without any image in the split goes by its id."""
    named = dict(zip(manifest.labels.tolist(), manifest.classes.tolist(), strict=True))
    return [named.get(label, f"class {label}") for label in range(max(named) + 1)]


@_drawing
def samples(manifest: Manifest, store: ImageStore, per_class: int = 12) -> Figure:
    """Draw training images of each class, at equal distances in the manifest's order.

    Raises
    ------
    UserError : an image is not in the store
    """
    import numpy as np

    ids, labels = manifest.part("train")
    names, positions = _class_names(manifest), store.rows(ids)
    rows = [_spread(positions[labels == label], per_class) for label in range(len(names))]
    counts = np.bincount(labels, minlength=len(names))
    figure = _figure(WIDTH, 0.3 + 0.48 * len(names))
    titles = [f"{name}\n{count} training images" for name, count in zip(names, counts, strict=True)]
    _draw_mosaic(figure.subplots(), _mosaic(store.pixels, rows, per_class), titles)
    return figure


def find_store(record: Record, manifest: Manifest, results: Path) -> ImageStore | str:
    """Return the image store of a record's images, or a line that says why there is none.

    The record does not say where its images lie, so the store is looked for where runs put it. A store counts if
    its side fits and all training images are decoded in it; where two do, their images may differ (another variant
    of a dataset has the same ids), and none is taken.
    """
    import numpy as np

    from ltbench.datasets.augmentation import stored_size
    from ltbench.datasets.image_store import ImageStore
    from ltbench.errors import UserError

    cache, size = results / "cache" / "images", stored_size(record.result["protocol"]["image_size"])
    ids, _ = manifest.part("train")
    found = []
    for folder in sorted(cache.glob(f"{record.result['dataset']}-{size}px-*")):
        try:
            store = ImageStore(folder)
            stamps = np.fromfile(folder / "stamps.i64", dtype=np.int64)
            if stamps[store.rows(ids)].all():
                found.append(store)
        except (UserError, OSError, IndexError):
            continue
    if not found:
        return f"no montage: {cache} does not hold the images"
    return found[0] if len(found) == 1 else f"no montage: several image stores in {cache} fit"


def by_row(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the trials of one setting by name of their leaderboard's row, best validation-free mean first.

    Best is the highest mean per-class accuracy on the test set, as in the leaderboard.
    """
    from ltbench.benchmarks.leaderboard import row_names

    rows: dict[str, list[Record]] = {}
    for name, record in zip(row_names(records), records, strict=True):
        rows.setdefault(name, []).append(record)

    def score(name: str) -> float:
        own = [record.result["test"].get("mean_class_accuracy") for record in rows[name]]
        return sum(value or 0 for value in own) / len(own)

    return {name: rows[name] for name in sorted(rows, key=score, reverse=True)}


def by_setting(records: Iterable[Record]) -> list[list[Record]]:
    """Return the records of each setting, in the leaderboard's order."""
    from ltbench.benchmarks.leaderboard import setting_of

    settings: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        settings.setdefault(setting_of(record.result), []).append(record)
    return [settings[key] for key in sorted(settings)]


def chosen_few(rows: Mapping[str, list[Record]], at_most: int = 6) -> dict[str, list[Record]]:
    """Return the best rows and `ce`: few enough to share axes."""
    names = list(rows)[:at_most]
    if "ce" in rows and "ce" not in names:
        names[-1] = "ce"
    return {name: rows[name] for name in names}


def manifest_of(record: Record) -> Manifest:
    """Return the split of a record, after a check that it is the one that the record names.

    Raises
    ------
    UserError : missing or changed
    """
    from ltbench.datasets.manifest import Manifest

    return Manifest.verify(record.folder.parent / "split.csv", record.result["split_digest"])


@dataclass(frozen=True)
class Picture:
    """One figure still to be drawn.

    Attributes
    ----------
    name : of its file, without suffix
    draw : returns the figure, or a line that says why there is none
    """

    name: str
    draw: Callable[[], Figure | str]


def pictures(
    kinds: Iterable[str], rows: Mapping[str, list[Record]], results: Path, shared: Mapping[str, list[Record]]
) -> Iterator[Picture]:
    """Yield the pictures of one setting.

    Parameters
    ----------
    kinds : of `FIGURES`
    rows : trials by name of the row
    results : folder of the results, in which images are looked for
    shared : the rows that are drawn on shared axes, at most `AT_MOST`
    """
    kinds, first = set(kinds), next(iter(rows.values()))[0]
    if "per-class" in kinds:
        yield Picture("per-class", lambda: per_class_accuracy(shared))
    if "reliability" in kinds:
        yield Picture("reliability", lambda: reliability(rows))
    if "counts" in kinds:
        yield Picture("counts", lambda: class_counts(manifest_of(first)))
        yield Picture("samples", lambda: _with_images(first, results, samples))
    baseline = rows.get("ce", [])
    for name, records in rows.items():
        stem, reference = records[0].folder.parent.name, [] if name == "ce" else baseline
        if "curves" in kinds:
            yield Picture(f"curves-{stem}", functools.partial(training_curves, records, name, reference))
        if "confusion" in kinds:
            yield Picture(f"confusion-{stem}", functools.partial(confusion, records, name))
        if "story" in kinds and has_story(records[0]):
            yield Picture(f"story-{stem}", functools.partial(story, records[0]))
            montage = functools.partial(story_montage, records[0])
            yield Picture(f"story-images-{stem}", functools.partial(_with_images, records[0], results, montage))


def _with_images(record: Record, results: Path, draw: Callable[[Manifest, ImageStore], Figure]) -> Figure | str:
    manifest = manifest_of(record)
    store = find_store(record, manifest, results)
    return store if isinstance(store, str) else draw(manifest, store)


def setting_folders(settings: Sequence[Sequence[Record]]) -> list[str]:
    """Return a folder's name for each setting; digests are added where two would be the same."""
    names = [records[0].folder.parents[1].name for records in settings]
    digests = [[records[0].result[f"{kind}_digest"][:8] for kind in ("split", "protocol")] for records in settings]
    return [
        name if names.count(name) == 1 else "-".join([name, *own]) for name, own in zip(names, digests, strict=True)
    ]


def select_rows(rows: Mapping[str, list[Record]], methods: Sequence[str] | None) -> dict[str, list[Record]]:
    """Return the rows of some methods, each given by its name or by that of its row; None: all."""
    wanted = set(methods or ())
    return {name: own for name, own in rows.items() if not wanted or wanted & {name, own[0].result["method"]}}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog="figures.py", description="Draw the pictures of a results folder, PNG and SVG.")
    parsed.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parsed.add_argument("--method", nargs="+", metavar="NAME", help="methods to draw; default: all")
    kinds = f"{', '.join(FIGURES)}, or all; default: all"
    parsed.add_argument("--figure", nargs="+", default=["all"], metavar="NAME", help=kinds)
    parsed.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR", help="default: figures")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures, print their paths; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.records import find_records
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    for kind in options.figure:
        if kind not in (*FIGURES, "all"):
            raise unknown("figure", kind, (*FIGURES, "all"))
    kinds = FIGURES if "all" in options.figure else options.figure
    records = list(find_records(options.results))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run benchmarks/run.py first")
    settings = by_setting(records)
    all_rows = [by_row(setting) for setting in settings]
    known = sorted({name for rows in all_rows for name in rows} | {each.result["method"] for each in records})
    for method in options.method or ():
        if method not in known:
            raise unknown("method", method, known)
    for folder, rows in zip(setting_folders(settings), all_rows, strict=True):
        chosen = select_rows(rows, options.method)
        shared = chosen_few(chosen, 6 if options.method is None else AT_MOST)
        if len(shared) < len(chosen) and "per-class" in kinds:
            print(f"{folder}: per-class shows {', '.join(shared)}; choose others with --method", file=sys.stderr)
        if chosen:
            _draw_setting(options.out / folder, pictures(kinds, chosen, options.results, shared))
    return 0


def _draw_setting(folder: Path, wanted: Iterable[Picture]) -> None:
    for picture in wanted:
        figure = picture.draw()
        if isinstance(figure, str):
            print(f"{folder / picture.name}: {figure}", file=sys.stderr)
            continue
        for path in save(figure, folder / picture.name):
            print(path)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose module names are not meant to be top-level ones
    sys.exit(main())
