"""Finished trials as what tables and pictures compare: settings, rows of a setting, differences between rows.

A setting is what results must share to be compared: data, split, ratio, protocol. A row is one method with one choice
of hyper-parameters, over all its trials. Every number is computed from the trials' saved predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ltbench.benchmarks.comparison import Estimate, class_balanced_scores, holm, interval, paired_difference
from ltbench.benchmarks.metrics import evaluate
from ltbench.benchmarks.records import Record
from ltbench.errors import UserError

BASELINE = "ce"
"""Row to which differences refer."""

SIGNIFICANT = 0.05
"""Adjusted p-value below which two rows are told apart."""

_SETTING = ("dataset", "variant", "ratio", "split", "split_digest", "protocol_digest")
_AGREEMENT = 1e-9


def setting_key(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two results must share to be compared."""
    return tuple(result[key] for key in _SETTING)


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
    def result(self) -> Mapping[str, Any]:
        """The first trial's result."""
        return self.records[0].result

    @property
    def trials(self) -> tuple[int, ...]:
        """Numbers of the trials."""
        return tuple(record.result["trial"] for record in self.records)

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
        groups, names = self.result["groups"], self.result["class_names"]
        found = tuple(evaluate(self.labels, logits, groups, names) for logits in self.logits)
        for record, own in zip(self.records, found, strict=True):
            stated = record.result["test"]["mean_class_accuracy"]
            if abs(stated - own["mean_class_accuracy"]) > _AGREEMENT:
                raise UserError(
                    f"{record.folder}: predictions.npz gives a mean per-class accuracy of "
                    f"{own['mean_class_accuracy']:.6f}, result.json says {stated:.6f}; run the trial again with --fresh"
                )
        return found

    @cached_property
    def scores(self) -> np.ndarray:
        """Class-balanced scores, float64 [T, n]: a trial's sum is its mean per-class accuracy."""
        return np.stack([class_balanced_scores(self.labels, logits) for logits in self.logits])

    @cached_property
    def accuracy(self) -> Estimate:
        """Mean per-class accuracy, with its 95 % interval over trials and test images."""
        return interval(self.scores, self.labels)

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each trial, float64 [T], NaN where it is undefined."""
        return np.array([own[metric] for own in self.measured], dtype=np.float64)

    def recalls(self) -> np.ndarray:
        """Return the accuracy of each class, float64 [T, K], NaN for one without a test image."""
        return np.array([own["per_class_accuracy"] for own in self.measured], dtype=np.float64)

    def costs(self, name: str) -> np.ndarray:
        """Return a cost of each trial, float64 [T], NaN where the record does not tell."""
        own = [record.result["cost"].get(name) for record in self.records]
        return np.array([np.nan if value is None else value for value in own], dtype=np.float64)


@dataclass(frozen=True)
class Comparison:
    """A row against a reference, over the trials of both and on the same test images.

    Attributes
    ----------
    delta, low, high : difference in mean per-class accuracy with its 95 % interval
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
    def result(self) -> Mapping[str, Any]:
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


def compare(rows: Sequence[Row], reference: Row | None) -> list[Comparison]:
    """Return each row's difference to the reference: NaN without a common trial, 0 for the reference itself."""
    nothing = float("nan")
    found: list[tuple[Estimate, float] | None] = [_difference(row, reference) if reference else None for row in rows]
    adjusted = holm([nothing if each is None else each[1] for each in found])
    return [
        Comparison(0.0, nothing, nothing, nothing, reference=True)
        if row is reference
        else Comparison(nothing, nothing, nothing, nothing)
        if each is None
        else Comparison(each[0].value, each[0].low, each[0].high, float(p_value))
        for row, each, p_value in zip(rows, found, adjusted, strict=True)
    ]


def _difference(row: Row, reference: Row) -> tuple[Estimate, float] | None:
    common = sorted(set(row.trials) & set(reference.trials))
    if row is reference or not common:
        return None
    if not np.array_equal(row.test_ids, reference.test_ids):
        raise _foreign(row.records[0], reference.records[0])
    first, second = (each.scores[[each.trials.index(trial) for trial in common]] for each in (row, reference))
    return paired_difference(first, second, row.labels)


def _foreign(record: Record, other: Record) -> UserError:
    reason = f"has other test images than {other.folder}, of the same split"
    return UserError(f"{record.folder} {reason}; run the trial again with --fresh")


def settings_of(records: Iterable[Record]) -> list[Setting]:
    """Return the settings among records, in order of data, ratio and split."""
    apart: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        apart.setdefault(setting_key(record.result), []).append(record)
    return [Setting(_rows(apart[key])) for key in sorted(apart)]


def _rows(records: Sequence[Record]) -> tuple[Row, ...]:
    """Return the rows of one setting.

    A row is a folder: method, hyper-parameters and, of a plug-in, its text. Where two folders would have the same
    name (a plug-in that was edited, defaults that changed), the folder's hash is added.
    """
    folders: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        folders.setdefault(_name(record.result), {}).setdefault(record.folder.parent.name, []).append(record)
    rows = [
        Row(
            name if len(own) == 1 else f"{name} [{folder[-8:]}]",
            tuple(sorted(trials, key=lambda record: record.result["trial"])),
        )
        for name, own in folders.items()
        for folder, trials in own.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.accuracy.value))


def _name(result: Mapping[str, Any]) -> str:
    changed = ", ".join(f"{name}={value}" for name, value in result["changed"].items())
    return f"{result['method']} ({changed})" if changed else result["method"]
