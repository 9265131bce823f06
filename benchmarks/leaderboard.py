"""Leaderboards: tables made from the records of finished trials alone.

    ltbench leaderboard --results results --table ratios --format latex
    ltbench leaderboard --method ce flex --ratio 100 --table metrics
    ltbench leaderboard --published

Every number is computed anew from the trials' saved predictions. Only trials of the same data, split and protocol
share a table; what is kept apart is told.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.rendering import FORMATS, render
from ltbench.benchmarks.cli.command import Parser, guarded, invocation, script

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Record

KINDS = ("overview", "ratios", "groups", "ablation", "per-class", "cost", "metrics")


def render_all(records: Iterable[Record], style: str, kinds: Sequence[str] = ("overview",)) -> str:
    """Return tables of records as text, those of the largest ratio last.

    Parameters
    ----------
    style : one of `FORMATS`
    kinds : of `KINDS`
    """
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.analysis.tables import TABLES

    settings = settings_of(records)
    return render([table for kind in kinds for table in TABLES[kind](settings)], style)


def selected(records: Sequence[Record], options: argparse.Namespace) -> list[Record]:
    """Return the records that `--dataset`, `--ratio`, `--method` and `--protocol` leave.

    Raises
    ------
    UserError : a data set or method that no record has, a ratio that is none, or nothing is left
    """
    from ltbench.benchmarks.training.request import ratio_values
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    left = list(records)
    chosen = (
        ("dataset", options.dataset, lambda record: record.result.data.dataset),
        ("method", options.method, lambda record: record.result.method),
    )
    for kind, wanted, name_of in chosen:
        known = sorted(set(map(name_of, records)))
        for name in wanted or ():
            if name not in known:
                raise unknown(kind, name, known)
        left = [record for record in left if wanted is None or name_of(record) in wanted]
    if options.ratio is not None:
        ratios = ratio_values(options.ratio)
        natural = "natural" in ratios
        left = [each for each in left if each.result.data.ratio in ratios or (natural and each.result.data.natural)]
    left = [record for record in left if record.result.protocol_digest.startswith(options.protocol)]
    if not left:
        raise UserError(
            f"{options.results} holds no trial that --dataset, --ratio, --method and --protocol leave; "
            "leave one of them out"
        )
    return left


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("leaderboard"), description="Print tables of a results folder.")
    parsed.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parsed.add_argument(
        "--table", default="overview", metavar="NAME", help=f"{', '.join(KINDS)}; default: overview, of each ratio"
    )
    parsed.add_argument("--published", action="store_true", help="the paper's numbers beside these, instead of --table")
    parsed.add_argument("--dataset", nargs="+", metavar="NAME", help="data sets to show; default: all")
    parsed.add_argument("--ratio", nargs="+", metavar="R", help="ratios to show, or natural; default: all")
    parsed.add_argument("--method", nargs="+", metavar="NAME", help="methods to show; default: all")
    parsed.add_argument("--protocol", default="", metavar="DIGEST", help="first digits of the protocol's; default: all")
    parsed.add_argument("--format", default="github", metavar="NAME", help=f"{', '.join(FORMATS)}; default: github")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    if options.table not in KINDS:
        raise unknown("table", options.table, KINDS)
    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    there = (
        options.results.is_dir() or not options.published
    )  # the paper's numbers are worth a look without any of ours
    records = list(find_records(options.results)) if there else []
    if not records and not options.published:
        raise UserError(f"{options.results} holds no finished trial; run `ltbench run` first")
    if records:
        records = selected(records, options)
    if options.published:
        from ltbench.benchmarks.analysis.published import beside
        from ltbench.benchmarks.analysis.standings import settings_of

        text = render(beside(settings_of(records)), options.format)
    else:
        text = render_all(records, options.format, [options.table])
    if not text:
        raise UserError(f"{options.results} holds no trial for this table; see `ltbench reproduce`")
    print(text)
    return 0


if __name__ == "__main__":
    script(__file__)
