"""What tables and pictures need of a trial's predictions, without the logits: computed once, and kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis import metrics, probabilities
from ltbench.benchmarks.analysis.record_files import derived, predictions, stored_logits
from ltbench.benchmarks.analysis.record_files.agreement import require_agreement
from ltbench.benchmarks.analysis.record_files.derived import Derived
from ltbench.benchmarks.analysis.record_files.predictions import PARTS
from ltbench.benchmarks.analysis.records import Record
from ltbench.datasets.splits import manifest as manifests
from ltbench.errors import UserError
from ltbench.files import file_hash

CODE = (metrics, probabilities, predictions, stored_logits, derived, manifests, sys.modules[__name__])
"""Modules that numbers from predictions depend on."""


@dataclass(frozen=True)
class Summary:
    """The test images of a trial, and its metrics.

    Attributes
    ----------
    ids, labels : of the images, [n] and int64 [n]
    predicted, confidence : class of each and its probability, int64 [n] and float64 [n]
    lesions : of each, str [n]; None where no split lies by
    measured : metrics of each part by name, as `evaluate` gives them
    """

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    lesions: np.ndarray | None
    measured: Mapping[str, Mapping[str, Any]]

    @property
    def right(self) -> np.ndarray:
        """Whether each is right, bool [n]."""
        return np.asarray(self.predicted == self.labels)


def summary_of(record: Record) -> Summary:
    """Return the summary of a trial.

    Raises
    ------
    UserError : predictions or split are missing, corrupt or altered, or predictions and result contradict each other
    """
    result = record.result
    measured, arrays = record.derive(_key(record), lambda: _computed(record))
    for part in PARTS:
        require_agreement(record.folder, part, getattr(result, part), measured[part])
    recall = metrics.class_recall(arrays["labels"], arrays["predicted"], len(result.data.class_names))
    require_agreement(record.folder, "test", result.test, {"per_class_accuracy": recall.tolist()})
    return Summary(
        ids=arrays["ids"],
        labels=arrays["labels"],
        predicted=arrays["predicted"],
        confidence=arrays["confidence"],
        lesions=arrays.get("lesions"),
        measured=measured,
    )


def pooled_summary(records: Sequence[Record]) -> Summary:
    """Return the summary of the test images of several trials together, each image by the trial that was tested on it.

    Metrics of a ranking (AUROC, AUPRC, sensitivity at a specificity) rank the probabilities of all trials together.

    Raises
    ------
    UserError : as for `summary_of`, or an image was tested by two trials
    """
    found = [summary_of(record) for record in records]
    ids = np.concatenate([own.ids for own in found])
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        first = ids[order][twice[0]]
        raise UserError(f"{records[0].folder.parent}: image {first} is in two folds; run the trials again with --fresh")

    def computed() -> Derived:
        saved = [record.predictions() for record in records]
        labels, logits = (np.concatenate([own[f"test_{name}"] for own in saved]) for name in ("labels", "logits"))
        data = records[0].result.data
        described = (data.groups, data.class_names, data.special_classes)
        return {"test": metrics.evaluate(labels, logits, *described, _further(records[0], "test"))}, {}

    key = derived.key_of("pooled summary", CODE, [_key(record) for record in records])
    measured, _ = records[0].derive(key, computed)
    lesions = [own.lesions for own in found if own.lesions is not None]
    return Summary(
        ids=ids[order],
        labels=np.concatenate([own.labels for own in found])[order],
        predicted=np.concatenate([own.predicted for own in found])[order],
        confidence=np.concatenate([own.confidence for own in found])[order],
        lesions=np.concatenate(lesions)[order] if len(lesions) == len(found) else None,
        measured=measured,
    )


def is_summarised(record: Record) -> bool:
    """Return whether a summary is kept, which was computed from predictions and a split that could be read.

    Raises
    ------
    UserError : predictions are missing or altered
    """
    return record.derived is not None and record.derived.holds(_key(record))


def _key(record: Record) -> str:
    result = record.result
    record.verified("predictions.npz")
    depends_on = [
        *(result.files["predictions.npz"], result.split_digest),
        _split_content(record.path("split.csv")),
        *(result.data.class_names, result.data.groups, result.data.special_classes),
        [_further(record, part) for part in PARTS],
    ]
    return derived.key_of("summary", CODE, depends_on)


def _split_content(path: Path) -> str:
    """Return the SHA-256 of a split, or what is there in its place; why it cannot be read is said where it is read."""
    try:
        return file_hash(path) if path.is_file() else f"exists: {path.exists()}"
    except OSError as error:
        return str(error)


def _computed(record: Record) -> Derived:
    data, saved = record.result.data, record.predictions()
    measured = {
        part: metrics.evaluate(
            saved[f"{part}_labels"],
            saved[f"{part}_logits"],
            data.groups,
            data.class_names,
            data.special_classes,
            _further(record, part),
        )
        for part in PARTS
    }
    logits = saved["test_logits"]
    arrays = {
        **{"ids": saved["test_ids"], "labels": saved["test_labels"], "predicted": logits.argmax(axis=1)},
        "confidence": probabilities.Probabilities(logits).confidence,
    }
    lesions = record.lesions(saved["test_ids"])
    if lesions is not None:
        arrays["lesions"] = lesions
    return measured, arrays


def _further(record: Record, part: str) -> list[str]:
    """Return what the result states besides: records of earlier versions hold quantities of `FURTHER`."""
    return [name for name in metrics.FURTHER if name in getattr(record.result, part)]
