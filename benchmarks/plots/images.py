"""The data of a setting: images of each class in each part, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.plots.style import COLOURS, WIDTH, class_labels, drawing, new_figure
from ltbench.datasets.images.augmentation import stored_size
from ltbench.datasets.images.store import ImageStore
from ltbench.datasets.splits.longtail import PARTS
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Record

_PART_COLOURS, _MARKERS = (COLOURS[0], COLOURS[1], COLOURS[2]), ("o", "s", "^")
_FOOT = 0.8
"""Where the logarithmic axis of counts begins: below one image."""


def find_store(record: Record, manifest: Manifest, results: Path) -> ImageStore | str:
    """Return the image store of a record's images, or a line that says why there is none.

    The record does not say where its images lie, so the store is looked for where runs put it. A store counts if
    its side fits and all training images are decoded in it; where two do, their images may differ (another variant
    of a dataset has the same ids), and none is taken.
    """
    cache, size = results / "cache" / "images", stored_size(record.result.protocol["image_size"])
    ids, _ = manifest.part("train")
    found, reasons = [], [f"{cache} does not hold them"]
    for folder in sorted(cache.glob(f"{record.result.data.dataset}-{size}px-*")):
        try:
            store = ImageStore(folder)
            stamps = np.fromfile(folder / "stamps.i64", dtype=np.int64)
            if stamps[store.rows(ids)].all():
                found.append(store)
        except (UserError, OSError, IndexError) as error:
            reasons.append(str(error))
    if not found:
        return f"no images: {reasons[-1]}"
    return found[0] if len(found) == 1 else f"no images: several image stores in {cache} fit"


@drawing
def class_counts(names: Sequence[str], manifest: Manifest) -> Figure:
    """Draw how many images each class has in each part as points on a logarithmic axis, largest class first.

    A class without an image has no point, but its 0 at the foot.

    Parameters
    ----------
    names : of the classes, K
    """
    counts = {part: manifest.class_counts(part, len(names)) for part in PARTS}
    order = np.argsort(-counts["train"], kind="stable")
    figure = new_figure(WIDTH, 2.8)
    axes = figure.subplots()
    for number, (part, values) in enumerate(counts.items()):
        places, own = np.arange(len(names)) + 0.27 * (number - 1), values[order]
        style: dict[str, Any] = {"color": _PART_COLOURS[number], "marker": _MARKERS[number], "linestyle": "none"}
        axes.plot(places, np.where(own > 0, own, np.nan), label=f"{part} ({values.sum()})", **style)
        for place, count in zip(places, own, strict=True):
            above: dict[str, Any] = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{count}", (place, max(count, _FOOT)), fontsize=5 if len(names) > 10 else 6, **above)
    axes.set_yscale("log")
    axes.set_ylim(_FOOT, 2 * max(values.max() for values in counts.values()))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("images (log)")
    labels = class_labels([names[label] for label in order])
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.grid(False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(counts))
    return figure


@drawing
def samples(names: Sequence[str], manifest: Manifest, store: ImageStore, per_class: int = 12) -> Figure:
    """Draw training images of each class, at equal distances in the manifest's order.

    Parameters
    ----------
    names : of the classes, K

    Raises
    ------
    UserError : an image is not in the store
    """
    ids, labels = manifest.part("train")
    positions = store.rows(ids)
    rows = [_spread(positions[labels == label], per_class) for label in range(len(names))]
    counts = np.bincount(labels, minlength=len(names))
    figure = new_figure(WIDTH, 0.3 + 0.48 * len(names), images=True)
    titles = [f"{name}\n{count} training images" for name, count in zip(class_labels(names), counts, strict=True)]
    draw_mosaic(figure.subplots(), mosaic(store.pixels, rows, per_class), titles)
    return figure


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def mosaic(pixels: np.ndarray, rows: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return images as one, white between them.

    Parameters
    ----------
    pixels : uint8 [N, 3, size, size]
    rows : K of int [at most `columns`], images that stand side by side
    columns : images a row has place for

    Returns
    -------
    uint8 [H, W, 3]
    """
    size = pixels.shape[-1]
    gap = max(1, size // 20)
    step = size + gap
    canvas = np.full((len(rows) * step - gap, columns * step - gap, 3), 255, dtype=np.uint8)
    for line, positions in enumerate(rows):
        for column, position in enumerate(positions):
            top, left = line * step, column * step
            canvas[top : top + size, left : left + size] = pixels[position].transpose(1, 2, 0)
    return canvas


def draw_mosaic(axes: Axes, image: np.ndarray, names: Sequence[str]) -> None:
    """Draw a mosaic with a name left of each row; no names: none."""
    axes.imshow(image, interpolation="none", aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    height = image.shape[0] / max(1, len(names))
    axes.set_yticks([height * (row + 0.5) - 0.5 for row in range(len(names))], names)
    axes.set_xticks([])
    axes.tick_params(length=0)
