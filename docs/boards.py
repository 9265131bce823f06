"""The pages of the boards, written while the site is built: tables and pictures from the published records."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from ltbench.benchmarks.analysis.rows import Row
    from ltbench.benchmarks.analysis.standings import Panel
    from ltbench.benchmarks.publishing.board import Board
    from ltbench.benchmarks.publishing.tables import Section

ROOT = Path(__file__).parents[1]
_FEW = ("ce", "rs", "flex")
_MARK = "<!-- boards -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the boards in the navigation, and sort their tables by the script of the report."""
    for entry in config.nav or []:
        for pages in entry.values():
            if isinstance(pages, list) and "boards/index.md" in pages:
                pages += [{board.name: f"boards/{board.name}.md"} for board in _boards()]
    config.extra_javascript.append("boards/sort.js")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the boards with their pictures."""
    from mkdocs.structure.files import File

    script = (ROOT / "benchmarks" / "pages" / "report.js").read_text(encoding="utf-8")
    files.append(File.generated(config, "boards/sort.js", content=script))
    for board in _boards():
        page, pictures = board_page(board)
        files.append(File.generated(config, f"boards/{board.name}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"boards/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """List the boards where a page asks for it."""
    return markdown.replace(_MARK, _index()) if _MARK in markdown else markdown


def board_page(board: Board) -> tuple[str, dict[str, bytes]]:
    """Return the page of a board, and its pictures by the names of their files."""
    from ltbench.benchmarks.publishing.tables import head, sections

    every = sections(board)
    pictures: dict[str, bytes] = {}
    parts = ["---\nhide:\n  - toc\n---", *head(board)]
    for section, drawn in zip(every, _pictures(board), strict=True):
        parts += [part if isinstance(part, str) else _sortable(part) for part in section.parts]
        parts += [f"![{text}]({file})" for file, text, _ in drawn]
        pictures |= {file: picture for file, _, picture in drawn}
    changes = (board.folder / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n\n")[2]
    parts += [_usage(board, every), "## Changes", changes]
    return "\n\n".join(parts), pictures


def _pictures(board: Board) -> list[list[tuple[str, str, bytes]]]:
    """Return file name, text and SVG of the pictures of each setting, panel by panel."""
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.publishing.restoring import restored

    found: list[list[tuple[str, str, bytes]]] = []
    number = 0  # of the panel on the page: settings may have panels of as many trials, or names that look alike
    with restored(board) as folder:
        records = list(find_records(folder))
        for setting in board.settings:
            drawn = []
            for panel in [panel for each in settings_of(setting.among(records)) for panel in each.panels()]:
                number += 1
                place = re.sub(r"[^\w.-]+", "-", f"{board.name}-{setting.name}-{number}")
                drawn += [(f"{place}-{name}.svg", text, picture) for name, text, picture in _figures(panel)]
            found.append(drawn)
    return found


def _figures(panel: Panel) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, text and SVG of the pictures of a panel: classes, cost, curves, and the story of flex."""
    from ltbench.benchmarks.plots import accuracy, cost, ranking
    from ltbench.benchmarks.plots.style import svg_of

    rows = {row.name: row for row in panel.rows}
    few = [rows[name] for name in dict.fromkeys([panel.rows[0].name, *_FEW]) if name in rows]
    trials = f"trials {', '.join(map(str, panel.trials))}"
    drawn: list[tuple[str, str, Callable[[], Figure]]] = [
        ("ranking", "Accuracy of each method, with intervals", lambda: ranking.ranking(panel)),
        ("classes", "Accuracy of each class, with intervals", lambda: accuracy.per_class_accuracy(few)),
        ("cost", "Accuracy against cost", lambda: cost.accuracy_by_cost(panel.rows)),
    ]
    for name, text, draw in drawn:
        yield name, f"{text}, {trials}", svg_of(draw())
    for row in few:
        yield from _figures_of(row, rows.get("ce") if row.name != "ce" else None)


def _figures_of(row: Row, reference: Row | None) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, text and SVG of the pictures of a row; the folder names it, which no other row of the panel has."""
    from ltbench.benchmarks.plots import story, training
    from ltbench.benchmarks.plots.style import svg_of

    first = row.records[0]
    folder = first.folder.parent.name
    yield f"curves-{folder}", f"Training curves of {row.name}", svg_of(training.training_curves(row, reference))
    if story.has_story(first):
        text = f"What {row.name} chose in its first trial"
        yield f"story-{folder}", text, svg_of(story.story(first, row.name))


def _sortable(table: Any) -> str:
    """Return a table as HTML that a click on a header sorts, in a box of its own that scrolls."""
    from ltbench.benchmarks.analysis.rendering import render

    text = re.sub(r"^<h3>.*?</h3>\n", "", render([table], "html"))
    body, _, notes = text.partition("</table>")
    body = body.replace("<table>", '<table class="sortable">', 1)
    title = html.escape(table.title)
    return f'<p class="board-title">{title}</p>\n<div class="board-table">\n{body}</table>\n</div>\n{notes}'


def _usage(board: Board, every: Sequence[Section]) -> str:
    from ltbench.benchmarks.publishing.tables import reproduce_options

    name, options = board.name, reproduce_options(board, every)
    again = {f"reproduce {name} {options}": "one trial again: does it agree?"} if options else {}
    restore = {f"restore {name} --out results": "a results folder in which all is done"}
    commands = {f"verify {name}": "every metric again, from the logits", **again, **restore}
    lines = [f"python benchmarks/publish.py {command}   # {what}" for command, what in commands.items()]
    listed = "\n".join(lines)
    return f"""## Reproduce, extend, cite

```sh
{listed}
```

A method of your own, `mine.py`, is trained into the restored folder and shown among the rows:

```sh
python benchmarks/run.py {_options(board)} --plugin mine.py --method mine --out results
python benchmarks/leaderboard.py --results results
python benchmarks/publish.py add results --board {name} --method mine --plugin mine.py
```

Cite the repository by the commit whose board you use, and the papers of its methods and data.
"""


def _options(board: Board) -> str:
    """Return the options of `run.py` that a board's main setting needs."""
    from ltbench.benchmarks.publishing.tables import data_option

    request = board.settings[0].request
    names = ("dataset", "preset", "split", "per_lesion", "n_max", "val_per_class", "test_per_class")
    given = {name: request[name] for name in names if request.get(name) not in (None, "all")}
    given |= _changes(request["preset"], request.get("protocol") or {})
    words = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    words += ["--allow-missing"] * bool(request.get("allow_missing"))
    words.append(f"--ratio {' '.join(f'{ratio:g}' for ratio in request['ratios'])}")
    return " ".join(words) + data_option(board)


def _changes(preset: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a protocol, as a request holds them, that are not as in its preset; precision always is."""
    from ltbench.benchmarks.training.protocol import PRESETS

    usual = asdict(PRESETS[preset])
    return {name: value for name, value in fields.items() if name in usual and value != usual[name]}


def _index() -> str:
    from ltbench.benchmarks.publishing.tables import average_ranks

    lines, boards = ["| board | what | methods of the main table | trials there |", "|---|---|---|---|"], _boards()
    for board in boards:
        main = board.settings[0]
        trials = main.among(board.records)
        rows = {record.folder.parent for record in trials}
        of = max(len(main.expected), len(rows))
        counts = f"{len(rows)} of {of} | {len(trials)} of {of * main.trials}"
        lines.append(f"| [{board.name}]({board.name}.md) | {board.title} | {counts} |")
    return "\n\n".join(["\n".join(lines), *map(_sortable, average_ranks(boards))])


def _boards() -> Sequence[Board]:
    from ltbench.benchmarks.publishing.board import FOLDER, boards_in, read_board

    return [read_board(name) for name in boards_in(FOLDER)]
