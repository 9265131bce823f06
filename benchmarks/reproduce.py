"""Run what a table of the paper needs and is not done yet, then print that table.

    ltbench reproduce table1 --dry-run
    ltbench reproduce table3 --data-root PATH
    ltbench reproduce table1 --dataset synthetic --trials 2

table1: methods at three ratios; table2: groups of ISIC-Archive-LT; table3: ablation of Flexible Sampling; figure3:
accuracy of each class. --dry-run lists the runs: done, missing, estimated time.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.cli.arguments import add_output, add_request, assignments, check_format, request_from, resuming
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script
from ltbench.benchmarks.training.request import Request
from ltbench.errors import UserError
from ltbench.registry import unknown

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Result
    from ltbench.benchmarks.cli.time_left import Estimates, TimeLeft
    from ltbench.benchmarks.training.planning.plan import Plan

_FIGURE_METHODS = ("ce", "rw", "flex")


@dataclass(frozen=True)
class Target:
    """A table or figure of the paper.

    Attributes
    ----------
    table : number of the paper's table, from whose rows the runs follow; None: `methods`
    kind : kind of table that shows it
    defaults : fields of the request that options come after
    """

    table: int | None
    kind: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ()


_ARCHIVE = {"dataset": "isic_archive", "ratios": ("natural",)}
TARGETS: Mapping[str, Target] = {
    "table1": Target(1, "ratios", {"ratios": (100, 200, 500)}),
    "table2": Target(2, "groups", _ARCHIVE),
    "table3": Target(3, "ablation", {"ratios": (100,)}),
    "figure3": Target(None, "per-class", _ARCHIVE, _FIGURE_METHODS),
}


def variants(target: Target) -> list[tuple[list[str], list[str]]]:
    """Return what a target needs: methods, and the `NAME=VALUE` that they are run with."""
    if target.table is None:
        return [(list(target.methods), [])]
    from ltbench.benchmarks.analysis.published import read_published

    published = read_published()
    rows = published[published["table"] == target.table]
    needed: dict[str, list[str]] = {}
    for method, changed in zip(rows["method"], rows["changed"], strict=True):
        needed.setdefault(changed, []).append(method)
    return [(list(dict.fromkeys(methods)), changed.split()) for changed, methods in needed.items()]


def requests(target: Target, options: argparse.Namespace) -> list[Request]:
    """Return the requests that a target needs, one for each choice of hyper-parameters."""
    return [
        request_from(options, {**target.defaults, "methods": methods, "hyperparameters": assignments("--set", changed)})
        for methods, changed in variants(target)
    ]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("reproduce"),
        description=about(__doc__, "reproduce", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsed.add_argument("target", metavar="|".join(TARGETS), help="what to reproduce")
    add_request(parsed)
    add_output(parsed)
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; return the exit code, as `ltbench run` does."""
    arguments = sys.argv[1:] if arguments is None else arguments
    again = f"{invocation('reproduce')} {shlex.join(resuming(arguments))}"
    return guarded(lambda: _main(parser().parse_args(arguments)), hint=f"; resume with: {again}")


def _main(options: argparse.Namespace) -> int:
    if options.target not in TARGETS:
        raise unknown("target", options.target, TARGETS)
    chosen = [option for option, name in (("--method", "methods"), ("--set", "set")) if name in options]
    if chosen:
        raise UserError(f"reproduce chooses {' and '.join(chosen)} itself; use {invocation('run')}")
    check_format(options.format)
    from ltbench.benchmarks.cli.outcomes import report_outcomes
    from ltbench.benchmarks.cli.time_left import Estimates, TimeLeft
    from ltbench.benchmarks.executors.execution import Execution
    from ltbench.benchmarks.throughput import images_per_second
    from ltbench.benchmarks.training.planning.plan import plan

    target = TARGETS[options.target]
    plans = [plan(request) for request in requests(target, options)]
    print(f"{options.target}, data: {plans[0].datasets[0].source.title}", flush=True)
    results = _known(plans)
    measure = cache(partial(images_per_second, plans[0]))
    estimates = [Estimates(planned, results, measure) for planned in plans]
    left = TimeLeft(estimates)
    print(_listed(estimates, left), flush=True)
    if options.dry_run:
        return 0
    executions = [Execution(planned) for planned in plans]
    codes = [report_outcomes(execution.outcomes(), left) for execution in executions]
    if not any(execution.deferred for execution in executions):
        _print_table(target, plans, options.format)
    return next((code for code in reversed(codes) if code), 0)


def _print_table(target: Target, plans: Sequence[Plan], style: str) -> None:
    from ltbench.benchmarks.analysis.published import beside
    from ltbench.benchmarks.analysis.record_files.damage import is_sound
    from ltbench.benchmarks.analysis.results import Results
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.analysis.tables import tables_of
    from ltbench.benchmarks.cli.table_output import print_tables, remedy_elsewhere
    from ltbench.benchmarks.training.protocol import PRESETS

    folders = (folder for planned in plans for folder in planned.trial_folders())
    done = Results.of_trials(filter(is_sound, folders))
    settings = settings_of(done.records)
    printed = [table for table in beside(settings, PRESETS) if target.table in set(table.frame["table"])]
    for tables in (tables_of(target.kind, settings), [] if style == "csv" else printed):
        if tables:
            print()
            print_tables(tables, style, remedy_elsewhere(plans[0].request.out))


def _known(plans: Sequence[Plan]) -> list[Result]:
    """Return the results under the settings of some plans."""
    from ltbench.benchmarks.executors.execution import Execution

    found = [record for planned in plans for record in Execution(planned).earlier().records]
    return list({record.folder: record.result for record in found}.values())


def _listed(estimates: Sequence[Estimates], left: TimeLeft) -> str:
    """Return the list of runs: how many trials are done and missing, and the time that the missing ones may take."""
    from tabulate import tabulate

    from ltbench.benchmarks.cli.time_left import duration, missing_text
    from ltbench.benchmarks.training.trial import is_done

    lines: list[list[Any]] = []
    for estimate in estimates:
        planned = estimate.planned
        numbers = planned.request.trial_numbers
        for row in planned.rows:
            label = " ".join([row.method.name, *(f"{name}={value}" for name, value in row.method.changed.items())])
            missing = sum(not is_done(row.trial_folder(trial)) for trial in numbers)
            each, basis = estimate.seconds(row) if missing else (None, "")
            shown = "" if each is None else duration(each)
            lines.append([label, f"{row.dataset.ratio:g}", len(numbers) - missing, missing, shown, basis])
    headers = ["run", "ratio", "done", "missing", "a trial", "estimated from"]
    table = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    return f"{table}\n{missing_text(left, estimates[0].planned)}"


if __name__ == "__main__":
    script(__file__)
