"""A row of a table: one method with one choice of hyper-parameters in one setting, over all its trials.

Every number is computed from the trials' saved predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.intervals import Estimate, image_weights, interval
from ltbench.benchmarks.analysis.metrics import evaluate, wilson_interval
from ltbench.benchmarks.analysis.records import Record, Result
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError

ACCURACY, GROUP_MEAN = "mean_class_accuracy", "mean_of_group_means"
"""The metric that ranks, and the paper's "All" on ISIC-Archive-LT."""

_AGREEMENT = 1e-9
_FEW_IMAGES = 10
_UNKNOWN = Estimate(*[float("nan")] * 5)


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
    def lesions(self) -> np.ndarray | None:
        """Lesion of each test image, str [n], from the split; None where each image is of another, or no split lies by.

        Raises
        ------
        UserError : the split was changed
        """
        path = self.records[0].folder.parent / "split.csv"
        if not path.exists():
            return None
        manifest = Manifest.verify(path, self.result.split_digest)
        lesion = dict(zip(manifest.ids.tolist(), manifest.lesions.tolist(), strict=True))
        found = np.array([lesion.get(image_id, image_id) for image_id in self.test_ids.tolist()])
        return found if len(np.unique(found)) < len(found) else None

    @cached_property
    def _predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = [record.test_predictions() for record in self.records]
        ids, labels, _ = read[0]
        for record, (own_ids, own_labels, _) in zip(self.records, read, strict=True):
            if not (np.array_equal(ids, own_ids) and np.array_equal(labels, own_labels)):
                raise other_images(record, self.records[0])
        return ids, labels, np.stack([logits for *_, logits in read])

    @cached_property
    def measured(self) -> tuple[dict[str, Any], ...]:
        """All metrics of each trial, from its predictions.

        Raises
        ------
        UserError : predictions and result of a trial contradict each other
        """
        data = self.result.data
        found = tuple(
            evaluate(self.labels, logits, data.groups, data.class_names, data.special_classes) for logits in self.logits
        )
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
        if mean is None:
            return _UNKNOWN
        clusters = None if self.lesions is None else self.lesions[mean.used]
        return interval(mean.scores(self), mean.labels, class_weights=mean.weights, clusters=clusters)

    def class_estimate(self, label: int) -> Estimate:
        """Return the accuracy of a class with its 95 % interval: over trials and images, of one trial Wilson's.

        Two trials of a few images do not give one.
        """
        own = self.labels == label
        if not own.any():
            return _UNKNOWN
        right, lesions = self.right[:, own], None if self.lesions is None else self.lesions[own]
        size = own.sum() if lesions is None else len(np.unique(lesions))
        found = interval(right / own.sum(), self.labels[own], clusters=lesions)
        if len(right) == 1:
            low, high = wilson_interval(right.mean() * size, size)
            return replace(found, low=low, high=high)
        if len(right) == 2 and size < _FEW_IMAGES:
            return replace(found, low=float("nan"), high=float("nan"))
        return found

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each trial, float64 [T], NaN where it is undefined."""
        return np.array([own[metric] for own in self.measured], dtype=np.float64)

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


def other_images(record: Record, other: Record) -> UserError:
    """Return the error of two records of one split whose test images differ."""
    reason = f"has other test images than {other.folder}, of the same split"
    return UserError(f"{record.folder} {reason}; run the trial again with --fresh")
