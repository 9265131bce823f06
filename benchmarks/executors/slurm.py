"""Trials as a job array of SLURM: writes the file of trials and the script that `sbatch` takes, and runs nothing."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from ltbench.benchmarks.executors.attempts import Outcome, checked_done
from ltbench.benchmarks.executors.base import Executor, register
from ltbench.benchmarks.executors.producers import producers
from ltbench.benchmarks.executors.versions import installed_versions, require_same_versions
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import UserError, counted
from ltbench.files import json_digest, require_regular, write_bytes

_MOST_ELEMENTS = 1000  # of an array, by default of SLURM
_STOP_SECONDS = 120  # before the time limit

_SCRIPT = """\
#!/bin/bash
{directives}
# Before the time limit (USR1) the trial stops at its checkpoint, and this element is queued again. On TERM, of scancel
# or of preemption, it stops as well; SLURM itself queues what it has preempted.
limit=
trap 'limit=1; kill -TERM "$program" 2>/dev/null' USR1
trap 'kill -TERM "$program" 2>/dev/null' TERM
{command} --element "$SLURM_ARRAY_TASK_ID" &
program=$!
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do # a signal has interrupted the wait
    wait "$program"
    code=$?
done
if [ -n "$limit" ] && [ "$code" -ne 0 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


@register("slurm")
class SlurmExecutor(Executor):
    """Writes a job array, each element of which runs one trial, or several where there are more than 1000."""

    deferred = True

    def outcomes(self, specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
        """Write the array of the trials that are not done; yield the outcomes of those that are."""
        done, left = checked_done(specs)
        yield from done
        if not left:
            return
        after = producers(specs)
        ordered = sorted(left, key=lambda spec: spec.folder in after)
        elements, versions = min(len(ordered), _MOST_ELEMENTS), installed_versions()
        lines = [
            json.dumps({"element": number % elements, "request": self._request(spec).as_dict(), "versions": versions})
            for number, spec in enumerate(ordered)
        ]
        folder = self.planned.request.out.absolute() / "slurm"
        trials = folder / f"{json_digest(lines)[:8]}.jsonl"
        script = trials.with_suffix(".sbatch")
        write_bytes(trials, "".join(f"{line}\n" for line in lines).encode())
        write_bytes(script, self._script(trials, elements).encode())
        print(
            f"{counted(len(left), 'trial')} in {counted(elements, 'element')} of an array; submit it by:",
            file=sys.stderr,
        )
        print(f"sbatch {shlex.quote(str(script))}", flush=True)

    def _request(self, spec: TrialSpec) -> Request:
        """Return the request that runs one trial, in any working folder."""
        own = {"out": str(self.planned.request.out.absolute()), "device": spec.device.partition(":")[0], "jobs": 1}
        mirror = {"wandb": spec.wandb, "wandb_artifacts": spec.wandb_artifacts}
        return Request(**{**spec.request, **own, **mirror})

    def _script(self, trials: Path, elements: int) -> str:
        at_once = f"%{self.planned.request.jobs}" if self.planned.request.jobs else ""
        options = {
            "job-name": "ltbench",
            "array": f"0-{elements - 1}{at_once}",
            "cpus-per-task": self.planned.threads,
            **({"gpus": 1} if self.planned.device.type == "cuda" else {}),
            "output": trials.with_name("%A_%a.log"),
            "signal": f"B:USR1@{_STOP_SECONDS}",
        }
        directives = [f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items()] + [
            "#SBATCH --requeue"
        ]
        command = [sys.executable, "-m", "ltbench", "run", "--trials-of", str(trials)]
        return _SCRIPT.format(directives="\n".join(directives), command=shlex.join(command))


def requests_of(path: Path, element: int) -> list[Request]:
    """Return the requests of one element of a file of trials.

    Raises
    ------
    UserError : the file is missing or empty, a line of it is no trial, it has no such element, or this machine has
        other versions than the one that planned them
    """
    remedy = "--executor slurm writes such a file"
    try:
        lines = require_regular(path).read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--trials-of {path} is not readable ({error}); {remedy}") from error
    if not lines:
        raise UserError(f"--trials-of {path} is empty; {remedy}")
    trials: list[tuple[int, Request, dict[str, str]]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            trials.append((int(row["element"]), Request(**row["request"]), dict(row["versions"])))
            if trials[-1][1].elsewhere:
                raise ValueError("its executor is not local")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"--trials-of {path}, line {number}, is no trial ({error}); {remedy}") from error
    found = [(request, versions) for own, request, versions in trials if own == element]
    if not found:
        raise UserError(f"--element must be from 0 to {max(trials, key=itemgetter(0))[0]} in {path}, got {element}")
    for _, versions in found:
        require_same_versions({platform.node(): installed_versions()}, versions)
    return [request for request, _ in found]
