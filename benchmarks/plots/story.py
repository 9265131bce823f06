"""The story of a flex trial: what was decided at each query, from what, and the images that were chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.plots.images import draw_mosaic, mosaic
from ltbench.benchmarks.plots.style import WIDTH, class_labels, drawing, new_figure, series_style
from ltbench.benchmarks.plots.training import read_curves
from ltbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.datasets.images.store import ImageStore
    from ltbench.datasets.splits.manifest import Manifest

_PER_GROUP = 4  # images of a class in each part of the montage


@dataclass(frozen=True, eq=False)
class Story:
    """What a flex trial decided, K classes and Q queries, and its accuracy on the way, over T epochs.

    Attributes
    ----------
    recall : float [T, K], validation accuracy of each class after each epoch, from the anchor stage on
    epochs : int [Q], epochs from the anchor stage on when the query came
    accuracy, difficulty : float [Q, K], what the query went by: accuracy of each class, and p-hat
    quotas : int [1 + Q, K], images that entered training: anchors, then queried ones
    pool : int [1 + Q, K], images left after that
    """

    recall: np.ndarray
    epochs: np.ndarray
    accuracy: np.ndarray
    difficulty: np.ndarray
    quotas: np.ndarray
    pool: np.ndarray


def has_story(record: Record) -> bool:
    """Return whether a trial chose anchor points, so that there is a story to draw."""
    anchors = record.result.story.get("anchors")
    return isinstance(anchors, dict) and {"counts", "indices", "edges"} <= anchors.keys()


@contextmanager
def _readable(record: Record) -> Iterator[None]:
    """Refuse a story of another form, which records keep as a plug-in gave it."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{record.folder / 'result.json'} holds no story that can be drawn ({error})") from error


def _queries(record: Record) -> dict[str, Mapping[str, Any]]:
    """Return the queries of a trial in order, by the name of the stage that followed."""
    recorded = record.result.story
    numbers = sorted(int(name[5:]) for name in recorded if name.startswith("query") and name[5:].isdecimal())
    return {f"query{number}": recorded[f"query{number}"] for number in numbers}


def read_story(record: Record) -> Story:
    """Return the numbers of a trial's story.

    Raises
    ------
    UserError : `metrics.jsonl` missing or corrupt, or a story of another form
    """
    result, queries, curves = record.result, _queries(record), read_curves(record)
    chosen = [stage == "anchors" or stage in queries for stage in curves.stages]
    counts = np.asarray(result.data.class_counts)

    def over_queries(key: str) -> np.ndarray:
        return np.array([event[key] for event in queries.values()], dtype=np.float64).reshape(-1, len(counts))

    with _readable(record):
        anchors = np.array(result.story["anchors"]["counts"], dtype=np.int64).reshape(len(counts))
        return Story(
            recall=curves.recall[chosen],
            epochs=np.array([event["epoch"] for event in queries.values()], dtype=np.int64),
            accuracy=over_queries("accuracy"),
            difficulty=over_queries("difficulty"),
            quotas=np.vstack([anchors, over_queries("quotas")]).astype(np.int64),
            pool=np.vstack([counts - anchors, over_queries("pool_left")]).astype(np.int64),
        )


@drawing
def story(record: Record, name: str) -> Figure:
    """Draw what a flex trial decided at each query: class accuracy, difficulty, quotas, and what the pool has left.

    Parameters
    ----------
    name : of the record's row

    Raises
    ------
    UserError : as `read_story`
    """
    numbers, result = read_story(record), record.result
    title = f"{name}, trial {result.trial}: epochs from the anchors on; a vertical line is a query"
    figure = new_figure(WIDTH, 5.2, title)
    grid = figure.subplots(2, 2, sharex=True)
    for class_id, label in enumerate(class_labels(result.data.class_names)):
        _draw_class(grid, numbers, class_id, label)
    labels = [
        *("validation accuracy (%)", "difficulty p̂ (mean: 1)"),
        *("images: anchors, then queried", "images left in the pool"),
    ]
    for axes, label in zip(grid.flat, labels, strict=True):
        for epoch in numbers.epochs:
            axes.axvline(epoch, color="#999999", linewidth=0.6, zorder=0.5)
        axes.set_ylabel(label)
    # Limits leave room for whole markers at 0 and at the top.
    grid[0, 0].set_ylim(-3, 103)
    grid[0, 1].set_ylim(-0.1, 1.1 * numbers.difficulty.max(initial=1))
    for axes, images in zip(grid[1], (numbers.quotas, numbers.pool), strict=True):
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(-0.3, 1.6 * images.max(initial=1))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch")
    grid[0, 0].xaxis.get_major_locator().set_params(integer=True)
    if not len(numbers.epochs):
        grid[0, 1].text(0.5, 0.5, "no query", ha="center", transform=grid[0, 1].transAxes)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_class(grid: np.ndarray, numbers: Story, class_id: int, name: str) -> None:
    """Draw one class into the four panels."""
    style, last = series_style(class_id) | {"markersize": 3}, len(numbers.recall)
    begins = np.array([0, *numbers.epochs])
    # The accuracy of every epoch as a line; a marker is what a query went by.
    line = {key: value for key, value in style.items() if key != "marker"}
    recall, accuracy = 100 * numbers.recall[:, class_id], 100 * numbers.accuracy[:, class_id]
    grid[0, 0].plot(range(1, last + 1), recall, linewidth=1, alpha=0.6, **line)
    grid[0, 0].plot(numbers.epochs, accuracy, **style | {"linestyle": "none"})
    grid[0, 0].plot([], [], label=name, **style)
    grid[0, 1].plot(numbers.epochs, numbers.difficulty[:, class_id], **style)
    grid[1, 0].plot(0, numbers.quotas[0, class_id], **style)
    grid[1, 0].plot(numbers.epochs, numbers.quotas[1:, class_id], **style)
    left = np.append(numbers.pool[:, class_id], numbers.pool[-1, class_id])
    grid[1, 1].plot(np.append(begins, last), left, drawstyle="steps-post", **style)


def story_groups(record: Record, labels: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return which training images tell a flex trial's story: rows of the `train` part, at most 4 of each class.

    The first anchor points (of `selection=anchor` the nearest to their prototype); the images farthest from their
    prototype; of the queried images, those of the highest mutual information in the query that took them; and those
    of the lowest that a query saw in the pool.

    Parameters
    ----------
    labels : int64 [n], of the `train` part

    Returns
    -------
    For each group K arrays of int64, by class id

    Raises
    ------
    UserError : a story of another form
    """
    anchors = record.result.story["anchors"]
    random = record.result.hyperparameters.get("query") == "random"
    score = "random score" if random else "information"
    with _readable(record):
        groups = {
            "anchors": anchors["indices"],
            "edges (farthest\nfrom the prototype)": anchors["edges"],
            f"queried, highest\n{score}": _ranked(record, "queried", "information")[::-1],
            f"in the pool, lowest\n{score}": _ranked(record, "lowest", "lowest_information"),
        }
        return {name: [own[:_PER_GROUP] for own in _of_classes(rows, labels, record)] for name, rows in groups.items()}


def _ranked(record: Record, images: str, scores: str) -> np.ndarray:
    """Return the images that the queries name, each once, by their scores, the lowest first."""
    queries = _queries(record).values()
    rows = np.array([row for event in queries for row in event[images]], dtype=np.int64)
    values = np.array([value for event in queries for value in event[scores]], dtype=np.float64)
    return np.array(list(dict.fromkeys(rows[np.argsort(values, kind="stable")].tolist())), dtype=np.int64)


def _of_classes(rows: Sequence[int] | np.ndarray, labels: np.ndarray, record: Record) -> list[np.ndarray]:
    chosen = np.asarray(rows, dtype=np.int64)
    return [chosen[labels[chosen] == class_id] for class_id in range(len(record.result.data.class_names))]


@drawing
def story_montage(record: Record, name: str, manifest: Manifest, store: ImageStore) -> Figure:
    """Draw the training images that tell a flex trial's story, a row a class: see `story_groups`.

    Parameters
    ----------
    name : of the record's row

    Raises
    ------
    UserError : an image is not in the store, or a story of another form
    """
    ids, labels = manifest.part("train")
    positions, result = store.rows(ids), record.result
    groups = story_groups(record, labels)
    title = f"{name}, trial {result.trial}: at most {_PER_GROUP} images a class"
    names = class_labels(result.data.class_names)
    figure = new_figure(WIDTH, 0.9 + 0.37 * len(names), title, images=True)
    for number, (axes, (heading, rows)) in enumerate(zip(figure.subplots(1, len(groups)), groups.items(), strict=True)):
        image = mosaic(store.pixels, [positions[own] for own in rows], _PER_GROUP)
        draw_mosaic(axes, image, names if number == 0 else [])
        axes.set_title(heading)
    return figure
