"""What the probabilities of one trial are worth: validation images decide, test images are scored."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ltbench.benchmarks.analysis.metrics import SPECIFICITIES
from ltbench.benchmarks.analysis.record_files.derived import Derived, key_of
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.analysis.reliability import calibration, conformal
from ltbench.benchmarks.analysis.reliability.calibration import OperatingPoint
from ltbench.benchmarks.analysis.reliability.conformal import Coverage
from ltbench.benchmarks.analysis.summaries import CODE


@dataclass(frozen=True)
class Reliability:
    """Numbers of one trial.

    Attributes
    ----------
    temperature, scaled_ece : fitted on validation, and the calibration error on test after dividing by it
    sets : of conformal sets, by rule
    points : what thresholds from validation reach on test, by special class and specificity in percent
    validation_counts : validation images of each class [K]
    """

    temperature: float
    scaled_ece: float
    sets: Mapping[str, Coverage]
    points: Mapping[str, Mapping[int, OperatingPoint]]
    validation_counts: tuple[int, ...]


def reliability_of(record: Record) -> Reliability:
    """Return the numbers of a trial.

    Raises
    ------
    UserError : predictions are missing, corrupt or altered
    """
    data = record.result.data
    record.verified("predictions.npz")
    depends_on = [record.result.files["predictions.npz"], data.class_names, data.class_counts, data.special_classes]
    value, _ = record.derive(
        key_of("reliability", (*CODE, calibration, conformal, sys.modules[__name__]), depends_on), lambda: _kept(record)
    )
    points = {
        name: {int(percent): OperatingPoint(*point) for percent, point in own.items()}
        for name, own in value["points"].items()
    }
    sets = {rule: Coverage(*own) for rule, own in value["sets"].items()}
    numbers = (value["temperature"], value["scaled_ece"], sets, points, tuple(value["validation_counts"]))
    return Reliability(*numbers)


def _kept(record: Record) -> Derived:
    return asdict(_computed(record)), {}


def _computed(record: Record) -> Reliability:
    data, saved = record.result.data, record.predictions()
    validation, test = ((saved[f"{part}_labels"], saved[f"{part}_logits"]) for part in ("val", "test"))
    temperature = calibration.fitted_temperature(*validation)
    limits = conformal.conformal_limits(*validation, data.class_counts)
    return Reliability(
        temperature,
        calibration.scaled_calibration_error(*test, temperature),
        conformal.coverages(limits, *test, data.class_counts),
        {
            name: {
                percent: calibration.transferred_point(validation, test, data.class_names.index(name), percent / 100)
                for percent in SPECIFICITIES
            }
            for name in data.special_classes
        },
        tuple(np.bincount(validation[0], minlength=len(data.class_names)).tolist()),
    )
