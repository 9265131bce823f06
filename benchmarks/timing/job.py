"""The README's job by part, and its trials side by side against one alone."""

from __future__ import annotations

import contextlib
import io
import statistics
from pathlib import Path
from typing import Any

import torch

from ltbench.benchmarks import leaderboard
from ltbench.benchmarks.executors.execution import Execution
from ltbench.benchmarks.timing.stopwatch import Stopwatch, Watched
from ltbench.benchmarks.training import trial
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal
from ltbench.benchmarks.training.planning.plan import plan
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.stages.checkpoints import Checkpoints
from ltbench.benchmarks.training.trainer import Trainer
from ltbench.datasets.images.store import StoreBuilder
from ltbench.errors import UserError

METHODS = ("ce", "rs", "flex")
"""Of the job in the README."""

_CHECKPOINTS = "checkpoints"
_WATCHED: Watched = {
    (StoreBuilder, "build"): "images",
    (Trainer, "train_epoch"): lambda trainer, stage, *others: f"training: {stage.name.rstrip('0123456789')}",
    (Inference, "logits"): "validation",
    (Inference, "features"): "features and MC dropout",
    (Inference, "mc_scores"): "features and MC dropout",
    (Inference, "inspected"): "evaluation",
    (trial, "evaluate"): "evaluation",
    (Checkpoints, "keep"): _CHECKPOINTS,
    (Checkpoints, "__exit__"): _CHECKPOINTS,
    (Journal, "commit"): _CHECKPOINTS,
}


def by_part(folder: Path, device: torch.device, **changes: Any) -> dict[str, float]:
    """Return the seconds of each part of the README's job, one trial of each method, in this process.

    Parameters
    ----------
    folder : of the results
    changes : other fields of the request
    """
    request = Request(**{**_request(folder, device, METHODS), "trials": 1, **changes})
    watch = Stopwatch()
    with watch.watching(_WATCHED):
        with watch.part("plan"):
            planned = plan(request)
        with watch.part("rest of the trials"):
            _finish(Execution(planned))
        with watch.part("tables"), contextlib.redirect_stdout(io.StringIO()):
            leaderboard.main(["--results", str(folder)])
    return dict(watch.seconds)


def side_by_side(folder: Path, device: torch.device, trials: int, **changes: Any) -> tuple[float, float]:
    """Return how many seconds a trial of ce trains alone, and on average where several run side by side.

    Parameters
    ----------
    folder : of the results
    trials : at least 2
    changes : other fields of the request
    """
    found = []
    for number in (1, trials):
        fields = {**_request(folder / str(number), device, ("ce",)), "trials": number, "jobs": number}
        execution = Execution(plan(Request(**{**fields, **changes})))
        _finish(execution)
        seconds = [record.result.cost.train_seconds for record in execution.results().records]
        found.append(statistics.mean(seconds))
    return found[0], found[1]


def _request(folder: Path, device: torch.device, methods: tuple[str, ...]) -> dict[str, Any]:
    return {
        "methods": methods,
        "ratios": 100,
        "dataset": "synthetic",
        "device": str(device),
        "jobs": 1,
        "out": folder,
    }


def _finish(execution: Execution) -> None:
    """Run the trials of a plan in silence.

    Raises
    ------
    UserError : one failed
    """
    with contextlib.redirect_stderr(io.StringIO()):
        for outcome in execution.outcomes():
            if outcome.status == "failed":
                raise UserError(outcome.message)
