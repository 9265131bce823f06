"""Which pictures a setting, a row and a trial have; each is drawn by the module of its subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.analysis.rows import Row
    from ltbench.benchmarks.analysis.standings import Setting

FIGURES = ("curves", "per-class", "confusion", "reliability", "story", "counts", "samples")
_CLASS_BY_CLASS = ("per-class", "story", "counts", "samples", "story-images")
_MOST_CLASSES = 200  # that have a name each, or a line
TRIAL_FIGURES = ("curves", "confusion", "reliability", "story")
"""Those that tell of one trial and need its record alone."""


def few_rows(rows: Sequence[Row], at_most: int = 6) -> list[Row]:
    """Return the first rows, and the baseline: few enough to share axes."""
    from ltbench.benchmarks.analysis.standings import BASELINE

    few = list(rows[:at_most])
    baseline = [row for row in rows[at_most:] if row.name == BASELINE]
    return [*few[: at_most - len(baseline)], *baseline]


@dataclass(frozen=True)
class Picture:
    """One figure still to be drawn.

    Attributes
    ----------
    name : of its file, without suffix
    draw : returns the figure, or a line that says why there is none
    kind : what it shows: one of `FIGURES`, or "story-images"
    row : whose alone it is, None where rows share it
    """

    name: str
    draw: Callable[[], Figure | str]
    kind: str
    row: Row | None = None


def pictures(kinds: Iterable[str], rows: Sequence[Row], results: Path, shared: Sequence[Row]) -> Iterator[Picture]:
    """Yield the pictures of one setting; of many classes, those that show each of them cannot be drawn.

    Parameters
    ----------
    kinds : of `FIGURES`
    rows : of the setting, at least one
    results : folder of the results, in which images are looked for
    shared : the rows that are drawn on shared axes, few of them
    """
    classes = len(rows[0].result.data.class_names)
    too_many = f"{classes} classes, and the picture shows at most {_MOST_CLASSES} one by one"
    for picture in _pictures(kinds, rows, results, shared):
        drawable = classes <= _MOST_CLASSES or picture.kind not in _CLASS_BY_CLASS
        yield picture if drawable else replace(picture, draw=lambda: too_many)


def _pictures(kinds: Iterable[str], rows: Sequence[Row], results: Path, shared: Sequence[Row]) -> Iterator[Picture]:
    from ltbench.benchmarks.analysis.standings import BASELINE
    from ltbench.benchmarks.plots import accuracy, calibration, images

    kinds, first = set(kinds), rows[0].records[0]
    names = first.result.data.class_names
    if "per-class" in kinds:
        yield Picture("per-class", partial(accuracy.per_class_accuracy, shared), "per-class")
    if "reliability" in kinds:
        yield Picture("reliability", partial(calibration.reliability, rows), "reliability")
    if "counts" in kinds:
        yield Picture("counts", lambda: images.class_counts(names, first.manifest()), "counts")
    if "samples" in kinds:
        draw = partial(_with_images, first, results, partial(images.samples, names))
        yield Picture("samples", draw, "samples")
    baseline = next((row for row in rows if row.name == BASELINE), None)
    for row in rows:
        yield from _pictures_of_row(kinds, row, None if row is baseline else baseline, results)


def _pictures_of_row(kinds: set[str], row: Row, reference: Row | None, results: Path) -> Iterator[Picture]:
    from ltbench.benchmarks.plots import accuracy, story, training

    first = row.records[0]
    stem = first.folder.parent.name
    drawn: dict[str, Callable[[], Figure | str]] = {}
    if "curves" in kinds:
        drawn["curves"] = partial(training.training_curves, row, reference)
    if "confusion" in kinds:
        classes, most = len(row.result.data.class_names), accuracy.MOST_CLASSES
        too_many = f"{classes} classes, and a confusion matrix shows at most {most}"
        drawn["confusion"] = partial(accuracy.confusion, row) if classes <= most else lambda: too_many
    if "story" in kinds and story.has_story(first):
        drawn["story"] = partial(story.story, first, row.name)
        drawn["story-images"] = partial(_with_images, first, results, partial(story.story_montage, first, row.name))
    for kind, draw in drawn.items():
        yield Picture(f"{kind}-{stem}", draw, kind, row)


def trial_pictures(record: Record) -> Iterator[Picture]:
    """Yield the pictures of one trial by itself, those of `TRIAL_FIGURES`; none holds images of the data.

    Raises
    ------
    UserError : predictions are missing or corrupt
    """
    from ltbench.benchmarks.analysis.standings import settings_of

    (setting,) = settings_of([record])
    found = pictures(TRIAL_FIGURES, setting.rows, record.folder.parents[2], setting.rows)
    return (picture for picture in found if picture.kind in TRIAL_FIGURES)


def _with_images(record: Record, results: Path, draw: Callable[..., Figure]) -> Figure | str:
    from ltbench.benchmarks.plots.images import find_store

    manifest = record.manifest()
    store = find_store(record, manifest, results)
    return store if isinstance(store, str) else draw(manifest, store)


def setting_folders(settings: Sequence[Setting]) -> list[str]:
    """Return a folder's name for each setting; digests are added where two would be the same."""
    names = [setting.rows[0].records[0].folder.parents[1].name for setting in settings]
    digests = [[setting.result.split_digest[:8], setting.result.protocol_digest[:8]] for setting in settings]
    return [
        name if names.count(name) == 1 else "-".join([name, *own]) for name, own in zip(names, digests, strict=True)
    ]


def save_pictures(folder: Path, wanted: Iterable[Picture]) -> Iterator[tuple[Picture, Sequence[Path] | str]]:
    """Draw pictures into a folder, PNG and SVG; yield each with its files, or the line why it has none."""
    from ltbench.benchmarks.plots.style import save

    for picture in wanted:
        figure = picture.draw()
        yield picture, figure if isinstance(figure, str) else save(figure, folder / picture.name)
