"""Paired comparison: exact where it can be, one-sided where the difference is plain."""

from __future__ import annotations

import numpy as np
import pytest

from ltbench.benchmarks.comparison import class_balanced_scores, paired_interval
from ltbench.benchmarks.metrics import class_recall

LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), (40, 30, 20, 30)))


def scores(accuracy: float, seed: int, trials: int = 5) -> np.ndarray:
    """Return the scores of a method that is right with a probability."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(trials):
        predicted = np.where(rng.random(len(LABELS)) < accuracy, LABELS, (LABELS + 1) % 4)
        rows.append(class_balanced_scores(LABELS, np.eye(4)[predicted]))
    return np.stack(rows)


@pytest.mark.parametrize("seed", range(3))
def test_scores_sum_to_the_mean_class_accuracy(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(len(LABELS), 4))
    recall = class_recall(LABELS, logits.argmax(1), 4)
    assert class_balanced_scores(LABELS, logits).sum() == pytest.approx(recall.mean(), rel=1e-12)


def test_scores_leave_absent_classes_out() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    logits = np.eye(4)[[0, 1, 2, 2, 0]]
    np.testing.assert_allclose(class_balanced_scores(labels, logits), [1 / 4, 0, 1 / 6, 1 / 6, 0])


@pytest.mark.parametrize("trials", [1, 5])
def test_a_method_does_not_differ_from_itself(trials: int) -> None:
    same = scores(0.7, seed=0, trials=trials)
    assert paired_interval(same, same.copy(), LABELS) == (0.0, 0.0)


def test_a_clearly_better_method_lies_above_zero() -> None:
    better, worse = scores(0.9, seed=0), scores(0.6, seed=1)
    low, high = paired_interval(better, worse, LABELS)
    assert 0 < low < better.sum(1).mean() - worse.sum(1).mean() < high < 1


def test_the_order_of_the_methods_is_the_sign() -> None:
    first, second = scores(0.8, seed=0), scores(0.7, seed=1)
    low, high = paired_interval(first, second, LABELS)
    assert paired_interval(second, first, LABELS) == pytest.approx((-high, -low), abs=1e-12)


def test_the_same_question_has_the_same_answer() -> None:
    first, second, state = scores(0.8, seed=0), scores(0.7, seed=1), np.random.get_state()[1].copy()  # noqa: NPY002
    assert paired_interval(first, second, LABELS) == paired_interval(first, second, LABELS)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_equally_good_methods_cannot_be_told_apart() -> None:
    low, high = paired_interval(scores(0.75, seed=0), scores(0.75, seed=1), LABELS)
    assert low < 0 < high


def test_more_confidence_is_a_wider_interval() -> None:
    first, second = scores(0.8, seed=0), scores(0.7, seed=1)
    (low, high), (lower, higher) = (paired_interval(first, second, LABELS, level) for level in (0.5, 0.99))
    assert lower < low < high < higher


def test_one_trial_still_varies_over_its_images() -> None:
    low, high = paired_interval(scores(0.8, seed=0, trials=1), scores(0.7, seed=1, trials=1), LABELS)
    assert low < high


def test_images_are_drawn_within_their_class() -> None:
    """A method that is right on one whole class and wrong elsewhere has no spread over images."""
    first = class_balanced_scores(LABELS, np.eye(4)[np.where(LABELS == 2, 2, (LABELS + 1) % 4)])[None]
    assert paired_interval(first, np.zeros_like(first), LABELS) == pytest.approx((0.25, 0.25), abs=1e-12)
