"""How trials end, as lines and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import EXIT_BAD_INPUT
from ltbench.errors import in_one_line

if TYPE_CHECKING:
    from ltbench.benchmarks.executors.attempts import Outcome


def report_outcomes(outcomes: Iterable[Outcome]) -> int:
    """Print how each trial ended; return the exit code: 0, 2 the user can fix a failure, 1 there is another one."""
    failures: list[Outcome] = []
    for outcome in outcomes:
        if outcome.status == "failed":
            failures.append(outcome)
            print(outcome.details, end="", file=sys.stderr)
            print(f"error: {in_one_line(outcome.message)}", file=sys.stderr, flush=True)
        elif outcome.status == "done":
            print(f"{outcome.spec.label}: {_finished(outcome.spec.folder)}", file=sys.stderr, flush=True)
    if not failures:
        return 0
    return 1 if any(outcome.details for outcome in failures) else EXIT_BAD_INPUT


def report_damaged(damaged: Iterable[str]) -> None:
    """Name the damaged records of a results folder on stderr, a line each."""
    for reason in damaged:
        print(f"left out: {in_one_line(reason)}", file=sys.stderr, flush=True)


def _finished(folder: Path) -> str:
    from ltbench.benchmarks.analysis.records import read_result

    result = read_result(folder / "result.json")
    selected, cost = result.selection, result.cost
    return (
        f"test mean per-class accuracy {100 * result.test['mean_class_accuracy']:.2f} "
        f"(stage {selected.stage}, epoch {selected.epoch + 1}, validation {100 * selected.score:.2f}; "
        f"{cost.train_seconds:.0f} s of training)"
    )
