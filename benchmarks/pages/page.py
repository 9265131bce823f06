"""The report of a results folder as one HTML page that needs no other file.

Its tables are the leaderboard's, sorted by a click on a header; without scripts only that is lost. The same records
give the same page to the byte. Text that stands in records is escaped, and the page's own policy lets a browser load
nothing and run no script but the page's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.analysis.rendering import HEADINGS
from ltbench.benchmarks.pages.blocks import Line, TableBlock, listing, table_block
from ltbench.benchmarks.pages.parts import Part, overlap_line, setting_parts, short_name
from ltbench.errors import at_most

if TYPE_CHECKING:
    import pandas as pd

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.analysis.rendering import Table
    from ltbench.benchmarks.analysis.standings import Setting


@dataclass(frozen=True)
class Section:
    """A setting on the page.

    Attributes
    ----------
    key : its id
    ratio, about : its lines in the contents
    name : its heading
    facts : what was compared and found, and what speaks against it
    parts : the rest
    """

    key: str
    ratio: str
    about: str
    name: str
    facts: Sequence[Line]
    parts: Sequence[Part]


def report(records: Sequence[Record], results: Path, *, presets: Mapping[str, Any] | None = None) -> bytes:
    """Return the page of some records, UTF-8.

    Parameters
    ----------
    records : at least one
    results : folder of the results, in which images are looked for
    presets : protocols by name, to set the paper's numbers beside these; None: without them

    Raises
    ------
    UserError : predictions of a trial are missing, corrupt or contradict its result
    """
    from ltbench.benchmarks.analysis.published import beside
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.analysis.tables import tables_of

    settings = settings_of(records)
    keys = [f"s{number}" for number in range(1, len(settings) + 1)]
    titles = "; ".join(dict.fromkeys(setting.data.title for setting in settings))
    return _rendered(
        title=f"Long-tailed classification: {titles}",
        numbers={
            "trial": len(records),
            "method": len({record.result.method for record in records}),
            "setting": len(settings),
        },
        digest=_digest(records),
        listed=_listed(settings, keys),
        ratios=[table_block(table, level=4) for table in tables_of("ratios", settings)],
        ranks=[
            table_block(table, level=4)
            for table in tables_of("ranks", settings)
            if table.frame["settings"].max() > 1  # of one, its leaderboard has them
        ],
        published=None
        if presets is None
        else [table_block(table, level=4, classes="sortable plain-bold") for table in beside(settings, presets)],
        sections=[_section(key, setting, results) for key, setting in zip(keys, settings, strict=True)],
    )


def _rendered(**values: Any) -> bytes:
    """Return the page: the template with its values, style and script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    style, script = ((folder / f"report.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(values, policy=policy, style=style, script=script)
    return f"{page}\n".encode(errors="xmlcharrefreplace")  # JSON can hold half a surrogate pair, UTF-8 can not


def _digest(records: Sequence[Record]) -> str:
    """Return which state of the folder the page shows, as a date would not."""
    from ltbench.files import json_digest

    return json_digest([record.result.to_json() for record in records])[:12]


def _listed(settings: Sequence[Setting], keys: Sequence[str]) -> TableBlock:
    """Return the table of all settings, each of which leads to its section."""
    headers = ["data", "split", "protocol", "methods", "trials", "best method", "mean per-class accuracy"]
    about = (
        "Only methods of one setting that have the same trials are compared. Of the best among those that have the "
        "most: mean over trials and 95 % interval, in percent."
    )
    rows = [_setting_line(setting) for setting in settings]
    return listing("Settings", headers, rows, [about], classes="sortable wide", links=[f"#{key}" for key in keys])


def _setting_line(setting: Setting) -> list[str]:
    from ltbench.benchmarks.analysis.cells import range_text

    data, result, best = setting.data, setting.result, setting.panels()[0].rows[0]
    trials, estimate = [len(row.trials) for row in setting.rows], best.accuracy
    return [
        f"{data.title}, ratio {data.ratio:g}",
        f"{data.split} ({result.split_digest[:8]})",
        f"{result.protocol['backbone']}, {result.protocol['image_size']} px ({result.protocol_digest[:8]})",
        *(str(len(trials)), " to ".join(map(str, sorted({min(trials), max(trials)})))),
        f"{best.name}, {best.extent}",
        f"{100 * estimate.value:.2f} {range_text(estimate.low, estimate.high)}",
    ]


def _section(key: str, setting: Setting, results: Path) -> Section:
    from ltbench.benchmarks.analysis.tables import setting_tables

    data = setting.data
    tables = {kind: setting_tables(kind, setting) for kind in HEADINGS}
    return Section(
        key=key,
        ratio=f"{data.ratio:g}",
        about=f"{data.title}; split {data.split}; protocol {setting.result.protocol_digest[:8]}",
        name=short_name(data),
        facts=_facts(setting, tables["overview"][0]),
        parts=setting_parts(setting, tables, results),
    )


def _facts(setting: Setting, overview: Table) -> list[Line]:
    """Return in a few lines what was compared and found, and what speaks against it."""
    data, protocol, frame = setting.data, setting.result.protocol, overview.frame
    network = f"{protocol['backbone']}, {protocol['image_size']} px, {at_most(protocol['epochs'], 'epoch')}"
    counts = data.class_counts
    compared = f"{len(counts)} classes of {max(counts)} to {min(counts)} training images; {network}."
    best, extent = frame.iloc[0], setting.panels()[0].rows[0].extent
    found = (
        f"Best of {len(frame)}, {extent}: {best['method']}, {100 * best['mean_class_accuracy']:.2f} % mean "
        f"per-class accuracy. {_not_worse(frame.iloc[1:])}"
    )
    shared = {pair: own for pair, own in data.overlap.items() if own.images or own.lesion_images}
    warnings = [*data.notes, *(overlap_line(pair, own, data.group_name) for pair, own in shared.items())]
    return [Line(compared), Line(found), *(Line(warning, "warning") for warning in warnings)]


def _not_worse(others: pd.DataFrame) -> str:
    """Return which rows but the best one are not shown to be worse than it."""
    from ltbench.benchmarks.analysis.statistics.comparisons import LEVEL

    if len(others) and others["p_best"].isna().all():
        return "Nothing is tested against it."
    left = others.loc[~(others["p_best"] < LEVEL), "method"]
    return f"Not shown to be worse: {', '.join(left) or 'none'}."
