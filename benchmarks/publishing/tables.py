"""The tables of a board, as Markdown, CSV and HTML: made from its records, with the status of each row."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ltbench.benchmarks.analysis.published import read_published
from ltbench.benchmarks.analysis.ranks import ranks
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import HEADINGS, Cell, Table, document, render
from ltbench.benchmarks.analysis.standings import Panel, Setting, settings_of
from ltbench.benchmarks.analysis.tables import overview, setting_tables
from ltbench.benchmarks.publishing.board import Board, BoardSetting, rows_in
from ltbench.benchmarks.publishing.reproductions import Reproduction, reproductions
from ltbench.benchmarks.publishing.restoring import restored
from ltbench.datasets import registry as datasets
from ltbench.errors import counted

STATUS = (
    "Status: recomputed, the published logits give these numbers (`publish verify` checks it); reproduced, trained "
    "again by another run and found to agree; reported, printed by somebody and not checked, never ranked."
)
_LEADERBOARD = "overview"
_SHOWN = {
    *("rank", "method", "mean per-class accuracy", "95 % interval", "Δ ce", "95 % of Δ"),
    *("head", "medium", "tail", "val − test"),
}


def generated(board: Board) -> dict[str, str]:
    """Return the text of every file that is made from the records, by its name."""
    tables = board_tables(board)
    shown = {setting.name: [table for name, table in tables if name == setting.name] for setting in board.settings}
    every = [table for _, table in tables]
    return {
        "board.md": _markdown(board, shown),
        "board.csv": render(_one_line_a_row(every), "csv") + "\n",
        "board.html": document(render(every, "html"), "html", board.name),
    }


def board_tables(board: Board) -> list[tuple[str, Table]]:
    """Return the tables of a board, each with the name of its setting: leaderboards, and what else a setting shows.

    A setting's rows of equal trials share tables.
    """
    found = []
    with restored(board) as folder:
        records = list(find_records(folder))
        for setting in board.settings:
            for each in settings_of(setting.among(records)):
                for panel in each.panels():
                    leaderboard = _leaderboard(board, setting, panel, records_of(panel, folder))
                    tables = [leaderboard, *_others(setting, replace(each, rows=panel.rows))]
                    found += [(setting.name, table) for table in tables]
    return found


def average_ranks(boards: Iterable[Board]) -> list[Table]:
    """Return the average rank of rows over the main settings of boards, whole rows alone."""
    with ExitStack() as stack:
        whole = []
        for board in boards:
            main = board.settings[0]
            records = main.among(find_records(stack.enter_context(restored(board))))
            rows = [row for row in rows_in(records) if len(row) == main.trials]
            whole += settings_of([record for row in rows for record in row])
        return ranks(whole) if len(whole) > 1 else []


def data_option(board: Board) -> str:
    """Return the option that names the folder of a board's images, after a blank; empty where it needs none."""
    return " --data-root DIR" if datasets.get(board.settings[0].dataset).needs_folder else ""


def leaderboards(tables: Iterable[Table]) -> list[Table]:
    """Return those of a board's tables that rank rows."""
    return [table for table in tables if table.kind == _LEADERBOARD]


def _others(setting: BoardSetting, of_panel: Setting) -> Iterator[Table]:
    """Yield the further tables of a setting, each with its heading as title."""
    for kind in setting.tables:
        for table in setting_tables(kind, of_panel):
            trials = counted(len(of_panel.rows[0].trials), "trial")
            yield replace(table, title=f"{HEADINGS[kind]}, {trials}", subject=setting.name)


def _one_line_a_row(tables: Sequence[Table]) -> list[Table]:
    """Return leaderboards with the numbers of the further tables of the same rows beside their own."""
    found: list[Table] = []
    for table in tables:
        if table.kind == _LEADERBOARD:
            found.append(table)
        elif list(table.frame["method"]) == list(found[-1].frame["method"]):
            frame = found[-1].frame
            further = table.frame[[name for name in table.frame.columns if name not in frame.columns]]
            found[-1] = replace(found[-1], frame=frame.join(further))
    return found


def records_of(panel: Panel, folder: Path) -> dict[str, str]:
    """Return the folder of each row, from the records' folder, by the row's name."""
    return {row.name: row.records[0].folder.parent.relative_to(folder).as_posix() for row in panel.rows}


def _leaderboard(board: Board, setting: BoardSetting, panel: Panel, folders: Mapping[str, str]) -> Table:
    """Return the leaderboard of a panel with the columns that a board shows, trials and status."""
    whole, again = overview(panel), reproductions(board)
    columns = [number for number, header in enumerate(whole.headers) if header in _SHOWN]
    status = [_status(again, folders[row.name], setting.trials) for row in panel.rows]
    trials = f"{len(panel.trials)}/{setting.trials}"
    cells = [
        [*(line[number] for number in columns), Cell(trials), Cell(text)]
        for line, text in zip(whole.cells, status, strict=True)
    ]
    frame = whole.frame.assign(setting=setting.name, trials_of=setting.trials, status=status)
    headers = [*(whole.headers[number] for number in columns), "trials", "status"]
    named = replace(whole, kind=_LEADERBOARD, subject=setting.name)
    notes = [_devices(panel), *panel.notes, *whole.notes]
    return replace(named, frame=frame, headers=headers, cells=cells, notes=notes)


def _devices(panel: Panel) -> str:
    """Return on which devices the trials were trained; of all but the most frequent, whose trials those are."""
    rows: dict[str, list[str]] = defaultdict(list)
    for row in panel.rows:
        for record in row.records:
            rows[record.result.device].append(row.name)
    first, *others = sorted(rows, key=lambda device: (-len(rows[device]), device))
    parts = [f"{first}: {counted(len(rows[first]), 'trial')}"]
    for device in others:
        whose = ", ".join(dict.fromkeys(rows[device]))
        parts.append(f"{device}: {counted(len(rows[device]), 'trial')} of {whose}")
    return f"Trained on {'; '.join(parts)}."


def _status(again: Sequence[Reproduction], row: str, trials: int) -> str:
    agreeing, others = ({each.trial for each in again if each.row == row and each.agrees is so} for so in (True, False))
    status = f"reproduced ({len(agreeing)}/{trials})" if agreeing else "recomputed"
    return f"{status}, NOT reproduced ({len(others)}/{trials})" if others else status


def _markdown(board: Board, shown: Mapping[str, Sequence[Table]]) -> str:
    lines = [f"# {board.title}", *board.about]
    for setting in board.settings:
        lines += [f"## {setting.name}", setting.about]
        tables = shown[setting.name]
        lines += [render([table], "github") for table in tables] or ["No trial is published yet."]
        lines += missing_rows(setting, tables)
        lines += [render([table], "github") for table in _reported(setting)]
    rows = [table.cells[0][1].text for table in leaderboards(shown[board.settings[0].name])]
    return "\n\n".join([*lines, STATUS, _again(board, rows)]) + "\n"


def missing_rows(setting: BoardSetting, tables: Sequence[Table]) -> list[str]:
    """Return a line of the rows that a setting is to have and its tables do not show; none where all are there."""
    there = {line[1].text for table in leaderboards(tables) for line in table.cells}
    missing = [name for name in setting.expected if name not in there]
    return [f"Not trained yet: {', '.join(missing)}."] if missing else []


def _reported(setting: BoardSetting) -> list[Table]:
    """Return what the paper prints for the data set and ratio of a setting: beside its rows, never among them."""
    printed = read_published()
    own = printed[(printed["dataset"] == setting.dataset) & (printed["ratio"] == f"{setting.ratio:g}")]
    own = own[(own["metric"] == "mean_class_accuracy") & (own["table"] == 1)]
    if own.empty:
        return []
    rows = zip(own["method"], own["mean"], own["sd"], strict=True)
    cells = [[Cell(method), Cell(f"{mean:.2f} ± {sd:.2f}"), Cell("reported")] for method, mean, sd in rows]
    notes = [f"{own['source'].iloc[0]}: other images, size, split and protocol; the numbers are not comparable."]
    headers = ["method", "mean per-class accuracy", "status"]
    return [Table(f"What the paper reports, {setting.dataset}, ratio {setting.ratio:g}", own, headers, cells, notes)]


def _again(board: Board, rows: Sequence[str]) -> str:
    """Return the commands that check, repeat and restore a board; `rows` are those of its main setting."""
    name = board.name
    again = [f"reproduce {name} --method {shlex.quote(row)} --trial 0{data_option(board)}" for row in rows[:1]]
    commands = [f"verify {name}", *again]
    lines = [f"python benchmarks/publish.py {command}" for command in (*commands, f"restore {name} --out restored")]
    where = "Of a board that is not in the repository, `publish.py --boards DIR` names the folder that it lies in."
    return "\n".join(["```sh", *lines, "```", "", where])
