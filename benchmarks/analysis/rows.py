"""A row of a table: one method with one choice of hyper-parameters in one setting, over all its trials.

Every number is computed from the trials' saved predictions. Those of the folds of a cross-validation are pooled: they
count as one trial, in which each image is tested once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ltbench.benchmarks.analysis.probabilities import class_members
from ltbench.benchmarks.analysis.records import Record, Result
from ltbench.benchmarks.analysis.statistics.intervals import (
    Estimate,
    class_interval,
    fold_inflation,
    image_weights,
    interval,
)
from ltbench.benchmarks.analysis.summaries import Summary, pooled_summary, summary_of
from ltbench.errors import UserError, counted

ACCURACY, GROUP_MEAN = "mean_class_accuracy", "mean_of_group_means"
"""The metric that ranks, and the paper's "All" on ISIC-Archive-LT."""

_DIGITS = 12  # of a mean, beyond which sums in another order differ

_COMPUTING = 0.8  # share of its time in which a trial on the CPU computes, unless other work is beside it
_UNKNOWN = Estimate(*[float("nan")] * 5)


def comparable(values: ArrayLike) -> np.ndarray:
    """Return means as they are ranked: rounded, so that those that differ by the order of a sum alone are equal."""
    return np.round(np.asarray(values, dtype=np.float64), _DIGITS)


@dataclass(frozen=True)
class Row:
    """All trials of one method with the same hyper-parameters in one setting.

    Attributes
    ----------
    name : the method, and the hyper-parameters that differ from its defaults
    records : by trial
    """

    name: str
    records: tuple[Record, ...]

    @property
    def result(self) -> Result:
        """The first trial's result."""
        return self.records[0].result

    @property
    def trials(self) -> tuple[int, ...]:
        """Numbers of the trials."""
        return tuple(record.result.trial for record in self.records)

    def of_trials(self, trials: Sequence[int]) -> Row:
        """Return the row with some of its trials alone."""
        kept = tuple(record for record in self.records if record.result.trial in set(trials))
        return self if kept == self.records else Row(self.name, kept)

    @cached_property
    def test_ids(self) -> np.ndarray:
        """Names of the images that any trial was tested on, [n]."""
        return self._images[0]

    @cached_property
    def labels(self) -> np.ndarray:
        """Their classes, int64 [n]."""
        return self._images[1]

    @cached_property
    def tested(self) -> np.ndarray:
        """Which of them each trial was tested on, bool [T, n]; all, unless each trial draws its own split."""
        return self._images[2] >= 0

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each image is right in each trial, bool [T, n]; False where it was not tested."""
        found = np.zeros(self.tested.shape, dtype=bool)
        for own, places, trial in zip(found, self._images[2], self.summaries, strict=True):
            own[places >= 0] = trial.right[places[places >= 0]]
        return found

    @cached_property
    def test_counts(self) -> np.ndarray:
        """Images of each class that each trial was tested on, int64 [T, K]."""
        classes = len(self.result.data.class_names)
        return np.stack([np.bincount(own.labels, minlength=classes) for own in self.summaries])

    @cached_property
    def lesions(self) -> np.ndarray | None:
        """Lesion of each test image, str [n], from the split; None where each image is of another, or no split lies by.

        Raises
        ------
        UserError : the split was changed
        """
        lesion: dict[str, str] = {}
        for summary in self.summaries if self._varied else self.summaries[:1]:
            if summary.lesions is None:
                return None
            lesion |= dict(zip(summary.ids.tolist(), summary.lesions.tolist(), strict=True))
        found = np.array([lesion[image_id] for image_id in self.test_ids.tolist()])
        return found if len(np.unique(found)) < len(found) else None

    @property
    def folds(self) -> int:
        """How many folds there are, of which `trials` are here, pooled; 0 where trials are not folds."""
        return self.result.folds

    @property
    def repeats(self) -> str:
        """How many trials there are, or folds and of how many, in words."""
        if not self.folds:
            return counted(len(self.trials), "trial")
        missing = len(self.trials) < self.folds
        return f"{len(self.trials)} of {self.folds} folds" if missing else f"{self.folds} folds"

    @property
    def extent(self) -> str:
        """What a mean of the row is over: n = so many trials, or folds, pooled."""
        return f"{self.repeats}, pooled" if self.folds else f"n = {self.repeats}"

    @property
    def inflation(self) -> float:
        """Factor of the variance that images show: 1, unless they are those of folds."""
        return fold_inflation(self.folds) if self.folds else 1.0

    @property
    def _varied(self) -> bool:
        return self.result.data.varied_from is not None and not self.folds

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """Decisions and metrics of each trial, of folds those of all together.

        Raises
        ------
        UserError : predictions are missing, corrupt or altered, or contradict the result; or trials of one split have
            other test images; or folds share one
        """
        if self.folds:
            return (pooled_summary(self.records),)
        found = tuple(summary_of(record) for record in self.records)
        for record, own in zip(self.records, found, strict=True):
            same = np.array_equal(own.ids, found[0].ids) and np.array_equal(own.labels, found[0].labels)
            if not (self._varied or same):
                raise other_images(record, self.records[0])
        return found

    @cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids [n] and labels [n] of all test images, and the place of each in a trial's predictions, -1 for none."""
        ids, labels = self.summaries[0].ids, self.summaries[0].labels
        if not self._varied:
            return ids, labels, np.tile(np.arange(len(ids)), (len(self.summaries), 1))
        every, first = np.unique(np.concatenate([own.ids for own in self.summaries]), return_index=True)
        places = np.full((len(self.summaries), len(every)), -1)
        for own, trial in zip(places, self.summaries, strict=True):
            own[np.searchsorted(every, trial.ids)] = np.arange(len(trial.ids))
        return every, np.concatenate([own.labels for own in self.summaries])[first], places

    @property
    def measured(self) -> tuple[Mapping[str, Any], ...]:
        """All metrics of each trial, from its predictions; errors as for `summaries`."""
        return tuple(own.measured["test"] for own in self.summaries)

    @property
    def measured_alone(self) -> tuple[Mapping[str, Any], ...]:
        """All metrics of each trial, and of each fold by itself, from its predictions; errors as for `summaries`."""
        return tuple(summary_of(record).measured["test"] for record in self.records) if self.folds else self.measured

    @cached_property
    def accuracy(self) -> Estimate:
        """Mean per-class accuracy, with its 95 % interval over trials and test images."""
        return self.estimate(ACCURACY)

    def estimate(self, metric: str) -> Estimate:
        """Return an accuracy with its 95 % interval over trials and test images, NaN where it is undefined.

        Parameters
        ----------
        metric : `mean_class_accuracy`, `mean_of_group_means`, or a group's name
        """
        mean = ClassMean.of(self, metric)
        if mean is None:
            return _UNKNOWN
        clusters = None if self.lesions is None else self.lesions[mean.used]
        tested = self.tested[:, mean.used]
        return interval(
            mean.scores(self),
            mean.labels,
            class_weights=mean.weights,
            clusters=clusters,
            tested=tested,
            inflation=self.inflation,
        )

    def class_estimate(self, label: int) -> Estimate:
        """Return the accuracy of a class with its 95 % interval, NaN where a trial has no image of it."""
        own = self._members[label]
        if not len(own):
            return _UNKNOWN
        tested, lesions = self.tested[:, own], None if self.lesions is None else self.lesions[own]
        if not tested.any(axis=1).all():
            return _UNKNOWN
        return class_interval(self.right[:, own], lesions, tested, inflation=self.inflation)

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """Places of each class's images among the test images."""
        return class_members(self.labels, len(self.result.data.class_names))

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each trial, float64 [T], NaN where it is undefined."""
        return np.array([own[metric] for own in self.measured], dtype=np.float64)

    def values_alone(self, metric: str) -> np.ndarray:
        """Return a metric of each trial, and of each fold by itself, float64 [records], NaN where it is undefined."""
        return np.array([own[metric] for own in self.measured_alone], dtype=np.float64)

    def validation_gap(self) -> np.ndarray:
        """Return mean per-class accuracy of the reported epoch on validation, minus test, float64 [T]."""
        return np.array([record.result.val["mean_class_accuracy"] for record in self.records]) - self.values(ACCURACY)

    def recalls(self) -> np.ndarray:
        """Return the accuracy of each class, float64 [T, K], NaN for one without a test image."""
        return np.array([own["per_class_accuracy"] for own in self.measured], dtype=np.float64)

    def costs(self, name: str) -> np.ndarray:
        """Return a cost of each trial, float64 [T], NaN where the record does not tell."""
        own = [getattr(record.result.cost, name) for record in self.records]
        return np.array([np.nan if value is None else value for value in own], dtype=np.float64)

    @property
    def has_own_times(self) -> bool:
        """Whether it is known of each trial that its core, of a CPU, had no other work in 80 % of its time."""
        return bool((self._computing_seconds >= _COMPUTING * self.costs("train_seconds")).all())

    @property
    def has_waited(self) -> bool:
        """Whether a trial on the CPU computed in less than 80 % of its time: its core had other work, too."""
        return bool((self._computing_seconds < _COMPUTING * self.costs("train_seconds")).any())

    @property
    def _computing_seconds(self) -> np.ndarray:
        """CPU seconds of each trial, float64 [T], NaN where the record does not tell, and on other devices."""
        on_cpu = np.array([record.result.device_type == "cpu" for record in self.records])
        return np.where(on_cpu, self.costs("cpu_seconds"), np.nan)


@dataclass(frozen=True)
class ClassMean:
    """A weighted mean of class accuracies.

    Attributes
    ----------
    weights : of the classes, float64 [K], 0 for those that do not count
    used : the test images that count, bool [n]
    labels : of those, int64
    """

    weights: np.ndarray
    used: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, row: Row, metric: str) -> ClassMean | None:
        """Return what a metric is a mean of; None where a class of it has no test image, or a group no class."""
        tested = np.asarray((row.test_counts > 0).all(axis=0))
        groups = {name: list(members) for name, members in row.result.data.groups.items() if len(members)}
        weights = np.zeros(len(tested))
        if metric == ACCURACY:
            weights[tested] = 1 / tested.sum()
        elif metric == GROUP_MEAN:
            for members in groups.values():
                weights[members] = 1 / (len(groups) * len(members))
        elif metric in groups:
            weights[groups[metric]] = 1 / len(groups[metric])
        if not weights.any() or weights[~tested].any():
            return None
        used = weights[row.labels] > 0
        return cls(weights, used, row.labels[used])

    def scores(self, row: Row) -> np.ndarray:
        """Return what each image that counts adds to the mean in each trial, float64 [T, number of them]."""
        return row.right[:, self.used] * image_weights(self.labels, self.weights, row.tested[:, self.used])


def other_images(record: Record, other: Record) -> UserError:
    """Return the error of two records of one split whose test images differ."""
    reason = f"has other test images than {other.folder}, of the same split"
    return UserError(f"{record.folder} {reason}; run the trial again with --fresh")
