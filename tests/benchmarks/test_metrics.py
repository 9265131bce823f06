"""Metrics against scikit-learn, and by hand where it has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from ltbench.benchmarks.metrics import (
    by_class,
    class_recall,
    cross_entropy,
    evaluate,
    expected_calibration_error,
    frequency_groups,
)

GROUPS = {"head": (0,), "medium": (1, 2), "tail": (3, 4)}
COUNTS = (60, 30, 25, 10, 5)


def predictions(seed: int = 0, counts: tuple[int, ...] = COUNTS) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and logits that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return labels, (rng.normal(size=(len(labels), len(counts))) + 1.2 * np.eye(len(counts))[labels]).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed: int) -> None:
    labels, logits = predictions(seed)
    predicted, probabilities = logits.argmax(1), softmax(logits.astype(np.float64), axis=1)
    measured = evaluate(labels, logits, GROUPS)
    recall = reference.recall_score(labels, predicted, average=None)
    expected = {
        "top1": reference.accuracy_score(labels, predicted),
        "mean_class_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "head": recall[0],
        "medium": recall[1:3].mean(),
        "tail": recall[3:].mean(),
        "mean_of_group_means": (recall[0] + recall[1:3].mean() + recall[3:].mean()) / 3,
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "macro_auroc": reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "cross_entropy": reference.log_loss(labels, probabilities),
    }
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-9), name
    np.testing.assert_allclose(measured["per_class_accuracy"], recall)
    assert measured.keys() == expected.keys() | {"per_class_accuracy", "ece"}


def test_an_absent_class_leaves_undefined_what_needs_it() -> None:
    labels, logits = predictions(counts=(40, 20, 10, 0, 5))
    measured = evaluate(labels, logits, GROUPS)
    recall = np.array(measured["per_class_accuracy"])
    assert np.isnan(recall).tolist() == [False, False, False, True, False]
    assert all(np.isnan(measured[name]) for name in ("tail", "macro_auroc", "mean_of_group_means"))
    assert measured["mean_class_accuracy"] == pytest.approx(np.nanmean(recall))
    assert measured["head"] == recall[0] and measured["medium"] == pytest.approx(recall[1:3].mean())
    assert all(np.isfinite(measured[name]) for name in ("top1", "macro_f1", "ece", "cross_entropy"))


def test_an_empty_group_is_left_out() -> None:
    labels, logits = predictions(counts=(20, 10))
    measured = evaluate(labels, logits, frequency_groups([20, 10]))
    assert np.isnan(measured["head"])
    assert measured["mean_of_group_means"] == pytest.approx(measured["mean_class_accuracy"])


def test_class_recall() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(class_recall(labels, predicted, 4), [0.5, np.nan, 1.0, np.nan])


def test_cross_entropy_of_extreme_logits() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], dtype=np.float32)
    assert cross_entropy(np.array([0, 0]), logits) == pytest.approx(500.0)
    assert cross_entropy(np.array([0, 1]), np.zeros((2, 2), dtype=np.float32)) == pytest.approx(np.log(2))


def with_confidence(*confidence: float) -> np.ndarray:
    return np.array([[value, 1 - value] for value in confidence])


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [
        ((1.0, 1.0), (True, True), 0.0),
        ((1.0, 1.0), (True, False), 0.5),
        ((0.75, 0.75, 0.75, 0.75), (True, True, True, False), 0.0),
        ((0.9, 0.95), (True, False), abs(0.9 - 1) / 2 + 0.95 / 2),  # two bins of 15: edges 0.8667, 0.9333
        ((0.9, 0.92), (True, False), abs(0.9 + 0.92 - 1) / 2),  # one bin
        ((0.6, 0.65), (True, False), abs(0.6 - 1) / 2 + 0.65 / 2),  # 9 / 15 belongs to the bin below it
    ],
)
def test_calibration_error_by_hand(confidence: tuple[float, ...], right: tuple[bool, ...], expected: float) -> None:
    labels = np.array([0 if each else 1 for each in right])
    assert expected_calibration_error(labels, with_confidence(*confidence)) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_against_loops() -> None:
    labels, logits = predictions()
    probabilities = softmax(logits.astype(np.float64), axis=1)
    total = 0.0
    for bin_ in range(15):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if bin_ / 15 < row.max() <= (bin_ + 1) / 15
        ]
        if inside:
            confidence, right = np.array(inside, dtype=np.float64).mean(axis=0)
            total += len(inside) / len(labels) * abs(confidence - right)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("classes", "sizes"), [(8, (2, 3, 3)), (7, (2, 2, 3)), (9, (3, 3, 3)), (3, (1, 1, 1)), (2, (0, 1, 1))]
)
def test_groups_are_thirds_rounded_towards_the_tail(classes: int, sizes: tuple[int, int, int]) -> None:
    groups = frequency_groups(range(100, 100 - classes, -1))
    assert tuple(map(len, groups.values())) == sizes and list(groups) == ["head", "medium", "tail"]
    assert sum(groups.values(), ()) == tuple(range(classes))


def test_groups_follow_frequency_not_ids() -> None:
    assert frequency_groups([5, 90, 30, 5, 70, 1]) == {"head": (1, 4), "medium": (2, 0), "tail": (3, 5)}


def test_what_is_kept_of_images_is_summed_up_by_class() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    assert by_class(labels, np.array([3, 1, 3, 3, 0]), 3) == {
        "values": [0, 1, 3],
        "counts": [[0, 1, 1], [0, 0, 0], [1, 0, 2]],
    }
    means = by_class(labels, np.array([0.5, 1.5, 1.0, 2.0, 6.0], dtype=np.float32), 3)["mean"]
    assert means[0] == 1.0 and np.isnan(means[1]) and means[2] == 3.0
