"""How long the trials of a command take: from finished ones of their kind, else from the images of all their stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.errors import counted

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Result
    from ltbench.benchmarks.training.planning.plan import Plan, PlannedRow


class Estimates:
    """Estimates the seconds of a trial.

    Parameters
    ----------
    planned : whose protocol and device count; results on another device are left out
    results : of finished trials under its settings
    measure : returns training images per second where no result tells; None: such a trial has no estimate
    """

    def __init__(self, planned: Plan, results: Iterable[Result], measure: Callable[[], float] | None = None) -> None:
        from ltbench.benchmarks.training.device import describe_device

        self.planned, self._measure, self._images = planned, measure, dict[Path, int]()
        device = describe_device(planned.device)
        self._results = [result for result in results if result.device == device]

    def add(self, result: Result) -> None:
        """Use a trial that has just ended, too."""
        self._results.append(result)

    def seconds(self, row: PlannedRow) -> tuple[float | None, str]:
        """Return seconds of one trial, None where nothing is known, and from what they are known."""
        alike = [result for result in self._results if _is_of(result, row)]
        if alike:
            own = [result for result in alike if result.data.ratio == row.dataset.ratio]
            each = [_seconds_per_image(result) for result in own or alike]
            seconds = int(row.dataset.class_counts.sum()) * sum(each) / len(each)
            return seconds, "done trials of this run" if own else "its trials at other ratios, by images"
        if self._results:
            total = sum(result.cost.train_seconds for result in self._results)
            rate = total / sum(result.cost.images_seen for result in self._results)
            return self._most_images(row) * rate, "done trials of other runs, all epochs"
        if self._measure is None:
            return None, ""
        return self._most_images(row) / self._measure(), "a measured step, all epochs"

    def _most_images(self, row: PlannedRow) -> int:
        if row.folder not in self._images:
            self._images[row.folder] = most_images(self.planned, row)
        return self._images[row.folder]


class TimeLeft:
    """How many trials of a command are done, and the time that the others may take.

    Parameters
    ----------
    estimates : for each plan of the command
    """

    def __init__(self, estimates: Sequence[Estimates]) -> None:
        from ltbench.benchmarks.training.trial import is_done

        self._left = {
            row.trial_folder(trial).absolute(): (each, row)
            for each in estimates
            for row in each.planned.rows
            for trial in each.planned.request.trial_numbers
        }
        self.total = len(self._left)
        if not estimates[0].planned.request.fresh:
            self._left = {folder: known for folder, known in self._left.items() if not is_done(folder)}

    @property
    def missing(self) -> int:
        """Trials that are not done."""
        return len(self._left)

    @property
    def seconds(self) -> float | None:
        """Time that the others may take; None where nothing is known of one of them."""
        total = 0.0
        for estimates, row in self._left.values():
            seconds = estimates.seconds(row)[0]
            if seconds is None:
                return None
            total += seconds / estimates.planned.jobs
        return total

    def ended(self, folder: Path, result: Result | None) -> None:
        """Count a trial that has ended, with its result where it has just been trained."""
        known = self._left.pop(folder.absolute(), None)
        if known and result:
            known[0].add(result)

    def text(self) -> str:
        """Return it in words, e.g. `3 of 33 trials done, about 12 min left`."""
        left = "" if not self.missing or self.seconds is None else f", about {duration(self.seconds)} left"
        return f"{self.total - self.missing} of {self.total} trials done{left}"


def most_images(planned: Plan, row: PlannedRow) -> int:
    """Return the images that all stages of a method train on at most, by its hook `most_steps`."""
    from ltbench.benchmarks.training.trial import build_method
    from ltbench.methods import registry
    from ltbench.methods.base import Method

    passes, cls, protocol = _Passes(planned, row), registry.get(row.method.name), planned.protocol
    if cls.most_steps is Method.most_steps or protocol.budget == "total":
        return passes.steps(protocol.epochs)
    config = cls.Config(**row.method.hyperparameters)
    method = build_method(cls, config, protocol.without_weights(), row.dataset.class_counts, protocol.seed)
    like_a_run: Any = passes  # it has what the hook may use
    return method.most_steps(like_a_run)


@dataclass(frozen=True)
class _Passes:
    """A run as the hook `most_steps` sees it, whose steps are images."""

    planned: Plan
    row: PlannedRow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.planned.protocol, name)

    @property
    def shared_encoder(self) -> bool:
        """Whether pre-training is the protocol's."""
        return self.planned.protocol.shared_encoder

    @property
    def class_counts(self) -> np.ndarray:
        """Of the training images, int64 [K]."""
        return self.row.dataset.class_counts

    @property
    def labels(self) -> np.ndarray:
        """Of the training images, int64 [N]."""
        return np.repeat(np.arange(len(self.class_counts)), self.class_counts)

    def steps(self, epochs: int, batch_size: int | None = None) -> int:
        """Return the images of some epochs, whatever the batch size."""
        return epochs * int(self.class_counts.sum())


def _seconds_per_image(result: Result) -> float:
    return result.cost.train_seconds / sum(result.data.class_counts)


def _is_of(result: Result, row: PlannedRow) -> bool:
    return result.method == row.method.name and result.hyperparameters == dict(row.method.hyperparameters)


def missing_text(left: TimeLeft, planned: Plan) -> str:
    """Return a line on the trials that are missing: how many, how long they may take, and where."""
    if not left.missing:
        return "everything is done"
    about = "" if left.seconds is None else f" about {duration(left.seconds)},"
    return f"{counted(left.missing, 'trial')} missing:{about} {planned.jobs} side by side on {planned.device}"


def duration(seconds: float) -> str:
    """Return a time in words.

    Examples
    --------
    >>> duration(5400)
    '90 min'
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
