"""How trials end, as lines and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import EXIT_BAD_INPUT
from ltbench.errors import in_one_line
from ltbench.files import Pace

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Result
    from ltbench.benchmarks.cli.time_left import TimeLeft
    from ltbench.benchmarks.executors.attempts import Outcome


def report_outcomes(outcomes: Iterable[Outcome], left: TimeLeft | None = None) -> int:
    """Print how each trial ended, and how much is left of the command, every 20 seconds at most.

    Parameters
    ----------
    left : of the command; None: not shown, as for a part of a job array

    Returns
    -------
    the exit code: 0 also where trials are left to other processes, 2 the user can fix a failure, 1 there is another
    """
    from ltbench.benchmarks.analysis.records import read_result

    failures: list[Outcome] = []
    pace = Pace()
    for outcome in outcomes:
        folder = outcome.spec.folder
        result = read_result(folder / "result.json") if outcome.status == "done" else None
        if left is not None:
            left.ended(folder, result)
        if outcome.status == "failed":
            failures.append(outcome)
            print(outcome.details, end="", file=sys.stderr)
            print(f"error: {in_one_line(outcome.message)}", file=sys.stderr, flush=True)
        elif outcome.status == "busy":
            print(f"{in_one_line(outcome.message)}; the tables lack it until it is done", file=sys.stderr, flush=True)
        elif result is not None:
            print(f"{outcome.spec.label}: {_finished(result)}", file=sys.stderr, flush=True)
        if left is not None and left.missing and pace.due:
            print(left.text(), file=sys.stderr, flush=True)
            pace.restart()
    if not failures:
        return 0
    return 1 if any(outcome.details for outcome in failures) else EXIT_BAD_INPUT


def report_damaged(damaged: Iterable[str]) -> None:
    """Name the damaged records of a results folder on stderr, a line each."""
    for reason in damaged:
        print(f"left out: {in_one_line(reason)}", file=sys.stderr, flush=True)


def _finished(result: Result) -> str:
    selected, cost = result.selection, result.cost
    return (
        f"test mean per-class accuracy {100 * result.test['mean_class_accuracy']:.2f} "
        f"(stage {selected.stage}, epoch {selected.epoch + 1}, validation {100 * selected.score:.2f}; "
        f"{cost.train_seconds:.0f} s of training)"
    )
