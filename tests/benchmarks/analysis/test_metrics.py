"""Metrics against scikit-learn, and by hand where it has none."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn import metrics as reference

from ltbench.benchmarks.analysis import probabilities as probabilities_
from ltbench.benchmarks.analysis.metrics import (
    FURTHER,
    METRICS,
    by_class,
    class_recall,
    cross_entropy,
    evaluate,
    frequency_groups,
    higher_is_better,
    metric_labels,
    sensitivity_at_specificity,
    wilson_interval,
)
from ltbench.benchmarks.analysis.probabilities import calibration_bins, expected_calibration_error

GROUPS = {"head": (0,), "medium": (1, 2), "tail": (3, 4)}
COUNTS = (60, 30, 25, 10, 5)
NAMES = ("NV", "MEL", "BCC", "AK", "DF")


def predictions(seed: int = 0, counts: tuple[int, ...] = COUNTS) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and logits that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return labels, (rng.normal(size=(len(labels), len(counts))) + 1.2 * np.eye(len(counts))[labels]).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed:  # images and classes in several blocks
        monkeypatch.setattr(probabilities_, "_BLOCK", 300)
        monkeypatch.setattr(probabilities_, "_ROWS", 7)
    labels, logits = predictions(seed)
    logits = np.round(logits, 2 - seed)  # few decimals: many images have the same score
    predicted, probabilities = logits.argmax(1), softmax(logits.astype(np.float64), axis=1)
    measured = evaluate(labels, logits, GROUPS, NAMES, ("MEL",), FURTHER)
    recall = reference.recall_score(labels, predicted, average=None)
    false_positive_rate, sensitivity, _ = reference.roc_curve(labels == 1, probabilities[:, 1])
    expected = {
        "top1": reference.accuracy_score(labels, predicted),
        "mean_class_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "head": recall[0],
        "medium": recall[1:3].mean(),
        "tail": recall[3:].mean(),
        "mean_of_group_means": (recall[0] + recall[1:3].mean() + recall[3:].mean()) / 3,
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "macro_auroc": reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "macro_auprc": reference.average_precision_score(np.eye(5)[labels], probabilities, average="macro"),
        "sensitivity_at_90/MEL": sensitivity[false_positive_rate <= 0.1 + 1e-12].max(),
        "sensitivity_at_95/MEL": sensitivity[false_positive_rate <= 0.05 + 1e-12].max(),
        "ece": expected_calibration_error(probabilities.max(1), predicted == labels),
        "classwise_ece": np.mean([expected_calibration_error(probabilities[:, c], labels == c) for c in range(5)]),
        "cross_entropy": reference.log_loss(labels, probabilities),
    }
    assert expected.keys() == metric_labels(["MEL"]).keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-9), name
    np.testing.assert_allclose(measured["per_class_accuracy"], recall)
    np.testing.assert_array_equal(measured["confusion"], reference.confusion_matrix(labels, predicted))
    assert measured["per_class_count"] == list(COUNTS) and measured["undefined"] == {}
    for right, count, interval in zip(recall * COUNTS, COUNTS, measured["per_class_interval"], strict=True):
        assert interval == pytest.approx(list(wilson_interval(right, count)))
    further = {"per_class_accuracy", "per_class_interval", "per_class_count", "confusion", "undefined"}
    assert measured.keys() == expected.keys() | further


def test_absent_classes_and_empty_groups_are_undefined() -> None:
    labels, logits = predictions(counts=(40, 20, 10, 0, 5))
    measured = evaluate(labels, logits, GROUPS, NAMES, further=["per_class_interval"])
    recall = np.array(measured["per_class_accuracy"])
    assert np.isnan(recall).tolist() == [False, False, False, True, False]
    undefined = {"tail", "macro_auroc", "macro_auprc", "mean_of_group_means"}
    undefined |= {"per_class_accuracy", "per_class_interval"}
    assert measured["undefined"] == dict.fromkeys(undefined, "no image of class AK")
    assert {name for name in METRICS if np.isnan(measured[name])} == undefined & METRICS.keys()
    assert np.isnan(measured["per_class_interval"][3]).all() and measured["per_class_count"][3] == 0
    assert measured["mean_class_accuracy"] == pytest.approx(np.nanmean(recall))
    assert measured["head"] == recall[0] and measured["medium"] == pytest.approx(recall[1:3].mean())
    assert evaluate(labels, logits, GROUPS)["undefined"]["tail"] == "no image of class 3"
    labels, logits = predictions(counts=(20, 10))
    measured = evaluate(labels, logits, frequency_groups([20, 10]), ("NV", "MEL"))
    assert np.isnan(measured["head"]) and measured["undefined"] == {"head": "no class is in this group"}
    assert measured["mean_of_group_means"] == pytest.approx(measured["mean_class_accuracy"])
    assert evaluate(labels, logits, {}, ("NV", "MEL"))["undefined"] == {
        **dict.fromkeys(("head", "medium", "tail"), "no class is in this group"),
        "mean_of_group_means": "no group has a class",
    }


@pytest.mark.filterwarnings("ignore:A single label")
def test_a_single_class_has_nothing_to_be_ranked_against() -> None:
    measured = evaluate(np.zeros(3, dtype=np.int64), np.ones((3, 1)), frequency_groups([3]), ("NV",))
    assert measured["top1"] == measured["mean_class_accuracy"] == measured["macro_f1"] == 1
    for name in ("macro_auroc", "macro_auprc"):
        assert np.isnan(measured[name]) and measured["undefined"][name] == "there is only one class"


@pytest.mark.parametrize(
    ("counts", "reason"), [((20, 0), "no image of class MEL/1"), ((0, 20), "all images are of class MEL/1")]
)
def test_sensitivity_to_a_special_class_is_undefined(counts: tuple[int, ...], reason: str) -> None:
    measured = evaluate(*predictions(counts=counts), {"tail": (0, 1)}, ("NV", "MEL/1"), ("MEL/1",))
    for name in ("sensitivity_at_90/MEL/1", "sensitivity_at_95/MEL/1"):
        assert np.isnan(measured[name]) and measured["undefined"][name] == reason


def test_what_cannot_be_evaluated_is_refused() -> None:
    labels, logits = predictions(counts=(3, 2))
    for arguments in (
        (labels[:4], logits, {}),
        (labels[:, None], logits, {}),
        (labels[:0], logits[:0], {}),
        (labels, logits, {}, ("NV",)),
        (labels, logits, {}, ("NV", "MEL"), ("BCC",)),
        (labels + 1, logits, {}),
        (labels - 1, logits, {}),
        (labels, np.full_like(logits, np.nan), {}),
    ):
        with pytest.raises(ValueError):
            evaluate(*arguments)


@pytest.mark.parametrize("decimals", [1, 2, 8])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 0.95, 1.0])
def test_sensitivity_at_specificity_against_loops(seed: int, decimals: int, specificity: float) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.3
    scores = np.round(0.3 * positive + rng.random(60), decimals)  # few decimals: many images have the same score
    best = 0.0
    for threshold in [*scores, np.inf]:
        called = scores >= threshold
        if (~called[~positive]).mean() >= specificity - 1e-12:
            best = max(best, called[positive].mean())
    assert sensitivity_at_specificity(positive, scores, specificity) == pytest.approx(best, abs=1e-12)


def test_sensitivities_and_intervals_of_nothing_are_undefined() -> None:
    positive, scores = np.arange(14) >= 10, np.arange(14) / 14
    for wrong in ((positive[:3], scores, 0.9), (positive, scores, 1.1), (positive, scores, -0.1)):
        with pytest.raises(ValueError):
            sensitivity_at_specificity(*wrong)
    for constant in (True, False):
        assert np.isnan(sensitivity_at_specificity(np.full(14, constant), scores, 0.9))
    assert np.isnan(wilson_interval(0, 0)).all()
    p, n, z = 0.37, 12.5, stats.norm.ppf(0.975)  # neither need be whole
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert wilson_interval(p * n, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (57, 100), (100, 100)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_against_scipy(successes: int, count: int, confidence: float) -> None:
    expected = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(successes, count, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12) and 0 <= low < high <= 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == count)


@pytest.mark.parametrize("seed", range(3))
def test_classwise_calibration_error_against_loops(seed: int) -> None:
    labels, logits = predictions(seed, (30, 10, 5, 0, 3))
    logits[:, 4] -= 10 * seed  # a class that is never likely
    probabilities = softmax(logits.astype(np.float64), axis=1)
    errors = []
    for label in range(5):
        total = 0.0
        for bin_ in range(15):
            inside = [i for i in range(len(labels)) if bin_ / 15 < probabilities[i, label] <= (bin_ + 1) / 15]
            total += abs(sum(probabilities[i, label] - (labels[i] == label) for i in inside))
        errors.append(total / len(labels))
    assert evaluate(labels, logits, {})["classwise_ece"] == pytest.approx(np.mean(errors), rel=1e-12)


def test_calibration_bins() -> None:
    confidence = np.array([0, 0.06, 1 / 15, 0.07, 0.6, 0.601, 14 / 15, 0.94, 1])
    assert calibration_bins(confidence).tolist() == [0, 0, 0, 1, 8, 9, 13, 14, 14]


def test_recall_and_cross_entropy_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(class_recall(labels, predicted, 4), [0.5, np.nan, 1.0, np.nan])
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], dtype=np.float32)
    assert cross_entropy(np.array([0, 0]), logits) == pytest.approx(500.0)
    assert cross_entropy(np.array([0, 1]), np.zeros((2, 2), dtype=np.float32)) == pytest.approx(np.log(2))
    lower = {name for name in metric_labels(["MEL"]) if not higher_is_better(name)}
    assert lower == {"ece", "classwise_ece", "cross_entropy"}


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
    assert expected_calibration_error(np.array(confidence), np.array(right)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "sizes"), [(8, (2, 3, 3)), (7, (2, 2, 3)), (9, (3, 3, 3)), (3, (1, 1, 1)), (2, (0, 1, 1))]
)
def test_groups_are_thirds_rounded_towards_the_tail(classes: int, sizes: tuple[int, int, int]) -> None:
    groups = frequency_groups(range(100, 100 - classes, -1))
    assert tuple(map(len, groups.values())) == sizes and list(groups) == ["head", "medium", "tail"]
    assert sum(groups.values(), ()) == tuple(range(classes))


def test_groups_follow_frequency_and_kept_values_are_by_class() -> None:
    assert frequency_groups([5, 90, 30, 5, 70, 1]) == {"head": (1, 4), "medium": (2, 0), "tail": (3, 5)}
    labels = np.array([0, 0, 2, 2, 2])
    assert by_class(labels, np.array([3, 1, 3, 3, 0]), 3) == {
        "values": [0, 1, 3],
        "counts": [[0, 1, 1], [0, 0, 0], [1, 0, 2]],
    }
    means = by_class(labels, np.array([0.5, 1.5, 1.0, 2.0, 6.0], dtype=np.float32), 3)["mean"]
    assert means[0] == 1.0 and np.isnan(means[1]) and means[2] == 3.0
