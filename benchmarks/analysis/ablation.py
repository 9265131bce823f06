"""The table of an ablation: the paper's Table 3."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import pandas as pd

from ltbench.benchmarks.analysis.cells import accuracy_cell, accuracy_numbers, lines_of
from ltbench.benchmarks.analysis.metrics import METRICS
from ltbench.benchmarks.analysis.notes import caveats, signs, tested, title_of
from ltbench.benchmarks.analysis.records import Result
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.rows import ACCURACY, Row
from ltbench.benchmarks.analysis.standings import Panel, comparisons

ABLATION = {"pretrain": "pre-train", "selection": "sample selection"}
ABLATION_COLUMN = "query"
"""Hyper-parameters that span the paper's Table 3: its rows and its columns."""


def ablation(panel: Panel) -> list[Table]:
    """Return the paper's Table 3: pre-training and sample selection by querying strategy.

    Rows that differ in other hyper-parameters are in tables of their own.
    """
    spanned = {*ABLATION, ABLATION_COLUMN}
    variants: dict[str, list[Row]] = {}
    for row in panel.rows:
        if spanned <= set(row.result.hyperparameters):
            variants.setdefault(_beside(row.result, spanned), []).append(row)
    tables = []
    for rows in variants.values():
        table = _ablation(replace(panel, rows=tuple(rows)))
        tables.append(replace(table, title=f"{_variant(rows, variants.values(), spanned)}; {table.title}"))
    return tables


def _beside(result: Result, spanned: Collection[str]) -> str:
    """Return all that a table of `spanned` hyper-parameters must have in common, as text."""
    rest = {name: value for name, value in result.hyperparameters.items() if name not in spanned}
    return json.dumps([result.method, rest, result.plugin], sort_keys=True)


def _variant(rows: Sequence[Row], variants: Collection[Sequence[Row]], spanned: Collection[str]) -> str:
    """Return the name of a variant: method and changes, and where another has the same, all hyper-parameters."""

    def named(own: Sequence[Row]) -> str:
        changed = [f"{name}={value}" for name, value in own[0].result.changed.items() if name not in spanned]
        return " ".join([own[0].result.method, *changed])

    if [named(own) for own in variants].count(named(rows)) == 1:
        return named(rows)
    rest = [f"{name}={value}" for name, value in rows[0].result.hyperparameters.items() if name not in spanned]
    text = (rows[0].result.plugin or "")[:8]
    return " ".join([rows[0].result.method, *rest, *([f"[{text}]"] if text else [])])


def _ablation(panel: Panel) -> Table:
    compared = comparisons(panel)
    frame = pd.DataFrame(
        {
            **{name: row.result.hyperparameters[name] for name in (*ABLATION, ABLATION_COLUMN)},
            **{"method": row.name, "n": len(row.trials)},
            **accuracy_numbers(row, best, baseline),
        }
        for row, best, baseline in zip(panel.rows, *compared, strict=True)
    )
    columns = sorted(frame[ABLATION_COLUMN].unique(), key=lambda name: (name != "none", name != "random", name))
    places = {tuple(own[name] for name in (*ABLATION, ABLATION_COLUMN)): own for own in lines_of(frame)}
    cells = []
    for place in sorted({place[:-1] for place in places}):
        found = [places.get((*place, column)) for column in columns]
        cells.append([*map(Cell, place), *(Cell("n/a") if own is None else accuracy_cell(own) for own in found)])
    headers = [*ABLATION.values(), *(f"{ABLATION_COLUMN}: {column.replace('_', ' ')}" for column in columns)]
    best = compared[0]
    about = [
        f"{METRICS[ACCURACY].capitalize()}, {panel.rows[0].extent}.",
        signs(panel.rows[0], best, ()),
        tested(panel.rows, best, ()),
    ]
    notes = [" ".join(filter(None, about)), *caveats(panel.rows, ())]
    return Table(title_of(panel.setting.result), frame, headers, cells, notes)
