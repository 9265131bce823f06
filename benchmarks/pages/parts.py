"""Parts of the report: a table or a picture as HTML, and what a setting's section is made of."""

from __future__ import annotations

import base64
import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.rendering import Cell, Table, render
from ltbench.benchmarks.figures import FIGURES, Picture, chosen_few, pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Result, SharedImages
    from ltbench.benchmarks.analysis.standings import Setting

LARGEST_SVG = 300_000
"""Bytes above which a picture is a PNG instead."""

HEADINGS = {
    "overview": "Leaderboard",
    "groups": "Head, medium and tail",
    "per-class": "Accuracy of each class",
    "metrics": "All metrics",
    "cost": "Cost",
    "ablation": "Ablation",
}
"""Kinds of table that a setting has, with their headings."""

_PNG_DPI = 170
_CSS_DPI = 96
_UNKNOWN = "not in the record"
_CAPTIONS = {
    "per-class": "Test accuracy of each class by its number of training images, largest class first.",
    "reliability": "How often a method is right when it is sure, on the test images of all trials. Hatched: the gap "
    "between accuracy and mean confidence; strips below: share of the images.",
    "counts": "Images of each class in each part of the split; the axis is logarithmic.",
    "samples": "Training images of each class, at equal distances in the order of the split's manifest.",
    "curves": "Validation accuracy and losses over the epochs of all stages; a star is the epoch that a trial reports.",
    "confusion": "Test images of each true class by predicted class, over all trials.",
    "story": "What the first trial went by at each query, the images that it took and those that it left.",
    "story-images": "Training images that the first trial began with, and some that it queried.",
}
_ROW_HEADERS = {
    "first": re.compile(r"(<tr>)<td([^>]*)>(.*?)</td>", re.DOTALL),
    "second": re.compile(r"(<tr><td[^>]*>[^<]*</td>)<td([^>]*)>(.*?)</td>", re.DOTALL),
}
_TIE = re.compile(r" ≈ *</td>")


@dataclass(frozen=True)
class Part:
    """A headed part of a setting's section: last piece of its id, heading, HTML."""

    key: str
    heading: str
    body: str


def short_name(result: Result) -> str:
    """Return what a setting is called: data, ratio, split."""
    return f"{result.data.title}, ratio {result.data.ratio:g}, split {result.data.split}"


def table_html(table: Table, *, level: int = 0, classes: str = "sortable") -> str:
    """Return a table as HTML that scrolls sideways in a box of its own.

    What names a row (the first column; the second behind a rank) is its header.

    Parameters
    ----------
    level : of its heading; 0: without
    classes : of the table element
    """
    named = "second" if table.headers[0] == "rank" else "first"
    # A tag in the text can only be one of the table's own: what cells hold is escaped.
    title = html.escape(" ".join(table.title.split()))
    _, _, text = render([replace(table, title="")], "html").partition("\n")
    text = _ROW_HEADERS[named].sub(r"\1<th scope=row\2>\3</th>", text)
    heading = f"<h{level}>{title}</h{level}>\n" if level else ""
    text, ties = _TIE.subn(r" <i>≈</i></td>", text)
    classes = f"{named} {classes}" + " ties" * bool(ties)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{title}">'
    text = text.replace("<table>", f'{box}<table class="{classes}">').replace("</table>", "</table></div>")
    return heading + text.replace("<th>", "<th scope=col>").replace("<th style", "<th scope=col style")


def _pairs(title: str, values: Mapping[str, str]) -> str:
    rows = [[Cell(key), Cell(value)] for key, value in values.items()]
    return table_html(Table(title, None, ("what", "value"), rows), classes="pairs")


def setting_parts(setting: Setting, tables: Mapping[str, Sequence[Table]], results: Path) -> list[Part]:
    """Return the parts of a setting's section.

    Parameters
    ----------
    tables : of the setting by kind, of `HEADINGS`; a kind that is empty is left out
    results : folder of the results, in which images are looked for
    """
    told = {
        kind: "\n".join(table_html(replace(table, title=HEADINGS[kind])) for table in own)
        for kind, own in tables.items()
    }
    rows = setting.rows
    shown = [_figure(picture, setting) for picture in pictures(("counts", "samples"), rows, results, rows)]
    return [
        *(Part(kind, HEADINGS[kind], text) for kind, text in told.items() if text),
        Part("pictures", "Pictures", _pictures(setting, results)),
        Part("data", "Data", "\n".join([_data(setting), _classes(setting), _overlap(setting.result), *shown])),
        Part("protocol", "Protocol", _protocol(setting)),
        Part("software", "Code, libraries, devices", _software(setting)),
    ]


# ---- data, protocol, software


def overlap_line(pair: str, shared: SharedImages) -> str:
    """Return a line on what two parts of a split share; `pair` is like `train/test`."""
    first, second = pair.split("/")
    told = f"{shared.lesion_images} of {shared.total} {second} images show a lesion that {first} shows too"
    if shared.lesion_images is None:
        told = "lesions are not known"
    return f"Overlap of {first} and {second}: {shared.images} images; {told}."


def _data(setting: Setting) -> str:
    result, folder = setting.result, setting.rows[0].records[0].folder
    title = f"{result.data.title} ({result.data.dataset})"
    return _pairs(
        "Data",
        {
            "data": f"{title}, variant {result.data.variant}" if result.data.variant else title,
            "licence": result.data.licence or _UNKNOWN,
            "cite": result.data.citation or _UNKNOWN,
            "split": f"{result.data.split}, ratio {result.data.ratio:g}",
            "its manifest": f"{'/'.join(folder.parts[-3:-1])}/split.csv, the same beside each method",
            "its SHA-256": result.split_digest,
            "notes": "; ".join(result.data.notes) or "none",
        },
    )


def _classes(setting: Setting) -> str:
    """Return the table of the images of each class: by the manifest, or by the record where that is missing."""
    from ltbench.benchmarks.plots.images import manifest_of
    from ltbench.datasets.splits.longtail import PARTS
    from ltbench.errors import UserError

    result, notes = setting.result, []
    names = result.data.class_names
    try:
        manifest = manifest_of(setting.rows[0].records[0])
        counts = {part: manifest.class_counts(part, len(names)).tolist() for part in PARTS}
        lesions = {part: len(set(manifest.lesions[manifest.parts == part])) for part in PARTS}
        sums = ", ".join(
            f"{part} {sum(counts[part])}" + f" of {lesions[part]} lesions" * (lesions[part] < sum(counts[part]))
            for part in PARTS
        )
        notes.append(f"Images in all: {sums}.")
    except UserError as error:
        counts = {"train": result.data.class_counts}
        notes.append(f"Training images as the record has them; of the other parts nothing is known: {error}.")
    group_of = {label: name for name, members in result.data.groups.items() for label in members}
    rows = [
        [Cell(name), Cell(group_of.get(label, "n/a")), *(Cell(str(own[label])) for own in counts.values())]
        for label, name in enumerate(names)
    ]
    return table_html(Table("Images of each class", None, ["class", "group", *counts], rows, notes), level=4)


def _known(number: int | None) -> str:
    return "n/a" if number is None else str(number)


def _overlap(result: Result) -> str:
    headers = {
        "images": "images in both",
        "lesion_images": "images of the second with a lesion of the first",
        "total": "images of the second",
    }
    rows = [
        [Cell(pair.replace("/", " and ")), *(Cell(_known(getattr(shared, name))) for name in headers)]
        for pair, shared in result.data.overlap.items()
    ]
    if not rows:
        return f"<p class=reason>What the parts of the split share is {_UNKNOWN}.</p>"
    table = Table("Overlap between the parts", None, ["parts", *headers.values()], rows)
    return table_html(table, level=4, classes="plain")


def _protocol(setting: Setting) -> str:
    result = setting.result
    shared = _pairs("Protocol", {**dict(_flat(result.protocol)), "its SHA-256": result.protocol_digest})
    rows = [
        [Cell(row.name), Cell(", ".join(f"{name}={value}" for name, value in own) or "none")]
        for row, own in ((row, _flat(row.result.hyperparameters)) for row in setting.rows)
    ]
    own = table_html(Table("Hyper-parameters", None, ["method", "hyper-parameters"], rows), classes="wide")
    return (
        f"<p>Shared by all methods of this setting.</p>\n{shared}\n<details>\n"
        f"<summary>Hyper-parameters of each method</summary>\n{own}\n</details>"
    )


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


def _software(setting: Setting) -> str:
    """Return which code, libraries and devices the trials saw, and how many trials."""
    seen: dict[str, Counter[str]] = {}
    for result in (record.result for row in setting.rows for record in row.records):
        code = {"ltbench": result.code_version}
        machine = {"device": result.device, "threads": str(result.threads)}
        for name, value in (code | dict(result.versions) | machine).items():
            seen.setdefault(name, Counter())[str(value)] += 1
    rows = [
        [Cell(name), Cell(value), Cell(str(count))]
        for name, own in seen.items()
        for value, count in sorted(own.items())
    ]
    return table_html(Table("Code, libraries, devices", None, ["what", "version", "trials"], rows), classes="plain")


# ---- pictures


def _pictures(setting: Setting, results: Path) -> str:
    """Return the pictures: class accuracies open, the others folded up."""
    rows, shared = setting.rows, chosen_few(setting.rows)
    few = f" Drawn: {', '.join(row.name for row in shared)}; the table has all." if len(shared) < len(rows) else ""
    kinds = [kind for kind in FIGURES if kind not in ("counts", "samples")]
    lines: list[str] = []
    folded: dict[str, list[str]] = {}
    for picture in pictures(kinds, rows, results, shared):
        if picture.kind == "per-class":
            lines.append(_figure(picture, setting, few))
        else:
            name = picture.row.name if picture.row else f"All methods: {picture.kind}"
            folded.setdefault(name, []).append(_figure(picture, setting))
    details = [
        f'<details>\n<summary>{html.escape(name)}</summary>\n<div class="gallery">\n{own}\n</div>\n</details>'
        for name, own in ((name, "\n".join(figures)) for name, figures in folded.items())
    ]
    return "\n".join([*lines, '<div class="foldable">', *details, "</div>"])


def _figure(picture: Picture, setting: Setting, more: str = "") -> str:
    """Return a picture with its caption; instead of one that cannot be drawn, the line that says why."""
    from ltbench.errors import UserError

    caption = _CAPTIONS[picture.kind] + more
    try:
        figure = picture.draw()
    except UserError as error:
        figure = str(error)
    if isinstance(figure, str):
        return f"<p class=reason>{html.escape(f'Not drawn ({picture.kind}): {figure}.')}</p>"
    name = f"{picture.row.name}: " if picture.row else ""
    width, height = (round(_CSS_DPI * side) for side in figure.get_size_inches())
    alt = html.escape(f"{name}{caption} {short_name(setting.result)}.")
    image = f'<img alt="{alt}" width="{width}" height="{height}" src="{_data_uri(figure)}">'
    return f"<figure>\n{image}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"


def _data_uri(figure: Figure) -> str:
    """Return a figure as an address that holds it.

    As an image of its own, not as part of the page: names of its parts cannot clash with those of other figures.
    """
    from ltbench.benchmarks.plots.style import png_of, svg_of

    data, kind = svg_of(figure), "svg+xml"
    if len(data) > LARGEST_SVG:
        data, kind = png_of(figure, _PNG_DPI), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
