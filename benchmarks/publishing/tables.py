"""The tables of a board, as Markdown, CSV and HTML: made from its records, with the status of each row."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ltbench.benchmarks.analysis.published import read_published
from ltbench.benchmarks.analysis.ranks import ranks
from ltbench.benchmarks.analysis.records import Result, find_records
from ltbench.benchmarks.analysis.rendering import HEADINGS, Cell, Table, document, render
from ltbench.benchmarks.analysis.standings import Panel, Setting, made_by, settings_of
from ltbench.benchmarks.analysis.tables import overview, setting_tables
from ltbench.benchmarks.publishing.board import Board, BoardSetting, rows_in
from ltbench.benchmarks.publishing.markup import as_html
from ltbench.benchmarks.publishing.reproductions import Reproduction, reproductions
from ltbench.benchmarks.publishing.restoring import restored
from ltbench.datasets import registry as datasets

STATUS = (
    "Status: recomputed, the published logits give these metrics (`publish verify` checks it; costs are as recorded); "
    "reproduced, trained again by another run and found to agree; reported, printed by somebody and not checked, never "
    "ranked."
)
_LEADERBOARD = "overview"
_SHOWN = {
    *("rank", "method", "mean per-class accuracy", "95 % interval", "Δ ce", "95 % of Δ"),
    *("head", "medium", "tail", "val − test"),
}


@dataclass(frozen=True)
class Section:
    """What a board says of one setting: the same in each of its forms.

    Attributes
    ----------
    setting : of the board
    tables : leaderboards, each with the further tables of its rows; rows of equal trials share tables
    example : the best row and its first trial; None: no trial is published yet
    reported : what the paper prints for the data set and ratio, in the first setting that has both
    """

    setting: BoardSetting
    tables: Sequence[Table]
    example: tuple[str, int] | None
    reported: Sequence[Table] = ()

    @property
    def parts(self) -> list[str | Table]:
        """Heading, text, tables, the rows that are missing, and what the paper reports; texts are Markdown."""
        about = [self.setting.about] if self.setting.about else []
        none = [] if self.tables else ["No trial is published yet."]
        return [f"## {self.setting.name}", *about, *none, *self.tables, *self._missing(), *self.reported]

    def _missing(self) -> list[str]:
        """Return a line of the rows that the setting is to have and its tables do not show; none if all are there."""
        there = {line[1].text for table in self.tables if table.kind == _LEADERBOARD for line in table.cells}
        missing = [name for name in self.setting.expected if name not in there]
        return [f"Not trained yet: {', '.join(missing)}."] if missing else []


def sections(board: Board) -> list[Section]:
    """Return what a board says of each of its settings, in order."""
    found: list[Section] = []
    with restored(board) as folder:
        records = list(find_records(folder))
        for setting in board.settings:
            own = [(each, panel) for each in settings_of(setting.among(records)) for panel in each.panels()]
            tables = [table for each, panel in own for table in _tables(board, setting, each, panel, folder)]
            best = [(panel.rows[0].name, panel.trials[0]) for _, panel in own[:1]]
            told = {(each.setting.dataset, each.setting.ratio) for each in found}
            reported = [] if (setting.dataset, setting.ratio) in told else _reported(setting)
            found.append(Section(setting, tables, best[0] if best else None, reported))
    return found


def head(board: Board) -> list[str]:
    """Return what a board says above its settings: Markdown, a paragraph each."""
    return [f"# {board.title}", *board.about, STATUS]


def generated(board: Board) -> dict[str, str]:
    """Return the text of every file that is made from the records, by its name."""
    every = sections(board)
    parts = [*head(board), *(part for section in every for part in section.parts), *_again(board, every)]
    written = [part if isinstance(part, str) else render([part], "github") for part in parts]
    tables = [table for section in every for table in section.tables]
    return {
        "board.md": "\n\n".join(written) + "\n",
        "board.csv": render(_one_line_a_row(tables), "csv") + "\n",
        "board.html": document(as_html(parts), "html", board.title),
    }


def board_tables(board: Board) -> list[tuple[str, Table]]:
    """Return the tables of a board, each with the name of its setting."""
    return [(section.setting.name, table) for section in sections(board) for table in section.tables]


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


def _tables(board: Board, setting: BoardSetting, each: Setting, panel: Panel, folder: Path) -> list[Table]:
    """Return the leaderboard of a panel of the records in a folder, and the setting's further tables of its rows."""
    rows = {row.name: row.records[0].folder.parent.relative_to(folder).as_posix() for row in panel.rows}
    return [_leaderboard(board, setting, panel, rows), *_others(setting, replace(each, rows=panel.rows))]


def _others(setting: BoardSetting, of_panel: Setting) -> Iterator[Table]:
    """Yield the further tables of a setting, each with its heading as title."""
    for kind in setting.tables:
        for table in setting_tables(kind, of_panel):
            yield replace(table, title=f"{HEADINGS[kind]}, {of_panel.rows[0].repeats}", subject=setting.name)


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


def _leaderboard(board: Board, setting: BoardSetting, panel: Panel, folders: Mapping[str, str]) -> Table:
    """Return the leaderboard of a panel with the columns that a board shows, trials and status."""
    whole, again = overview(panel), reproductions(board)
    columns = [number for number, header in enumerate(whole.headers) if header in _SHOWN]
    status = [_status(again, folders[row.name], row.trials, setting.trials) for row in panel.rows]
    trials = f"{len(panel.trials)}/{setting.trials}"
    cells = [
        [*(line[number] for number in columns), Cell(trials), Cell(text)]
        for line, text in zip(whole.cells, status, strict=True)
    ]
    frame = whole.frame.assign(setting=setting.name, trials_of=setting.trials, status=status)
    headers = [*(whole.headers[number] for number in columns), "trials", "status"]
    named = replace(whole, kind=_LEADERBOARD, subject=setting.name)
    notes = [f"Trained on {made_by(panel.rows, _made_on)}.", *panel.notes, *whole.notes]
    return replace(named, frame=frame, headers=headers, cells=cells, notes=notes)


def _made_on(result: Result) -> str:
    """Return the device of a trial, with the version of torch."""
    torch = result.versions.get("torch")
    return f"{result.device} (torch {torch})" if torch else result.device


def _status(again: Sequence[Reproduction], row: str, trials: Sequence[int], of: int) -> str:
    """Return the status of a row: how many of the `trials` that it shows, `of` the setting's, were trained again."""
    own = [each for each in again if each.row == row and each.trial in trials]
    agreeing, others = ({each.trial for each in own if each.agrees is so} for so in (True, False))
    status = f"reproduced ({len(agreeing)}/{of})" if agreeing else "recomputed"
    return f"{status}, NOT reproduced ({len(others)}/{of})" if others else status


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


def reproduce_options(board: Board, every: Sequence[Section]) -> str:
    """Return options of `publish.py reproduce` for a trial of the main setting; empty where it has none."""
    if every[0].example is None:
        return ""
    row, trial = every[0].example
    return f"--method {shlex.quote(row)} --trial {trial}{data_option(board)}"


def _again(board: Board, every: Sequence[Section]) -> list[str]:
    """Return the commands that check, repeat and restore a board, and where they look for it."""
    name, options = board.name, reproduce_options(board, every)
    again = [f"reproduce {name} {options}"] if options else []
    commands = [f"verify {name}", *again, f"restore {name} --out restored"]
    lines = [f"python benchmarks/publish.py {command}" for command in commands]
    where = "Of a board that is not in the repository, `publish.py --boards DIR` names the folder that it lies in."
    cite = (
        "To cite it, name the board, the commit of the repository at which it was read (`git log -1 --format=%H`), the "
        f"software (CITATION.cff), the papers of the methods and those of the data (`python benchmarks/data.py info "
        f"{board.settings[0].dataset}`). How to add a row: docs/boards/index.md."
    )
    return ["\n".join(["```sh", *lines, "```"]), where, cite]
