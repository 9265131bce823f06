"""One HTML page that holds all of a results folder: tables, pictures, data, protocol. It needs no other file.

    ltbench report --results results --out report.html

Its tables are the leaderboard's, sorted by a click on a header; without scripts only that is lost. The same records
give the same page to the byte. Text that stands in records is escaped, and the page's own policy lets a browser load
nothing and run no script but the page's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import itertools
import json
import os
import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.cli.command import Parser, guarded, invocation, script
from ltbench.benchmarks.pages.parts import HEADINGS, Part, overlap_line, setting_parts, short_name, table_html

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Record, Result
    from ltbench.benchmarks.analysis.standings import Setting

_READING = (
    "Numbers are mean ± standard deviation over the trials; bold is the best, ≈ marks a method whose difference to "
    "the best can be chance, n/a is what is undefined. The lines below a table say more."
)


def report(records: Sequence[Record], results: Path, *, published: bool = False) -> bytes:
    """Return the page of some records, UTF-8.

    Parameters
    ----------
    records : at least one
    results : folder of the results, in which images are looked for
    published : also set the paper's numbers beside these

    Raises
    ------
    UserError : predictions of a trial are missing, corrupt or contradict its result
    """
    from ltbench.benchmarks.analysis.standings import settings_of

    settings = settings_of(records)
    contents, sections = ['<li><a href="#all">All settings</a></li>'], [_all_settings(settings, published)]
    for number, (setting, tables) in enumerate(_with_tables(settings), 1):
        parts = setting_parts(setting, tables, results)
        contents.append(_contents(f"s{number}", setting.result, parts))
        sections.append(_section(f"s{number}", setting, tables["overview"][0], parts))
    titles = "; ".join(dict.fromkeys(setting.result.data.title for setting in settings))
    return _page(
        title=html.escape(f"Long-tailed classification: {titles}"),
        lead=_lead(records, settings),
        contents="\n".join(["<ul>", *contents, "</ul>"]),
        body="\n".join(sections),
    )


def _page(**pieces: str) -> bytes:
    """Return the page, `report.html` with its pieces, style and script in their places."""
    template, style, script = (
        (Path(__file__).parent / "pages" / f"report.{suffix}").read_text(encoding="utf-8")
        for suffix in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = string.Template(template).substitute(pieces, policy=policy, style=style, script=script)
    return page.encode(errors="xmlcharrefreplace")  # JSON can hold half a surrogate pair, UTF-8 can not


def _lead(records: Sequence[Record], settings: Sequence[Setting]) -> str:
    """Return what the page is made of; the digest tells which state of the folder, as a date would not."""
    numbers = {
        "trial": len(records),
        "method": len({record.result.method for record in records}),
        "setting": len(settings),
    }
    made = ", ".join(f"<b>{number} {what}{'s' * (number > 1)}</b>" for what, number in numbers.items())
    results = json.dumps([record.result.to_json() for record in records], sort_keys=True)
    digest = hashlib.sha256(results.encode()).hexdigest()[:12]
    made = f"Made by ltbench from the records of {made}; digest of the results: <code>{digest}</code>."
    return f"<p>{made}</p>\n<p>{html.escape(_READING)}</p>"


# ---- sections


def _all_settings(settings: Sequence[Setting], published: bool) -> str:
    from ltbench.benchmarks.analysis.published import beside
    from ltbench.benchmarks.analysis.tables import TABLES

    headers = ["data", "split", "protocol", "methods", "trials", "best method", "mean per-class accuracy"]
    about = "Only methods of one setting are compared. Of the best: mean over trials and 95 % interval, in percent."
    listed = Table("Settings", None, headers, [_setting_line(setting) for setting in settings], [about])
    numbers = itertools.count(1)
    linked = re.sub(
        r"(<th scope=row[^>]*>)(.*?)</th>",
        lambda found: f'{found[1]}<a href="#s{next(numbers)}">{found[2]}</a></th>',
        table_html(listed, classes="sortable wide"),
        flags=re.DOTALL,
    )
    tables = [linked, "<h3>Mean per-class accuracy by ratio</h3>"]
    tables += [table_html(table, level=4) for table in TABLES["ratios"](settings)]
    if published:
        tables.append("<h3>Beside the paper</h3>")
        found = [table_html(table, level=4, classes="sortable told") for table in beside(settings)]
        tables += found or ["<p class=reason>None of these rows is in the paper.</p>"]
    return "\n".join(['<section id="all">', "<h2>All settings</h2>", *tables, "</section>"])


def _setting_line(setting: Setting) -> list[Cell]:
    result, protocol, best = setting.result, setting.result.protocol, setting.rows[0]
    trials, estimate = [len(row.trials) for row in setting.rows], best.accuracy
    texts = [
        f"{result.data.title}, ratio {result.data.ratio:g}",
        f"{result.data.split} ({result.split_digest[:8]})",
        f"{protocol['backbone']}, {protocol['image_size']} px ({result.protocol_digest[:8]})",
        *(str(len(trials)), " to ".join(map(str, sorted({min(trials), max(trials)}))), best.name),
        f"{100 * estimate.value:.2f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]",
    ]
    return [Cell(text) for text in texts]


def _with_tables(settings: Sequence[Setting]) -> Iterator[tuple[Setting, dict[str, list[Table]]]]:
    """Yield each setting with its tables, as the leaderboard of all settings has them."""
    from ltbench.benchmarks.analysis.tables import TABLES

    built = {kind: iter(TABLES[kind](settings)) for kind in HEADINGS if kind != "ablation"}
    for setting in settings:
        sets = len(setting.by_trials())
        tables = {kind: list(itertools.islice(own, sets)) for kind, own in built.items()}
        yield setting, tables | {"ablation": TABLES["ablation"]([setting])}


def _contents(ident: str, result: Result, parts: Sequence[Part]) -> str:
    about = f"{result.data.title}; split {result.data.split}; protocol {result.protocol_digest[:8]}"
    links = "\n".join(f'<li><a href="#{ident}-{part.key}">{html.escape(part.heading)}</a></li>' for part in parts)
    return (
        f'<li><a href="#{ident}">Ratio {result.data.ratio:g}</a> <small>{html.escape(about)}</small>\n'
        f'<ul class="parts">\n{links}\n</ul></li>'
    )


def _section(ident: str, setting: Setting, overview: Table, parts: Sequence[Part]) -> str:
    told = "\n".join(f'<h3 id="{ident}-{part.key}">{html.escape(part.heading)}</h3>\n{part.body}' for part in parts)
    name = html.escape(short_name(setting.result))
    return f'<section id="{ident}">\n<h2>{name}</h2>\n{_facts(setting, overview)}\n{told}\n</section>'


def _facts(setting: Setting, overview: Table) -> str:
    """Return in a few lines what was compared and found, and what speaks against it."""
    result, protocol, frame = setting.result, setting.result.protocol, overview.frame
    counts, trials = result.data.class_counts, len(setting.by_trials()[0][0].trials)
    network = f"{protocol['backbone']}, {protocol['image_size']} px, at most {protocol['epochs']} epochs"
    data = f"{len(counts)} classes of {max(counts)} to {min(counts)} training images; {network}."
    best, ties = frame.iloc[0], ", ".join(frame.loc[frame["tie"].astype(bool), "method"])
    found = (
        f"Best of {len(frame)}, n = {trials}: {best['method']}, {100 * best['mean_class_accuracy']:.2f} % mean "
        f"per-class accuracy. Not told apart from it: {ties or 'none'}."
    )
    shared = {pair: own for pair, own in result.data.overlap.items() if own.images or own.lesion_images}
    warnings = [*result.data.notes, *(overlap_line(pair, own) for pair, own in shared.items())]
    lines = [f"<p>{html.escape(line)}</p>" for line in (data, found)]
    return "\n".join([*lines, *(f'<p class="warning">{html.escape(line)}</p>' for line in warnings)])


# ---- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("report"), description="Write one HTML page with all of a results folder.")
    parsed.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parsed.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the results folder")
    parsed.add_argument("--published", action="store_true", help="also set the paper's numbers beside these")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, print its path; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.errors import UserError
    from ltbench.files import write_bytes

    out = options.out or options.results / "report.html"
    records = list(find_records(options.results))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run `ltbench run` first")
    _check_writable(out)
    write_bytes(out, report(records, options.results, published=options.published))
    print(out)
    return 0


def _check_writable(out: Path) -> None:
    """Refuse at once what would be refused after minutes of drawing."""
    from ltbench.errors import UserError

    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file")
    nearest = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {out}: {nearest} is no folder that is writable; give another --out")


if __name__ == "__main__":
    script(__file__)
