"""A request from its plan to its results."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.results import Results
from ltbench.benchmarks.executors.base import Executor, check_executor, executor_of
from ltbench.benchmarks.training.planning.plan import Plan, plan, prepare
from ltbench.benchmarks.training.request import Request
from ltbench.errors import UserError

if TYPE_CHECKING:
    from ltbench.benchmarks.executors.attempts import Outcome


class Execution:
    """The trials of a plan, from the first file written to their results.

    Parameters
    ----------
    planned : as `plan` returned it
    """

    def __init__(self, planned: Plan) -> None:
        self._planned = planned

    @property
    def deferred(self) -> bool:
        """Whether the trials run after the command has ended."""
        return self._executor.deferred

    @cached_property
    def _executor(self) -> Executor:
        return executor_of(self._planned)

    def outcomes(self) -> Iterator[Outcome]:
        """Run the trials that are not done; yield their outcomes as they come.

        Raises
        ------
        UserError : the results folder, the images or the executor cannot be used, or earlier trials that are in use are
            to be discarded
        """
        from ltbench.benchmarks.training.trial import discard

        executor = self._executor  # refuses its name or address before anything is written
        if self._planned.request.fresh:
            for folder in self._planned.trial_folders():
                discard(folder)
        yield from executor.outcomes(prepare(self._planned))

    def results(self) -> Results:
        """Return the results of the plan's trials that are done."""
        return Results.of_trials(self._planned.trial_folders())

    def earlier(self) -> Results:
        """Return all results under the plan's settings, none where there is no results folder yet."""
        return self.related()[0] if self._planned.request.out.is_dir() else Results(())

    def related(self) -> tuple[Results, int, dict[Path, str]]:
        """Return all results under the plan's settings, and what else there is of the same data and ratios.

        That is how many results of other settings, and of each record that cannot be read what is wrong,
        by its folder.
        """
        from ltbench.benchmarks.analysis.record_files.damage import sound_records
        from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
        from ltbench.benchmarks.analysis.standings import key_of, setting_key

        planned = self._planned
        folders = dict.fromkeys(row.folder.parent.name for row in planned.rows)
        out = planned.request.out
        derived = DerivedFiles.under(out)
        found = [sound_records(out, f"{name}/*/trial*/result.json", derived) for name in folders]
        records = [record for sound, _ in found for record in sound]
        protocol = planned.protocol.digest()
        threads = planned.deciding_threads
        trial = planned.request.trial_numbers[0]
        wanted = {
            setting_key(planned.described(row, trial), row.dataset_of(trial).manifest.digest, protocol, threads)
            for row in planned.rows
        }
        shared = tuple(record for record in records if key_of(record.result) in wanted)
        return (
            Results(shared),
            len(records) - len(shared),
            dict(pair for _, damaged in found for pair in damaged.items()),
        )


def run(request: Request) -> Results:
    """Run the trials of a request that are not done yet; return the results of all of them.

    Progress is shown on stderr. What is done stays on disk and is skipped the next time. Trials that an executor runs
    later, as `slurm` does, are not among the results.

    Raises
    ------
    UserError : anything that the user can fix; of a trial, when all others have been run; another process is running
        a trial
    RuntimeError : a trial failed in another way; the message ends with its traceback
    """
    check_executor(request.executor)
    execution = Execution(plan(request, run_next=True))
    ended = list(execution.outcomes())
    failed = [outcome for outcome in ended if outcome.status == "failed"]
    for outcome in failed:
        if outcome.details:
            raise RuntimeError(f"{outcome.message}\n{outcome.details}")
    if failed:
        raise UserError(failed[0].message)
    for outcome in ended:
        if outcome.status == "busy":
            raise UserError(f"{outcome.message}; ask again when it is done")
    return execution.results()
