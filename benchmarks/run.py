"""Train methods on a long-tailed dataset, several trials each, and print the leaderboard.

    ltbench run --method flex --ratio 500
    ltbench run --method all --ratio 100 200 500

The same command again skips what is done, resumes what was interrupted, and prints the leaderboard.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.arguments import add_output, add_request, check_format, load_plugins, request_from, resuming
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, named_path, new_file, script
from ltbench.benchmarks.training.request import write_request
from ltbench.errors import UserError

if TYPE_CHECKING:
    from ltbench.benchmarks.executors.execution import Execution
    from ltbench.benchmarks.training.planning.plan import Plan


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("run"),
        description=about(__doc__, "run"),
        epilog="methods, datasets and presets are listed by --list",
        allow_abbrev=False,
    )
    add_request(parsed)
    add_output(parsed)
    more = parsed.add_argument_group("instead, and beside")
    about_list = "list what there is, or explain methods and their hyper-parameters"
    more.add_argument("--list", nargs="*", metavar="METHOD", help=about_list)
    about_saved = "also write the request, YAML or JSON, for --config; with --dry-run, write it and train nothing"
    about_trials = "run trials of a job array: of this file, which --executor slurm writes"
    more.add_argument("--trials-of", type=named_path, metavar="FILE", help=about_trials)
    more.add_argument("--element", type=int, metavar="N", help="which of them, $SLURM_ARRAY_TASK_ID; with --trials-of")
    more.add_argument("--save-config", type=new_file, metavar="FILE", help=about_saved)
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 bad input, 130 interrupted, 143 terminated."""
    arguments = sys.argv[1:] if arguments is None else arguments
    again = f"{invocation('run')} {shlex.join(resuming(arguments))}"
    return guarded(lambda: _main(parser().parse_args(arguments)), hint=f"; resume with: {again}")


def _main(options: argparse.Namespace) -> int:
    if options.list is not None:
        return _list(options)
    if options.trials_of is not None or options.element is not None:
        return _run_element(options)
    check_format(options.format)
    request = request_from(options)
    from ltbench.benchmarks.training.planning.plan import plan

    planned = plan(request, run_next=not options.dry_run)
    if options.save_config is not None:
        write_request(options.save_config, request)
        print(f"request written to {options.save_config}", file=sys.stderr)
    return carry_out(planned, dry_run=options.dry_run, style=options.format)


def carry_out(planned: Plan, *, dry_run: bool = False, style: str = "github") -> int:
    """Describe a plan, run its trials, and print the leaderboards of its settings; return the exit code.

    Parameters
    ----------
    dry_run : describe it alone; writes nothing
    style : format of the tables
    """
    from ltbench.benchmarks.cli.outcomes import report_outcomes
    from ltbench.benchmarks.cli.plan_text import plan_text
    from ltbench.benchmarks.cli.time_left import Estimates, TimeLeft, missing_text
    from ltbench.benchmarks.executors.execution import Execution
    from ltbench.benchmarks.throughput import images_per_second

    execution = Execution(planned)
    deferred = execution.deferred  # refuses the executor before anything is printed
    print(plan_text(planned), flush=True)
    results = [record.result for record in execution.earlier().records]
    if dry_run:
        measure = cache(partial(images_per_second, planned))
        print(missing_text(TimeLeft([Estimates(planned, results, measure)]), planned))
        return 0
    left = TimeLeft([Estimates(planned, results)])
    code = report_outcomes(execution.outcomes(), left)
    if deferred:
        return code
    _print_leaderboards(execution, style, planned)
    return code


def _run_element(options: argparse.Namespace) -> int:
    """Run the trials of one element of a job array; return the exit code."""
    from ltbench.benchmarks.cli.outcomes import report_outcomes
    from ltbench.benchmarks.executors.execution import Execution
    from ltbench.benchmarks.executors.slurm import requests_of
    from ltbench.benchmarks.training.planning.plan import plan

    own, plain = {"trials_of", "element"}, vars(parser().parse_args([]))
    others = sorted(name for name, value in vars(options).items() if name not in own and value != plain.get(name))
    if options.trials_of is None or options.element is None or others:
        more = f" and no other option, got {', '.join(others)}" if others else ""
        raise UserError(f"--trials-of FILE and --element N go together{more}")
    requests = requests_of(options.trials_of, options.element)
    codes = [report_outcomes(Execution(plan(request)).outcomes()) for request in requests]
    return next((code for code in codes if code), 0)


def _list(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.cli.listing import describe_method, listing

    load_plugins(options)
    print("\n\n".join(map(describe_method, options.list)) if options.list else listing())
    return 0


def _print_leaderboards(execution: Execution, style: str, planned: Plan) -> None:
    """Print the tables of all records that share a setting with the plan: one of ratios where there are several."""
    from ltbench.benchmarks.analysis.record_files.damage import left_out
    from ltbench.benchmarks.analysis.tables import all_tables
    from ltbench.benchmarks.cli.outcomes import report_damaged
    from ltbench.benchmarks.cli.table_output import print_tables, remedy_elsewhere

    shared, others, damaged = execution.related()
    own = set(planned.trial_folders())  # whose outcomes have been reported
    report_damaged(reason for folder, reason in damaged.items() if folder not in own)
    if shared.records:
        # CSV has the ratio as a column of the overview.
        kinds = ["overview", "ratios"] if len(planned.datasets) > 1 and style != "csv" else ["overview"]
        print()
        print_tables(all_tables(shared.records, kinds, left_out(damaged)), style, remedy_elsewhere(planned.request.out))
    if others:
        print(f"\n{others} results of other protocols or splits are not mixed in; see `{invocation('leaderboard')}`")


if __name__ == "__main__":
    script(__file__)
