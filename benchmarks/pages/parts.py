"""What a setting's section of the report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.rendering import HEADINGS
from ltbench.benchmarks.pages.blocks import (
    Block,
    FoldedBlock,
    FoldedBlocks,
    Line,
    TableBlock,
    listing,
    picture_block,
    table_block,
)
from ltbench.benchmarks.plots.pictures import FIGURES, few_rows, pictures
from ltbench.errors import UserError, counted

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.record_files.description import DataDescription, SharedImages
    from ltbench.benchmarks.analysis.rendering import Table
    from ltbench.benchmarks.analysis.standings import Setting

_UNKNOWN = "not in the record"
_CAPTIONS = {
    "per-class": "Test accuracy of each class by its number of training images, largest class first.",
    "reliability": "How often a method is right when it is sure, on the test images of all trials. Hatched: the gap "
    "between accuracy and mean confidence; strips below: share of the images.",
    "counts": "Images of each class in each part of the split; the axis is logarithmic.",
    "samples": "Training images of each class, at equal distances in the order of the split's manifest.",
    "curves": "Validation accuracy and losses over the epochs of all stages; a star is the epoch that a trial reports.",
    "confusion": "Percent of the test images of each true class by predicted class, over all trials.",
    "story": "What the first trial went by at each query, the images that it took and those that it left.",
    "story-images": "Training images that the first trial began with, and some that it queried.",
}
_NOT_IN_SECTION = ("counts", "samples")  # pictures of the data


@dataclass(frozen=True)
class Part:
    """A headed part of a setting's section.

    Attributes
    ----------
    key : last piece of its id
    heading, blocks : what it shows
    """

    key: str
    heading: str
    blocks: Sequence[Block]


def short_name(data: DataDescription) -> str:
    """Return what a setting is called: data, ratio, split."""
    return f"{data.title}, ratio {data.ratio:g}, split {data.split}"


def setting_parts(setting: Setting, tables: Mapping[str, Sequence[Table]], results: Path) -> list[Part]:
    """Return the parts of a setting's section.

    Parameters
    ----------
    tables : of the setting by kind, of `HEADINGS`; a kind that is empty is left out
    results : folder of the results, in which images are looked for
    """
    rows, name = setting.rows, short_name(setting.data)
    of_data = [
        picture_block(picture, _CAPTIONS[picture.kind], name)
        for picture in pictures(_NOT_IN_SECTION, rows, results, rows)
    ]
    return [
        *(
            Part(kind, HEADINGS[kind], [replace(table_block(table), title=HEADINGS[kind]) for table in built])
            for kind, built in tables.items()
            if built
        ),
        Part("pictures", "Pictures", _pictures(setting, results)),
        Part("data", "Data", [_data(setting), _classes(setting), _overlap(setting.data), *of_data]),
        Part("protocol", "Protocol", _protocol(setting)),
        Part("software", "Code, libraries, devices", [_software(setting)]),
    ]


def _values(title: str, values: Mapping[str, str]) -> TableBlock:
    return listing(title, ("what", "value"), list(values.items()), classes="pairs")


# ---- data, protocol, software


def overlap_line(pair: str, shared: SharedImages, group: str = "lesion") -> str:
    """Return a line on what two parts of a split share; `pair` is like `train/test`, `group` like `patient`."""
    first, second = pair.split("/")
    lesions = f"{shared.lesion_images} of {shared.total} {second} images share their {group} with {first}"
    if shared.lesion_images is None:
        lesions = f"{group}s are not known"
    return f"Overlap of {first} and {second}: {counted(shared.images, 'image')}; {lesions}."


def _data(setting: Setting) -> TableBlock:
    data, record = setting.data, setting.rows[0].records[0]
    manifest = "/".join(record.path("split.csv").parts[-4 if data.varied_from else -3 :])
    title = f"{data.title} ({data.dataset})"
    return _values(
        "Data",
        {
            "data": f"{title}, variant {data.variant}" if data.variant else title,
            "licence": data.licence or _UNKNOWN,
            "cite": data.citation or _UNKNOWN,
            "split": f"{data.split}, ratio {data.ratio:g}",
            "its manifest": f"{manifest}, {'each trial has its own' if data.varied_from else 'beside each method'}",
            "its SHA-256": setting.result.split_digest,
            "notes": "; ".join(data.notes) or "none",
        },
    )


def _classes(setting: Setting) -> TableBlock:
    """Return the table of the images of each class: by the manifest, or by the record where that is missing."""
    data, notes = setting.data, []
    try:
        counts, sums = _counts_of_parts(setting)
        notes.append(f"Images in all: {sums}.")
    except UserError as error:
        counts = {"train": list(data.class_counts)}
        notes.append(f"Training images as the record has them; of the other parts nothing is known: {error}.")
    group_of = {label: name for name, members in data.groups.items() for label in members}
    rows = [
        [name, group_of.get(label, "n/a"), *(str(of_part[label]) for of_part in counts.values())]
        for label, name in enumerate(data.class_names)
    ]
    return listing("Images of each class", ["class", "group", *counts], rows, notes, level=4)


def _counts_of_parts(setting: Setting) -> tuple[dict[str, list[int]], str]:
    """Return the images of each class in each part by the manifest, and a line of their sums."""
    from ltbench.datasets.splits.longtail import PARTS

    manifest, classes = setting.rows[0].records[0].manifest(), len(setting.data.class_names)
    counts = {part: manifest.class_counts(part, classes).tolist() for part in PARTS}
    lesions = {part: len(set(manifest.lesions[manifest.parts == part])) for part in PARTS}
    sums = ", ".join(
        f"{part} {sum(counts[part])}"
        + f" of {lesions[part]} {setting.data.group_name}s" * (lesions[part] < sum(counts[part]))
        for part in PARTS
    )
    return counts, sums


def _overlap(data: DataDescription) -> TableBlock | Line:
    shared_group = f"images of the second whose {data.group_name} is in the first"
    headers = ("parts", "images in both", shared_group, "images of the second")
    rows = [
        [
            pair.replace("/", " and "),
            str(shared.images),
            "n/a" if shared.lesion_images is None else str(shared.lesion_images),
            str(shared.total),
        ]
        for pair, shared in data.overlap.items()
    ]
    if not rows:
        return Line(f"What the parts of the split share is {_UNKNOWN}.", "reason")
    return listing("Overlap between the parts", headers, rows, level=4, classes="plain")


def _protocol(setting: Setting) -> list[Block]:
    result = setting.result
    rows = [
        [row.name, ", ".join(f"{name}={value}" for name, value in _flat(row.result.hyperparameters)) or "none"]
        for row in setting.rows
    ]
    table = listing("Hyper-parameters", ["method", "hyper-parameters"], rows, classes="sortable wide")
    return [
        Line("Shared by all methods of this setting."),
        _values("Protocol", {**dict(_flat(result.protocol)), "its SHA-256": result.protocol_digest}),
        FoldedBlock("Hyper-parameters of each method", [table]),
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and texts of values, those of nested ones behind the name of what they are in."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _software(setting: Setting) -> TableBlock:
    """Return which code, libraries and devices the trials saw, and how many trials."""
    seen: dict[str, Counter[str]] = {}
    for result in (record.result for row in setting.rows for record in row.records):
        machine = {"device": result.device, "threads": str(result.threads)}
        for name, value in ({"ltbench": result.code_version} | dict(result.versions) | machine).items():
            seen.setdefault(name, Counter())[value] += 1
    rows = [[name, value, str(count)] for name, counter in seen.items() for value, count in sorted(counter.items())]
    return listing("Code, libraries, devices", ["what", "version", "trials"], rows, classes="plain")


# ---- pictures


def _pictures(setting: Setting, results: Path) -> list[Block]:
    """Return the pictures: class accuracies open, the others folded up."""
    rows, shared, about = setting.rows, few_rows(setting.rows), short_name(setting.data)
    few = f" Drawn: {', '.join(row.name for row in shared)}; the table has all." if len(shared) < len(rows) else ""
    kinds = [kind for kind in FIGURES if kind not in _NOT_IN_SECTION]
    blocks: list[Block] = []
    folded: dict[str, list[Block]] = {}
    for picture in pictures(kinds, rows, results, shared):
        if picture.kind == "per-class":
            blocks.append(picture_block(picture, _CAPTIONS[picture.kind] + few, about))
        else:
            name = picture.row.name if picture.row else f"All methods: {picture.kind}"
            folded.setdefault(name, []).append(picture_block(picture, _CAPTIONS[picture.kind], about))
    return [*blocks, FoldedBlocks([FoldedBlock(name, inside, gallery=True) for name, inside in folded.items()])]
