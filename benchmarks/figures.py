"""Figures: pictures made from the records of finished trials alone, PNG and SVG.

    ltbench figures --results results --method ce flex --figure all --out figures

Which pictures a setting has is decided here; each is drawn by a module `plot_*.py`, in the style of `plot_style.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import Parser, guarded, invocation, script

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.analysis.standings import Row, Setting

FIGURES = ("curves", "per-class", "confusion", "reliability", "story", "counts", "samples")
TRIAL_FIGURES = ("curves", "confusion", "reliability", "story")
"""Those that tell of one trial and need its record alone."""


def chosen_few(rows: Sequence[Row], at_most: int = 6) -> list[Row]:
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
    """Yield the pictures of one setting.

    Parameters
    ----------
    kinds : of `FIGURES`
    rows : of the setting, at least one
    results : folder of the results, in which images are looked for
    shared : the rows that are drawn on shared axes, few of them
    """
    from ltbench.benchmarks.analysis.standings import BASELINE
    from ltbench.benchmarks.plots import accuracy as plot_accuracy
    from ltbench.benchmarks.plots import calibration as plot_calibration
    from ltbench.benchmarks.plots import images as plot_data

    kinds, first = set(kinds), rows[0].records[0]
    names = first.result.data.class_names
    if "per-class" in kinds:
        yield Picture("per-class", partial(plot_accuracy.per_class_accuracy, shared), "per-class")
    if "reliability" in kinds:
        yield Picture("reliability", partial(plot_calibration.reliability, rows), "reliability")
    if "counts" in kinds:
        yield Picture("counts", lambda: plot_data.class_counts(names, plot_data.manifest_of(first)), "counts")
    if "samples" in kinds:
        draw = partial(_with_images, first, results, partial(plot_data.samples, names))
        yield Picture("samples", draw, "samples")
    baseline = next((row for row in rows if row.name == BASELINE), None)
    for row in rows:
        yield from _pictures_of_row(kinds, row, None if row is baseline else baseline, results)


def _pictures_of_row(kinds: set[str], row: Row, reference: Row | None, results: Path) -> Iterator[Picture]:
    from ltbench.benchmarks.plots import accuracy as plot_accuracy
    from ltbench.benchmarks.plots import story as plot_story
    from ltbench.benchmarks.plots import training as plot_training

    first = row.records[0]
    stem = first.folder.parent.name
    drawn: dict[str, Callable[[], Figure | str]] = {}
    if "curves" in kinds:
        drawn["curves"] = partial(plot_training.training_curves, row, reference)
    if "confusion" in kinds:
        drawn["confusion"] = partial(plot_accuracy.confusion, row)
    if "story" in kinds and plot_story.has_story(first):
        drawn["story"] = partial(plot_story.story, first, row.name)
        draw = partial(plot_story.story_montage, first, row.name)
        drawn["story-images"] = partial(_with_images, first, results, draw)
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
    from ltbench.benchmarks.plots.images import find_store, manifest_of

    manifest = manifest_of(record)
    store = find_store(record, manifest, results)
    return store if isinstance(store, str) else draw(manifest, store)


def setting_folders(settings: Sequence[Setting]) -> list[str]:
    """Return a folder's name for each setting; digests are added where two would be the same."""
    names = [setting.rows[0].records[0].folder.parents[1].name for setting in settings]
    digests = [[setting.result.split_digest[:8], setting.result.protocol_digest[:8]] for setting in settings]
    return [
        name if names.count(name) == 1 else "-".join([name, *own]) for name, own in zip(names, digests, strict=True)
    ]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("figures"), description="Draw the pictures of a results folder, PNG and SVG.")
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
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.errors import UserError

    _check("figure", options.figure, (*FIGURES, "all"))
    kinds = FIGURES if "all" in options.figure else options.figure
    records = list(find_records(options.results))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run `ltbench run` first")
    settings = settings_of(records)
    known = {name for setting in settings for row in setting.rows for name in (row.name, row.result.method)}
    _check("method", options.method or (), sorted(known))
    wanted = known if options.method is None else set(options.method)
    drawn = 0
    for folder, setting in zip(setting_folders(settings), settings, strict=True):
        rows = [row for row in setting.rows if {row.name, row.result.method} & wanted]
        if not rows:
            continue
        shared = chosen_few(rows)
        if len(shared) < len(rows) and "per-class" in kinds:
            names = ", ".join(row.name for row in shared)
            print(f"{folder}: per-class shows {names}; choose others with --method", file=sys.stderr)
        drawn += _draw_setting(options.out / folder, pictures(kinds, rows, options.results, shared))
    if not drawn:
        names = ", ".join(kinds)
        raise UserError(
            f"none of the chosen figures ({names}) exists for these trials; choose others with --figure or --method "
            "(story, for example, is of trials of flex)"
        )
    return 0


def _check(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    from ltbench.registry import unknown

    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _draw_setting(folder: Path, wanted: Iterable[Picture]) -> int:
    """Draw pictures, print their paths; return how many there are."""
    from ltbench.benchmarks.plots.style import save

    drawn = 0
    for picture in wanted:
        figure = picture.draw()
        if isinstance(figure, str):
            print(f"{folder / picture.name}: {figure}", file=sys.stderr)
            continue
        drawn += 1
        for path in save(figure, folder / picture.name):
            print(path)
    return drawn


if __name__ == "__main__":
    script(__file__)
