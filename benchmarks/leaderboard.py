"""Leaderboards: tables made from the records of finished trials alone.

    ltbench leaderboard --results results --table ratios --format latex
    ltbench leaderboard --method ce flex --ratio 100 --table metrics --columns method macro-F1 ECE
    ltbench leaderboard --out table.tex
    ltbench leaderboard --published
    ltbench leaderboard --board synthetic-r100

Every number is computed from the trials' saved predictions, and kept in the results folder's `cache/derived` until
predictions or code change; `--recompute` computes all anew. Only trials of the same data, split and protocol
share a table; what is not says so below. A record that cannot be read is named on stderr and left out, which a note
below the table says; the exit code is 2 only where none is left. On a terminal a table loses its least important
columns until it fits; `--columns all`, a pipe or `--out FILE` has them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.rendering import FORMATS, KINDS, annotated
from ltbench.benchmarks.cli.board_options import add_board_options, shown_results, status_notes
from ltbench.benchmarks.cli.command import Parser, guarded, invocation, named_path, require_writable, script

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.analysis.rendering import Table


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("leaderboard"), description="Print tables of a results folder.")
    about_results = "the folder that `ltbench run --out` fills; default: results"
    parsed.add_argument("--results", type=named_path, default=Path("results"), metavar="DIR", help=about_results)
    add_board_options(parsed)
    parsed.add_argument(
        "--table", default="overview", metavar="NAME", help=f"{', '.join(KINDS)}; default: overview, of each ratio"
    )
    parsed.add_argument("--published", action="store_true", help="the paper's numbers beside these, instead of --table")
    parsed.add_argument("--dataset", nargs="+", metavar="NAME", help="data sets to show; default: all")
    parsed.add_argument("--ratio", nargs="+", metavar="R", help="ratios to show, or natural; default: all")
    parsed.add_argument("--method", nargs="+", metavar="NAME", help="methods to show; default: all")
    parsed.add_argument("--protocol", default="", metavar="DIGEST", help="first digits of the protocol's; default: all")
    about_format = f"{', '.join(FORMATS)}; default: by the suffix of --out, else github"
    parsed.add_argument("--format", metavar="NAME", help=about_format)
    about_columns = "columns to show, by their headers, or all; default: all, on a terminal those that fit"
    parsed.add_argument("--columns", nargs="+", default=(), metavar="NAME", help=about_columns)
    about_recompute = "compute all numbers from predictions, also those that an earlier command kept"
    parsed.add_argument("--recompute", action="store_true", help=about_recompute)
    parsed.add_argument("--out", type=named_path, metavar="FILE", help="write the tables there, instead of printing")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    with shown_results(options) as options.results:
        return _show(options)


def _show(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.columns import chosen
    from ltbench.benchmarks.analysis.record_files.damage import left_out, sound_records
    from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
    from ltbench.benchmarks.cli.outcomes import report_damaged
    from ltbench.benchmarks.cli.table_output import print_tables, write_tables
    from ltbench.errors import UserError

    style = _checked(options)
    # The paper's numbers are worth a look without any of ours.
    there = options.results.exists() or not options.published
    derived = DerivedFiles.under(options.results, recompute=options.recompute)
    records, damaged = sound_records(options.results, derived=derived) if there else ([], {})
    if damaged and options.board is not None:  # whose rows are published as a whole
        raise UserError(next(iter(damaged.values())))
    report_damaged(damaged.values())
    if not records and not options.published:
        what = "no record that can be read" if damaged else "no finished trial"
        raise UserError(f"{options.results} holds {what}; run `ltbench run` first")
    if records:
        records = _selected(records, options)
    notes = [*left_out(damaged), *status_notes(options)]
    tables = (_published if options.published else _tables)(records, options, notes)
    if not tables:
        raise UserError(f"{options.results} holds no trial for this table; see `ltbench reproduce`")
    tables = chosen(tables, options.columns, style)
    if options.out is None:
        remedy = "--columns all or --out FILE shows them"
        print_tables(tables, style, remedy, whole=bool(options.columns))
    else:
        write_tables(tables, style, options.out)
    return 0


def _checked(options: argparse.Namespace) -> str:
    """Refuse what cannot be shown or written, before anything is read; return the format."""
    from ltbench.benchmarks.cli.arguments import check_format
    from ltbench.benchmarks.cli.table_output import STYLES
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    if options.table not in KINDS:
        raise unknown("table", options.table, KINDS)
    if options.format is not None:
        check_format(options.format)
    if options.out is None:
        return options.format or "github"
    if options.out.is_dir():
        raise UserError(f"--out is the file of the tables, {options.out} is a folder; show it with --results")
    suffix = options.out.suffix.lower()
    if options.format is None and suffix not in STYLES:
        known = ", ".join(filter(None, STYLES))
        raise UserError(
            f"--out {options.out} has the suffix {suffix}; known: {known}; use one of them, or give --format"
        )
    require_writable(options.out)
    return options.format or STYLES[suffix]


def _selected(records: Sequence[Record], options: argparse.Namespace) -> list[Record]:
    """Return the records that `--dataset`, `--ratio`, `--method` and `--protocol` leave."""
    from ltbench.benchmarks.analysis.record_files.selection import select
    from ltbench.benchmarks.training.request import ratio_values
    from ltbench.errors import UserError

    ratios = None if options.ratio is None else ratio_values(options.ratio)
    left = select(records, options.dataset, options.method, ratios, options.protocol)
    if not left:
        raise UserError(
            f"{options.results} holds no trial that --dataset, --ratio, --method and --protocol leave; "
            "leave one of them out"
        )
    return left


def _tables(records: Sequence[Record], options: argparse.Namespace, notes: Sequence[str]) -> list[Table]:
    from ltbench.benchmarks.analysis.tables import all_tables

    return all_tables(records, [options.table], notes)


def _published(records: Sequence[Record], options: argparse.Namespace, notes: Sequence[str]) -> list[Table]:
    from ltbench.benchmarks.analysis.published import as_printed, beside
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.training.protocol import PRESETS

    return annotated(beside(settings_of(records), PRESETS) or as_printed(), notes)


if __name__ == "__main__":
    script(__file__)
