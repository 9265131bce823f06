"""The pages of the boards, written while the site is built: tables and pictures from the published records."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from ltbench.benchmarks.analysis.standings import Panel
    from ltbench.benchmarks.publishing.board import Board

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
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.publishing.restoring import restored
    from ltbench.benchmarks.publishing.tables import STATUS, board_tables, leaderboards, missing_rows

    tables, pictures = board_tables(board), {}
    parts = ["---\nhide:\n  - toc\n---", f"# {board.title}", *board.about, STATUS]
    with restored(board) as folder:
        records = list(find_records(folder))
        for setting in board.settings:
            parts += [f"## {setting.name}", setting.about]
            shown = [table for name, table in tables if name == setting.name]
            parts += [*map(_sortable, shown), *missing_rows(setting, shown)]
            for panel in [panel for each in settings_of(setting.among(records)) for panel in each.panels()]:
                for name, title, figure in _figures(panel, folder):
                    file = f"{board.name}-{setting.name}-{len(panel.trials)}-{name}.svg"
                    pictures[file] = figure
                    parts.append(f"![{title}]({file})")
    changes = (board.folder / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n\n")[2]
    rows = [table.cells[0][1].text for table in leaderboards(table for _, table in tables)]
    parts += [_usage(board, rows[0] if rows else "NAME"), "## Changes", changes]
    return "\n\n".join(parts), pictures


def _figures(panel: Panel, folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield file name, text and SVG of the pictures of a panel: classes, cost, curves, and the story of flex."""
    from ltbench.benchmarks.plots import accuracy, cost, ranking, story, training
    from ltbench.benchmarks.plots.style import svg_of

    rows = {row.name: row for row in panel.rows}
    few = [rows[name] for name in dict.fromkeys([panel.rows[0].name, *_FEW]) if name in rows]
    drawn: list[tuple[str, str, Callable[[], Figure]]] = [
        ("ranking", "Accuracy of each method, with intervals", lambda: ranking.ranking(panel)),
        ("classes", "Accuracy of each class, with intervals", lambda: accuracy.per_class_accuracy(few)),
        ("cost", "Accuracy against cost", lambda: cost.accuracy_by_cost(panel.rows)),
    ]
    for row in few:
        reference = rows.get("ce") if row.name != "ce" else None
        title = f"Training curves of {row.name}"
        drawn.append(
            (f"curves-{row.result.method}", title, lambda row=row, ce=reference: training.training_curves(row, ce))
        )  # type: ignore[misc]
        if story.has_story(row.records[0]):
            first = row.records[0]
            title = f"What {row.name} chose in its first trial"
            drawn.append(
                (f"story-{row.result.method}", title, lambda first=first, name=row.name: story.story(first, name))
            )  # type: ignore[misc]
    for name, title, draw in drawn:
        yield name, title, svg_of(draw())


def _sortable(table: Any) -> str:
    """Return a table as HTML that a click on a header sorts, in a box of its own that scrolls."""
    from ltbench.benchmarks.analysis.rendering import render

    text = re.sub(r"^<h3>.*?</h3>\n", "", render([table], "html"))
    body, _, notes = text.partition("</table>")
    body = body.replace("<table>", '<table class="sortable">', 1)
    title = html.escape(table.title)
    return f'<p class="board-title">{title}</p>\n<div class="board-table">\n{body}</table>\n</div>\n{notes}'


def _usage(board: Board, row: str) -> str:
    from ltbench.benchmarks.publishing.tables import data_option

    name, again = board.name, f"--method {shlex.quote(row)} --trial 0{data_option(board)}"
    return f"""## Reproduce, extend, cite

```sh
python benchmarks/publish.py verify {name}   # every number again, from the logits
python benchmarks/publish.py reproduce {name} {again}   # one trial again: does it agree?
python benchmarks/publish.py restore {name} --out results   # a results folder in which all is done
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
