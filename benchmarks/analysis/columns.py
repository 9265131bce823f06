"""Which columns of a table are shown: those that are asked for, or as many as a terminal has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ltbench.benchmarks.analysis.metrics import METRICS
from ltbench.benchmarks.analysis.rendering import Cell, Table, in_ascii, line_width
from ltbench.registry import unknown

ALL = "all"
"""Instead of the names of columns: every one."""

_OTHERS = "*"
_ACCURACY = METRICS["mean_class_accuracy"]
IMPORTANCE: Mapping[str, Sequence[str]] = {
    "overview": (
        *("method", _ACCURACY, "rank", "n", "Δ ce", "95 % interval", "95 % of Δ", "tail", "head", "medium"),
        *("mean of group means", "macro-F1", "micro top-1", "macro AUROC", "val − test", "train s", "images seen"),
    ),
    "ratios": ("method", _OTHERS, "Δ ce"),
    "groups": ("method", "mean of group means", "n", "tail", "Δ ce", "head", "medium", "95 % of Δ"),
    "ablation": ("pre-train", "sample selection", _OTHERS),
    "per-class": ("method", "n", _OTHERS),
    "metrics": (
        *("method", _ACCURACY, "n", "macro-F1", "macro AUROC", "ECE", "tail", _OTHERS, "micro top-1", "head"),
        *("medium", "mean of group means", "macro AUPRC", "class-wise ECE", "cross-entropy"),
    ),
    "cost": (
        *("method", "n", "train s", "optimizer steps", "of ce's", "forward passes", "parameters"),
        *("training images seen", "peak memory MiB", "own learning rates", "own stopping rules"),
    ),
    "reliability": (
        *("method", "ECE", "ECE, scaled", "n", "worst-class coverage", "set size", "macro coverage", "temperature"),
        *(_OTHERS,),
    ),
    "conformal": ("sets", "method", "worst-class coverage", "set size", "n", _OTHERS),
    "ranks": ("method", "average rank", "settings", _OTHERS),
    "published": (
        *("paper", "ratio", "published", "here", "difference", "n", "metric", "intervals overlap", "method"),
        *(_OTHERS,),
    ),
}
"""Headers of each kind of table, the most important first; `*` stands for all that are not named, right ones first."""


def chosen(tables: Sequence[Table], names: Sequence[str], style: str) -> list[Table]:
    """Return tables with the columns that are asked for, in the tables' order; a table without any of them is left out.

    Parameters
    ----------
    names : headers as the format prints them, in any case, or as a stream that shows ASCII alone does; or none, or
        `ALL`
    style : of `FORMATS`; CSV has columns of its own, and its title stays

    Raises
    ------
    UserError : a column that no table has, with the nearest one
    """
    named = [name for name in names if name.casefold() != ALL]
    known = list(dict.fromkeys(header for table in tables for header in _headers(table, style)))
    wanted = {header for name in named for header in _called(name, known)}
    if not named or len(named) < len(names):
        return list(tables)
    places = [[place for place, own in enumerate(_headers(table, style)) if own in wanted] for table in tables]
    if style == "csv":
        kept = [replace(table, frame=table.frame.iloc[:, own]) for table, own in zip(tables, places, strict=True)]
    else:
        kept = [_with_columns(table, own) for table, own in zip(tables, places, strict=True)]
    return [table for table, own in zip(kept, places, strict=True) if own]


def fitted(table: Table, width: int, remedy: str) -> Table:
    """Return a table whose lines fit a terminal: with shortened names, and without the least important columns.

    A note says what is left out. The most important column stays, whatever its width.

    Parameters
    ----------
    width : of the terminal, in letters
    remedy : what shows all columns, for that note
    """
    if line_width(table) <= width:
        return table
    shown, shortened = _with_short_names(table, width // 4)
    order = by_importance(table)
    for kept in range(len(order), 0, -1):
        fitting = _with_columns(shown, [place for place, own in enumerate(table.headers) if own in order[:kept]])
        if line_width(fitting) <= width:
            break
    lacking = [header for header in dict.fromkeys(table.headers) if header not in fitting.headers]
    lacking += ["whole names"] * (shortened and "method" in fitting.headers)
    return replace(fitting, notes=[f"No room for: {', '.join(lacking)}; {remedy}.", *table.notes])


def by_importance(table: Table) -> list[str]:
    """Return the headers of a table, each once, the most important first."""
    headers = list(dict.fromkeys(table.headers))
    listed = IMPORTANCE.get(table.kind, ("method", _OTHERS))
    others = [header for header in reversed(headers) if header not in listed]
    order = [each for name in listed for each in (others if name == _OTHERS else [name])]
    order += [] if _OTHERS in listed else others
    return [header for header in order if header in headers]


def _headers(table: Table, style: str) -> list[str]:
    return [str(name) for name in table.frame.columns] if style == "csv" else list(table.headers)


def _called(name: str, headers: Sequence[str]) -> list[str]:
    """Return the headers of a name, in any case: those that are it, else those that are printed so in ASCII."""
    exact = [header for header in headers if header.casefold() == name.casefold()]
    found = exact or [header for header in headers if in_ascii(header).casefold() == name.casefold()]
    if not found:
        raise unknown("column", name, headers)
    return found


def _with_columns(table: Table, places: Sequence[int]) -> Table:
    headers = [table.headers[place] for place in places]
    return replace(table, headers=headers, cells=[[row[place] for place in places] for row in table.cells])


def _with_short_names(table: Table, length: int) -> tuple[Table, bool]:
    """Return a table whose names of methods are cut to a length, or as little more as they need to stay distinct."""
    if "method" not in table.headers:
        return table, False
    place = list(table.headers).index("method")
    names = {row[place].text for row in table.cells}
    longest = max(map(len, names), default=0)
    for limit in range(length, longest):
        short = {name: name if len(name) <= limit else f"{name[: limit - 1].rstrip()}…" for name in names}
        if len(set(short.values())) == len(names):
            break
    else:
        return table, False
    cells = [
        [Cell(short[cell.text], cell.strong) if own == place else cell for own, cell in enumerate(row)]
        for row in table.cells
    ]
    return replace(table, cells=cells), True
