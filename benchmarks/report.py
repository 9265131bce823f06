"""One HTML page that holds all of a results folder: tables, pictures, data, protocol. It needs no other file.

ltbench report --results results --out report.html
ltbench report --board synthetic-r100 --out board.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ltbench.benchmarks.cli.board_options import add_board_options, shown_results
from ltbench.benchmarks.cli.command import Parser, guarded, invocation, named_path, require_writable, script


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("report"), description="Write one HTML page with all of a results folder.")
    parsed.add_argument("--results", type=named_path, default=Path("results"), metavar="DIR", help="default: results")
    add_board_options(parsed)
    parsed.add_argument(
        "--out", type=named_path, metavar="FILE", help="default: report.html in the results folder, or here"
    )
    about_recompute = "compute all numbers from predictions, also those that an earlier command kept"
    parsed.add_argument("--recompute", action="store_true", help=about_recompute)
    parsed.add_argument("--published", action="store_true", help="also set the paper's numbers beside these")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, print its path; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    out = options.out or (options.results if options.board is None else Path()) / "report.html"
    with shown_results(options) as options.results:
        return _write(options, out)


def _write(options: argparse.Namespace, out: Path) -> int:
    from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.pages.page import report
    from ltbench.benchmarks.training.protocol import PRESETS
    from ltbench.errors import UserError
    from ltbench.files import write_bytes

    derived = DerivedFiles.under(options.results, recompute=options.recompute)
    records = list(find_records(options.results, derived=derived))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run `ltbench run` first")
    require_writable(out)
    write_bytes(out, report(records, options.results, presets=PRESETS if options.published else None))
    print(out)
    return 0


if __name__ == "__main__":
    script(__file__)
