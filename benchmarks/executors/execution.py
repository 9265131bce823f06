"""A request from its plan to its results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ltbench.benchmarks.analysis.results import Results
from ltbench.benchmarks.training.plan import Plan, plan, prepare
from ltbench.benchmarks.training.request import Request
from ltbench.errors import UserError
from ltbench.processes import preload

if TYPE_CHECKING:
    from ltbench.benchmarks.executors.local import Outcome


def plan_ahead(request: Request) -> Plan:
    """Return the plan of a request that is to be executed; worker processes import what they need meanwhile.

    Raises
    ------
    UserError : anything that the user can fix
    """
    if request.jobs != 1 and not request.device.startswith("cuda"):
        preload(["ltbench.benchmarks.executors.local"])
    return plan(request)


def execute(planned: Plan) -> Iterator[Outcome]:
    """Run the trials of a plan that are not done; yield their outcomes as they come.

    Raises
    ------
    UserError : the results folder or the images cannot be used, or earlier trials that are in use are to be discarded
    """
    from ltbench.benchmarks.executors.local import run_trials
    from ltbench.benchmarks.training.trial import discard

    if planned.request.fresh:
        for folder in planned.trial_folders():
            discard(folder)
    yield from run_trials(prepare(planned), planned.jobs)


def run(request: Request) -> Results:
    """Run the trials of a request that are not done yet; return the results of all of them.

    Progress is shown on stderr. What is done stays on disk and is skipped the next time.

    Raises
    ------
    UserError : anything that the user can fix; of a trial, when all others have been run
    RuntimeError : a trial failed in another way; the message ends with its traceback
    """
    planned = plan_ahead(request)
    failed = [outcome for outcome in execute(planned) if outcome.status == "failed"]
    for outcome in failed:
        if outcome.details:
            raise RuntimeError(f"{outcome.message}\n{outcome.details}")
    if failed:
        raise UserError(failed[0].message)
    return Results.of_trials(planned.trial_folders())


def related(planned: Plan) -> tuple[Results, int, list[str]]:
    """Return the results under the settings of a plan, and what else there is of the same data and ratios.

    That is how many results of other settings, and for each record that cannot be read what is wrong.
    """
    from ltbench.benchmarks.analysis.damage import sound_records
    from ltbench.benchmarks.analysis.standings import key_of, setting_key
    from ltbench.benchmarks.training.trial_spec import described

    folders = dict.fromkeys(row.folder.parent.name for row in planned.rows)
    found = [sound_records(planned.request.out, f"{name}/*/trial*/result.json") for name in folders]
    records = [record for sound, _ in found for record in sound]
    protocol = planned.protocol.digest()
    wanted = {setting_key(described(each), each.manifest.digest, protocol) for each in planned.datasets}
    shared = tuple(record for record in records if key_of(record.result) in wanted)
    return Results(shared), len(records) - len(shared), [reason for _, damaged in found for reason in damaged]
