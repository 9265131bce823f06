"""Figures: pictures made from the records of finished trials alone, PNG and SVG.

ltbench figures --results results --method ce flex --figure all --out figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ltbench.benchmarks.cli.command import Parser, guarded, invocation, named_path, require_writable, script
from ltbench.benchmarks.plots.pictures import FIGURES, few_rows, pictures, save_pictures, setting_folders


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("figures"), description="Draw the pictures of a results folder, PNG and SVG.")
    parsed.add_argument("--results", type=named_path, default=Path("results"), metavar="DIR", help="default: results")
    parsed.add_argument("--method", nargs="+", metavar="NAME", help="methods to draw; default: all")
    kinds = f"{', '.join(FIGURES)}, or all; default: all"
    parsed.add_argument("--figure", nargs="+", default=["all"], metavar="NAME", help=kinds)
    parsed.add_argument("--out", type=named_path, default=Path("figures"), metavar="DIR", help="default: figures")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures, print their paths; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.errors import UserError

    require_writable(options.out / "picture.png")
    _check("figure", options.figure, (*FIGURES, "all"))
    kinds = FIGURES if "all" in options.figure else options.figure
    records = list(find_records(options.results))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run `ltbench run` first")
    settings = settings_of(records)
    known = {name for setting in settings for row in setting.rows for name in (row.name, row.result.method)}
    _check("method", options.method or (), sorted(known))
    wanted = known if options.method is None else set(options.method)
    drawn = 0
    for folder, setting in zip(setting_folders(settings), settings, strict=True):
        rows = [row for row in setting.rows if {row.name, row.result.method} & wanted]
        if not rows:
            continue
        shared = few_rows(rows)
        if len(shared) < len(rows) and "per-class" in kinds:
            names = ", ".join(row.name for row in shared)
            print(f"{folder}: per-class shows {names}; choose others with --method", file=sys.stderr)
        for picture, found in save_pictures(options.out / folder, pictures(kinds, rows, options.results, shared)):
            if isinstance(found, str):
                print(f"{options.out / folder / picture.name}: {found}", file=sys.stderr)
                continue
            drawn += 1
            print("\n".join(map(str, found)))
    if not drawn:
        names = ", ".join(kinds)
        raise UserError(
            f"none of the chosen figures ({names}) exists for these trials; choose others with --figure or --method "
            "(story, for example, is of trials of flex)"
        )
    return 0


def _check(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    from ltbench.registry import unknown

    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


if __name__ == "__main__":
    script(__file__)
