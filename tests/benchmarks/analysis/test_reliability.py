"""Calibration, thresholds from validation, conformal sets and ranks: by hand, by simulation, and in their tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from written import predictions_of, row_of

from ltbench.benchmarks.analysis.probabilities import Probabilities, expected_calibration_error
from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.analysis.reliability.calibration import (
    fitted_temperature,
    scaled_calibration_error,
    transferred_point,
)
from ltbench.benchmarks.analysis.reliability.conformal import (
    RULES,
    conformal_limits,
    conformal_quantile,
    conformal_sets,
    coverages,
    expected_worst,
)
from ltbench.benchmarks.analysis.rendering import Table
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.tables import tables_of

Add = Callable[..., Record]


def drawn(rng: np.random.Generator, images: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits whose probabilities are those of the labels."""
    logits = rng.normal(size=(images, classes)) * rng.uniform(0.5, 4, size=(images, 1))
    return (rng.random((images, 1)) > softmax(logits, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1), logits


def tables(results: Path, kind: str) -> list[Table]:
    return tables_of(kind, settings_of(find_records(results)))


def test_coverage_of_exchangeable_images_is_as_promised() -> None:
    rng, replicates, found = np.random.default_rng(0), 300, []
    for _ in range(replicates):
        (labels, logits), (test_labels, test_logits) = drawn(rng, 160), drawn(rng, 400)
        counts = (80, 40, 20, 10)
        limits = conformal_limits(labels, logits, counts)
        by_class = conformal_sets(limits, softmax(test_logits, axis=1), counts)["class-conditional"]
        assert by_class is not None
        each = [by_class[test_labels == label, label].mean() for label in range(4)]
        of_rules = coverages(limits, test_labels, test_logits, counts)
        found.append([*(of_rules[rule].marginal_coverage for rule in RULES), *each])
    marginal, error = np.mean(found, axis=0), 4 * np.std(found, axis=0) / np.sqrt(replicates)
    promised = [number for number, rule in enumerate(RULES) if rule != "interpolated"] + [4, 5, 6, 7]
    most = np.where(np.array(promised) < 2, 0.9 + 1 / 161, 0.9 + 1 / 25)
    assert (marginal[promised] > 0.9 - error[promised]).all() and (marginal[promised] < most + error[promised]).all()
    assert 0.88 < marginal[3] < 0.94  # between two thresholds that keep the promise


def test_sets_by_hand() -> None:
    scores = np.arange(1, 20) / 20
    assert [conformal_quantile(scores[:size]) for size in (8, 9, 18)] == [np.inf, 0.45, 0.9]
    assert conformal_quantile(scores) == 0.9 and conformal_quantile(scores, 0.5) == 0.5
    probabilities = np.stack([1 - scores, scores], axis=1)  # 0.95 to 0.05 of class 0
    zeros, logits, test = (
        np.zeros(19, dtype=int),
        np.log(probabilities),
        np.array([[0.1, 0.9], [0.09, 0.91], [0.5, 0.5]]),
    )
    limits = conformal_limits(zeros, logits, (3, 1))
    sets = conformal_sets(limits, test, (3, 1))
    assert sets["standard"] is not None and sets["prevalence-adjusted"] is not None
    assert sets["standard"].tolist() == [[True, True], [False, True], [True, True]]
    adjusted = conformal_sets(limits, np.array([[0.97, 0.03], [0.96, 0.04]]), (3, 1))
    assert adjusted["prevalence-adjusted"].tolist() == [[True, False], [True, True]]  # type: ignore[union-attr]
    assert sets["class-conditional"] is sets["interpolated"] is None  # no image of class 1
    assert conformal_limits(zeros, logits, (3, 0))["prevalence-adjusted"] is None
    found = coverages(limits, np.array([0, 0, 1]), np.log(test), (3, 1))
    assert found["standard"] == (5 / 3, 2 / 3, 0.75, 0.5) and np.isnan(found["interpolated"]).all()
    assert expected_worst([2, 1, 0]) == pytest.approx(0.81) and expected_worst([100] * 8) < expected_worst([100]) < 0.91


def test_temperature_and_calibration_after_it() -> None:
    labels, logits = drawn(np.random.default_rng(0), 20000)
    temperature = fitted_temperature(labels, logits)
    assert temperature == pytest.approx(1, abs=0.05)
    for factor in (0.2, 5.0):
        scaled = fitted_temperature(labels, factor * logits)
        assert scaled == pytest.approx(factor * temperature, rel=1e-3)
        assert scaled_calibration_error(labels, factor * logits, scaled) < 0.03
        assert expected_calibration_error(Probabilities(factor * logits).confidence, logits.argmax(1) == labels) > 0.08


def test_threshold_from_validation_reaches_something_else_on_test() -> None:
    def part(positive: list[float], negative: list[float]) -> tuple[np.ndarray, np.ndarray]:
        scores = np.array([*negative, *positive])
        return np.repeat([0, 1], [len(negative), len(positive)]), np.log(np.stack([1 - scores, scores], axis=1))

    validation = part([0.3, 0.55, 0.8], np.linspace(0.05, 0.5, 10).tolist())  # one of ten may be called: 0.5
    test = part([0.52, 0.54, 0.6, 0.2], [0.1, 0.2, 0.9, 0.53])
    assert transferred_point(validation, test, 1, 0.9) == (0.5, 0.75)
    assert transferred_point(validation, test, 1, 0.95) == (0.75, 0.25)
    for parts in ((part([], [0.5]), test), (validation, part([], [0.5])), (validation, part([0.5], []))):
        assert np.isnan(transferred_point(*parts, 1, 0.9)).all()


def test_tables_hold_mean_and_deviation_of_the_trials(tmp_path: Path, add_record: Add) -> None:
    own: dict[str, Any] = {"class_names": ["NV", "MEL", "BCC", "DF"], "special_classes": ["MEL"]}
    for trial in range(2):
        add_record(tmp_path, "ce", trial, 0.6, test_counts=(20, 20, 20, 8), **own)
    (reliability,), (conformal,) = tables(tmp_path, "reliability"), tables(tmp_path, "conformal")
    row, (line,), row_of_sets = (
        row_of(tmp_path),
        reliability.frame.to_dict("records"),
        conformal.frame.set_index("sets"),
    )
    temperatures = [fitted_temperature(*record.test_predictions()[1:]) for record in row.records]  # as of validation
    assert (line["temperature"], line["temperature_sd"]) == (np.mean(temperatures), np.std(temperatures, ddof=1))
    assert line["reached_sensitivity_at_90/MEL"] == line["sensitivity_at_90/MEL"]  # validation is test here
    assert line["reached_specificity_at_95/MEL"] >= 0.95
    assert row_of_sets.loc["standard", "set_size"] == line["set_size"] and line["marginal_coverage"] >= 0.9
    assert np.isnan(row_of_sets.loc[["class-conditional", "interpolated"], "set_size"]).all()
    assert any("fewer than 9 validation images: sets class-conditional" in note for note in conformal.notes)
    assert any("not class-balanced" in note and "DF 8" in note for note in reliability.notes)


def test_ranks_by_hand(tmp_path: Path, add_record: Add) -> None:
    _, same = predictions_of(4, (20,) * 4, 0.9, [0])
    for ratio, accuracies in {30.0: {"c": 0.3}, 100.0: {"a": 0.6, "b": 0.9, "c": 0.3}}.items():
        for method, accuracy in accuracies.items():
            add_record(tmp_path, method, 0, accuracy, ratio=ratio)
    for method in "ab":
        add_record(tmp_path, method, 0, 0.9, ratio=30.0, logits=same)
    add_record(tmp_path, "d", 0, 0.5, ratio=30.0)
    (table,) = tables(tmp_path, "ranks")
    by_method = table.frame.drop_duplicates("method").set_index("method")
    assert by_method["mean_rank"].to_dict() == {"a": 1.75, "b": 1.25, "c": 3.0} and set(by_method["settings"]) == {2}
    assert [cell.text for cell in table.cells[0]] == ["b", "1.25", "1.5", "1", "2"]
    assert "other trials of them: d." in table.notes[-1]
    shared = {own.frame["ratio"].iloc[0]: own.frame for own in tables(tmp_path, "overview")}[30.0]
    assert shared.set_index("method")["rank"].to_dict() == {"a": 1, "b": 1, "d": 3, "c": 4}
    for path in tmp_path.glob("*-r100/[ab]-*/trial0/result.json"):  # no two settings share two rows
        path.unlink()
    (table,) = tables(tmp_path, "ranks")
    assert len(table.cells) == 4 and set(table.frame["settings"]) == {1}
