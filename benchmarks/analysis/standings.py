"""Finished trials as what tables and pictures compare: settings, rows of a setting, differences between rows.

A setting is what results must share to be compared: data, split, ratio, protocol. A row is one method with one choice
of hyper-parameters, over all its trials. Every number is computed from the trials' saved predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.intervals import Estimate, holm, image_weights, interval, paired_difference
from ltbench.benchmarks.analysis.metrics import evaluate, wilson_interval
from ltbench.benchmarks.analysis.records import DataDescription, Record, Result
from ltbench.errors import UserError
from ltbench.files import json_digest

BASELINE = "ce"
"""Row to which differences refer."""

SIGNIFICANT = 0.05
"""Adjusted p-value below which two rows are told apart."""

ACCURACY, GROUP_MEAN = "mean_class_accuracy", "mean_of_group_means"
"""The metric that ranks, and the paper's "All" on ISIC-Archive-LT."""

_AGREEMENT = 1e-9
_UNKNOWN = Estimate(*[float("nan")] * 5)


def setting_key(data: DataDescription, split_digest: str, protocol_digest: str) -> tuple[Any, ...]:
    """Return what two results must share to be compared."""
    return (data.dataset, data.variant, data.ratio, data.split, split_digest, protocol_digest)


def key_of(result: Result) -> tuple[Any, ...]:
    """Return the `setting_key` of a result."""
    return setting_key(result.data, result.split_digest, result.protocol_digest)


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

    @cached_property
    def labels(self) -> np.ndarray:
        """Classes of the test images, int64 [n], the same in all trials."""
        return self._predictions[1]

    @cached_property
    def logits(self) -> np.ndarray:
        """Of each trial, float [T, n, K]."""
        return self._predictions[2]

    @cached_property
    def test_ids(self) -> np.ndarray:
        """Names of the test images, [n]."""
        return self._predictions[0]

    @cached_property
    def _predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = [record.test_predictions() for record in self.records]
        ids, labels, _ = read[0]
        for record, (own_ids, own_labels, _) in zip(self.records, read, strict=True):
            if not (np.array_equal(ids, own_ids) and np.array_equal(labels, own_labels)):
                raise _foreign(record, self.records[0])
        return ids, labels, np.stack([logits for *_, logits in read])

    @cached_property
    def measured(self) -> tuple[dict[str, Any], ...]:
        """All metrics of each trial, from its predictions.

        Raises
        ------
        UserError : predictions and result of a trial contradict each other
        """
        groups, names = self.result.data.groups, self.result.data.class_names
        found = tuple(evaluate(self.labels, logits, groups, names) for logits in self.logits)
        for record, own in zip(self.records, found, strict=True):
            stated = record.result.test["mean_class_accuracy"]
            if abs(stated - own["mean_class_accuracy"]) > _AGREEMENT:
                raise UserError(
                    f"{record.folder}: predictions.npz gives a mean per-class accuracy of "
                    f"{own['mean_class_accuracy']:.6f}, result.json says {stated:.6f}; run the trial again with --fresh"
                )
        return found

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each image is right in each trial, bool [T, n]."""
        return self.logits.argmax(axis=2) == self.labels

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
        return _UNKNOWN if mean is None else interval(mean.scores(self), mean.labels, class_weights=mean.weights)

    def class_estimate(self, label: int) -> Estimate:
        """Return the accuracy of a class with its 95 % interval: over trials and images, of one trial Wilson's."""
        own = self.labels == label
        if not own.any():
            return _UNKNOWN
        right = self.right[:, own]
        found = interval(right / own.sum(), self.labels[own])
        if len(right) > 1:
            return found
        low, high = wilson_interval(right.sum(), own.sum())
        return replace(found, low=low, high=high)

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each trial, float64 [T], NaN where it is undefined."""
        return np.array([own[metric] for own in self.measured], dtype=np.float64)

    def recalls(self) -> np.ndarray:
        """Return the accuracy of each class, float64 [T, K], NaN for one without a test image."""
        return np.array([own["per_class_accuracy"] for own in self.measured], dtype=np.float64)

    def costs(self, name: str) -> np.ndarray:
        """Return a cost of each trial, float64 [T], NaN where the record does not tell."""
        own = [getattr(record.result.cost, name) for record in self.records]
        return np.array([np.nan if value is None else value for value in own], dtype=np.float64)


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
        tested = np.bincount(row.labels, minlength=len(row.result.data.class_names)) > 0
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
        return row.right[:, self.used] * image_weights(self.labels, self.weights)


@dataclass(frozen=True)
class Comparison:
    """A row against a reference, over the trials of both and on the same test images.

    Attributes
    ----------
    delta, low, high : difference in accuracy with its 95 % interval
    p_value : two-sided, Holm-adjusted over the rows that were compared; NaN for the reference itself
    reference : whether the row is the reference
    """

    delta: float
    low: float
    high: float
    p_value: float
    reference: bool = False

    @property
    def chance(self) -> bool:
        """Whether the difference can be chance."""
        return self.p_value >= SIGNIFICANT


@dataclass(frozen=True)
class Setting:
    """Records that may be compared.

    Attributes
    ----------
    rows : best mean per-class accuracy first
    """

    rows: tuple[Row, ...]

    @property
    def result(self) -> Result:
        """A result, for what all of them share."""
        return self.rows[0].result

    @property
    def baseline(self) -> Row | None:
        """The row of plain cross-entropy, if there is one."""
        return next((row for row in self.rows if row.name == BASELINE), None)

    def by_trials(self) -> list[tuple[Row, ...]]:
        """Return the rows apart by the trials that they have, those with the most first."""
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.trials, []).append(row)
        return [tuple(groups[trials]) for trials in sorted(groups, key=lambda trials: (-len(trials), trials))]


def compare(rows: Sequence[Row], reference: Row | None, metric: str = ACCURACY) -> list[Comparison]:
    """Return each row's difference to the reference: NaN without a common trial, 0 for the reference itself.

    Parameters
    ----------
    metric : as for `Row.estimate`
    """
    nothing = float("nan")
    found = [_difference(row, reference, metric) if reference else None for row in rows]
    adjusted = holm([nothing if each is None else each[1] for each in found])
    return [
        Comparison(0.0, nothing, nothing, nothing, reference=True)
        if row is reference
        else Comparison(nothing, nothing, nothing, nothing)
        if each is None
        else Comparison(each[0].value, each[0].low, each[0].high, float(p_value))
        for row, each, p_value in zip(rows, found, adjusted, strict=True)
    ]


def common_trials(row: Row, reference: Row) -> list[int]:
    """Return the numbers of the trials that both have."""
    return sorted(set(row.trials) & set(reference.trials))


def _difference(row: Row, reference: Row, metric: str) -> tuple[Estimate, float] | None:
    common, mean = common_trials(row, reference), ClassMean.of(row, metric)
    if row is reference or not common or mean is None:
        return None
    if not np.array_equal(row.test_ids, reference.test_ids):
        raise _foreign(row.records[0], reference.records[0])
    first, second = (mean.scores(each)[[each.trials.index(trial) for trial in common]] for each in (row, reference))
    return paired_difference(first, second, mean.labels, class_weights=mean.weights)


def _foreign(record: Record, other: Record) -> UserError:
    reason = f"has other test images than {other.folder}, of the same split"
    return UserError(f"{record.folder} {reason}; run the trial again with --fresh")


def settings_of(records: Iterable[Record]) -> list[Setting]:
    """Return the settings among records, in order of data, ratio and split.

    A row is a method with its hyper-parameters and, of a plug-in, its text. Where two would have the same name (a
    plug-in that was edited, defaults that changed), a digest of them is added, at all ratios of the data and protocol.
    """
    apart: dict[tuple[Any, ...], dict[str, list[Record]]] = {}
    versions: dict[tuple[Any, ...], set[str]] = {}
    for record in records:
        version = _version(record.result)
        versions.setdefault(_namesakes(record.result), set()).add(version)
        # Pixels are no part of the key that a plan knows: it is made before the images are decoded.
        key = (*key_of(record.result), record.result.data.pixels)
        apart.setdefault(key, {}).setdefault(version, []).append(record)

    def row(own: Sequence[Record]) -> Row:
        name = _name(own[0].result)
        if len(versions[_namesakes(own[0].result)]) > 1:
            name += f" [{_version(own[0].result)[:8]}]"
        return Row(name, tuple(sorted(own, key=lambda record: record.result.trial)))

    return [
        Setting(tuple(sorted(map(row, apart[key].values()), key=lambda row: -row.accuracy.value)))
        for key in sorted(apart)
    ]


def _namesakes(result: Result) -> tuple[Any, ...]:
    """Return what a row's name must tell it apart in: all ratios of the same data and protocol."""
    data = result.data
    return (_name(result), data.dataset, data.variant, data.split, result.protocol_digest)


def _version(result: Result) -> str:
    """Return a digest of what a row is: method, all hyper-parameters, text of a plug-in."""
    return json_digest([result.method, result.hyperparameters, result.plugin])


def _name(result: Result) -> str:
    changed = ", ".join(f"{name}={value}" for name, value in result.changed.items())
    return f"{result.method} ({changed})" if changed else result.method
