"""A row of a table: one method with one choice of hyper-parameters in one setting, over all its trials.

Every number is computed from the trials' saved predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.metrics import evaluate
from ltbench.benchmarks.analysis.record_files.agreement import require_agreement
from ltbench.benchmarks.analysis.records import Record, Result
from ltbench.benchmarks.analysis.statistics.intervals import Estimate, class_interval, image_weights, interval
from ltbench.errors import UserError

ACCURACY, GROUP_MEAN = "mean_class_accuracy", "mean_of_group_means"
"""The metric that ranks, and the paper's "All" on ISIC-Archive-LT."""

_COMPUTING = 0.8  # share of its time in which a trial on the CPU computes, unless other work is beside it
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
        for own, places, (_, labels, logits) in zip(found, self._images[2], self.predictions, strict=True):
            own[places >= 0] = (logits.argmax(axis=1) == labels)[places[places >= 0]]
        return found

    @cached_property
    def test_counts(self) -> np.ndarray:
        """Images of each class that each trial was tested on, int64 [T, K]."""
        classes = len(self.result.data.class_names)
        return np.stack([np.bincount(labels, minlength=classes) for _, labels, _ in self.predictions])

    @cached_property
    def lesions(self) -> np.ndarray | None:
        """Lesion of each test image, str [n], from the split; None where each image is of another, or no split lies by.

        Raises
        ------
        UserError : the split was changed
        """
        lesion: dict[str, str] = {}
        for record in self.records if self._varied else self.records[:1]:
            if not record.path("split.csv").exists():
                return None
            manifest = record.manifest()
            lesion |= dict(zip(manifest.ids.tolist(), manifest.lesions.tolist(), strict=True))
        found = np.array([lesion.get(image_id, image_id) for image_id in self.test_ids.tolist()])
        return found if len(np.unique(found)) < len(found) else None

    @property
    def _varied(self) -> bool:
        return self.result.data.varied_from is not None

    @cached_property
    def predictions(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        """Ids [n_t], labels [n_t] and logits [n_t, K] of the test images of each trial.

        Raises
        ------
        UserError : trials of one split have other test images
        """
        read = tuple(record.test_predictions() for record in self.records)
        for record, (ids, labels, _) in zip(self.records, read, strict=True):
            if not (self._varied or (np.array_equal(ids, read[0][0]) and np.array_equal(labels, read[0][1]))):
                raise other_images(record, self.records[0])
        return read

    @cached_property
    def validation(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Labels [n_t] and logits [n_t, K] of the validation images of each trial."""
        read = [record.predictions() for record in self.records]
        return tuple((own["val_labels"], own["val_logits"]) for own in read)

    @cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids [n] and labels [n] of all test images, and the place of each in a trial's predictions, -1 for none."""
        ids, labels, _ = self.predictions[0]
        if not self._varied:
            return ids, labels, np.tile(np.arange(len(ids)), (len(self.records), 1))
        every, first = np.unique(np.concatenate([own for own, *_ in self.predictions]), return_index=True)
        places = np.full((len(self.records), len(every)), -1)
        for own, (trial_ids, *_) in zip(places, self.predictions, strict=True):
            own[np.searchsorted(every, trial_ids)] = np.arange(len(trial_ids))
        return every, np.concatenate([own for _, own, _ in self.predictions])[first], places

    @cached_property
    def measured(self) -> tuple[dict[str, Any], ...]:
        """All metrics of each trial, from its predictions.

        Raises
        ------
        UserError : predictions and result of a trial contradict each other
        """
        found = []
        for record in self.records:
            data, saved = record.result.data, record.predictions()
            measure = partial(
                evaluate, groups=data.groups, class_names=data.class_names, special_classes=data.special_classes
            )
            require_agreement(
                record.folder, "val", record.result.val, measure(saved["val_labels"], saved["val_logits"])
            )
            found.append(measure(saved["test_labels"], saved["test_logits"]))
            require_agreement(record.folder, "test", record.result.test, found[-1])
        return tuple(found)

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
        return interval(mean.scores(self), mean.labels, class_weights=mean.weights, clusters=clusters, tested=tested)

    def class_estimate(self, label: int) -> Estimate:
        """Return the accuracy of a class with its 95 % interval, NaN where a trial has no image of it."""
        own = self.labels == label
        if not own.any():
            return _UNKNOWN
        tested, lesions = self.tested[:, own], None if self.lesions is None else self.lesions[own]
        return class_interval(self.right[:, own], lesions, tested) if tested.any(axis=1).all() else _UNKNOWN

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

    @property
    def has_waited(self) -> bool:
        """Whether a trial on the CPU computed in less than 80 % of its time: its core had other work, too."""
        on_cpu = np.array([record.result.device_type == "cpu" for record in self.records])
        return bool((on_cpu & (self.costs("cpu_seconds") < _COMPUTING * self.costs("train_seconds"))).any())


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
