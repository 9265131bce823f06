"""Many rows against one and against the best: as SciPy and printed tables have it, and what the model implies."""

import numpy as np
import pytest
from scipy import stats

from ltbench.benchmarks.analysis.metrics import wilson_interval
from ltbench.benchmarks.analysis.statistics.comparisons import (
    REFERENCE,
    Comparison,
    best_of_chance,
    compared,
    detectable,
    dunnett,
    tukey,
)
from ltbench.benchmarks.analysis.statistics.intervals import image_weights, interval, paired_differences
from ltbench.benchmarks.analysis.statistics.trial_variance import TrialVariance

LABELS = np.repeat(np.arange(4), (40, 30, 20, 30))


def right(rows: int, trials: int, seed: int = 0, accuracy: float = 0.6) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((rows, trials, len(LABELS))) < accuracy
    return image_weights(LABELS) * drawn


def tail(test: object, statistic: float, rows: int, freedom: float) -> float:
    return float(test(np.array([statistic]), rows, np.array([freedom]))[0])


def test_the_studentized_range_is_scipys() -> None:
    statistics, freedoms = np.array([1.0, 2, 3, 3.5, 6]), np.array([3, 4, 1e6, 32, 2.5])
    for rows in (3, 8, 17):
        expected = stats.studentized_range.sf(np.sqrt(2) * statistics, rows, freedoms)
        np.testing.assert_allclose(tukey(statistics, rows, freedoms), expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("rows", "freedom", "critical"), [(5, 10, 2.89), (3, 5, 3.03), (10, 20, 2.95), (4, 60, 2.41)])
def test_dunnetts_critical_values_are_those_of_his_table(rows: int, freedom: float, critical: float) -> None:
    assert tail(dunnett, critical - 0.005, rows, freedom) > 0.05 - 1e-3
    assert tail(dunnett, critical + 0.005, rows, freedom) < 0.05 + 1e-3


def test_dunnetts_p_values_are_scipys() -> None:
    rows, trials = 5, 4
    drawn = np.random.default_rng(0).standard_normal((rows, trials))
    expected = stats.dunnett(*drawn[1:], control=drawn[0], random_state=0)
    found = dunnett(np.abs(expected.statistic), rows, np.full(rows - 1, rows * (trials - 1)))
    np.testing.assert_allclose(found, expected.pvalue, atol=2e-3)


def test_two_rows_are_one_t_test() -> None:
    for test in (dunnett, tukey):
        assert tail(test, 2.0, 2, 7) == pytest.approx(2 * stats.t.sf(2.0, 7), rel=1e-3)
    assert best_of_chance(2) == pytest.approx(1 / np.sqrt(np.pi)) and best_of_chance(1) == pytest.approx(0, abs=1e-12)
    sums = np.random.default_rng(0).random((2, 5))
    assert TrialVariance.of(sums).of_difference(0, 1) == pytest.approx(((sums[0] - sums[1]).var(ddof=1) / 5, 4))


def test_trial_variances_keep_to_their_rows_and_few_trials_are_not_tested() -> None:
    sums = np.random.default_rng(1).standard_normal((17, 10))
    assert 60 < TrialVariance.of(sums).of_difference(0, 1)[1] <= 16 * 9
    unlike = TrialVariance.of(sums * np.geomspace(0.01, 10, 17)[:, None])
    (calm, _), (wild, freedom) = unlike.of_difference(0, 1), unlike.of_difference(15, 16)
    assert calm < wild / 10 and 9 < freedom < 25
    assert TrialVariance.of(np.ones((3, 4))).of_difference(0, 1) == (0, 6)
    few, many = (compared(right(rows, 2), 0, LABELS, dunnett)[1] for rows in (3, 4))
    assert np.isnan([few.p_value, few.low]).all() and not np.isnan(few.delta) and not np.isnan(many.p_value)
    best, worst = np.ones((1, len(LABELS))), np.zeros((1, len(LABELS)))
    best[0, :2] = 0
    extremes = np.stack([best * image_weights(LABELS), worst])
    estimate = paired_differences(extremes, 1, LABELS, confidence=0.9999999)[0]
    assert -1 <= estimate.low <= estimate.high <= 1


def test_rows_are_compared_by_the_variance_of_all() -> None:
    scores = right(5, 3)
    ours, ranked = compared(scores, 2, LABELS, dunnett), compared(scores, 2, LABELS, tukey)
    varied = TrialVariance.of(scores.sum(axis=2))
    estimate = paired_differences(scores, 2, LABELS, by_trial=[varied.of_difference(row, 2) for row in range(5)])[0]
    statistic = abs(estimate.value) / estimate.standard_error
    assert ours[2].reference and np.isnan(ours[2].p_value)
    assert (ours[0].delta, ours[0].low, ours[0].high) == (estimate.value, estimate.low, estimate.high)
    for found, test in ((ours, dunnett), (ranked, tukey)):
        assert found[0].p_value == pytest.approx(tail(test, statistic, 5, estimate.degrees_of_freedom))
    assert 0 < detectable(ours, dunnett) < detectable(ranked, tukey)


def test_what_is_detectable_has_the_power_of_a_noncentral_t() -> None:
    made = [Comparison(0, 0, 0, 1, 2.0, 8.0), REFERENCE]
    usual = 2 / np.sqrt(stats.chi2.median(8) / 8)  # what is more than it in half of all tables
    of_t = stats.nct.sf(stats.t.isf(0.025, 8), 8, detectable(made, dunnett) / usual)
    assert of_t == pytest.approx(0.8, abs=2e-3)
    known = detectable([Comparison(0, 0, 0, 1, 2.0, float("inf")), REFERENCE], dunnett)
    assert known == pytest.approx(2 * (stats.norm.isf(0.025) + stats.norm.ppf(0.8)), rel=1e-3)


def test_images_of_a_lesion_count_once() -> None:
    """Copies of images add nothing: the interval is that of the lesions alone."""
    once = right(1, 4)[0]
    copied = np.repeat(once, 3, axis=1) / 3
    lesions = np.repeat(np.arange(len(LABELS)), 3)
    expected = interval(once, LABELS)
    found = interval(copied, np.repeat(LABELS, 3), clusters=lesions)
    np.testing.assert_allclose(
        (found.value, found.standard_error), (expected.value, expected.standard_error), rtol=1e-9
    )
    assert found.degrees_of_freedom == pytest.approx(expected.degrees_of_freedom)
    single = interval(once, LABELS, clusters=np.arange(len(LABELS))[::-1])
    assert (single.low, single.high) == pytest.approx((expected.low, expected.high))


def of_patients(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> tuple[float, float, float]:
    """Return V_I, V_E and ν_I of classes with an image of each patient, from sums over the images of each patient."""
    centred = scores.copy()
    for label in np.unique(labels):
        centred[:, labels == label] -= centred[:, labels == label].mean(axis=1, keepdims=True)
    sums = np.stack([centred[:, patients == patient].sum(axis=1) for patient in np.unique(patients)], axis=1)
    trials, number = sums.shape
    factor, means = number / (number - 1), sums.mean(axis=0)
    luck = ((sums - means) ** 2).sum() / (trials * max(trials - 1, 1))
    return factor * (means**2).sum(), factor * luck, number - 1


@pytest.mark.parametrize("trials", [1, 3])
def test_what_classes_share_in_a_patient_is_in_the_interval(trials: int) -> None:
    """40 patients with an image of each of 4 classes, that are all right or all wrong together."""
    rng, labels, patients = np.random.default_rng(5), np.repeat(np.arange(4), 40), np.tile(np.arange(40), 4)
    easy, lucky = rng.random(40) < 0.6, rng.random((trials, 160)) < 0.8
    scores = image_weights(labels) * (easy[patients] & lucky)
    found = interval(scores, labels, clusters=patients)
    by_image, luck, freedom = of_patients(scores, labels, patients)
    by_trial = scores.sum(axis=1).var(ddof=1) / trials if trials > 1 else 0.0
    assert found.standard_error == pytest.approx(np.sqrt(by_trial + by_image - luck), rel=1e-9)
    if trials == 1:
        assert found.degrees_of_freedom == pytest.approx(freedom)
        assert found.standard_error > 1.4 * interval(scores, labels).standard_error


def test_patients_of_some_classes_lie_between_and_one_patient_says_nothing() -> None:
    labels, patients = np.repeat(np.arange(4), 40), np.tile(np.arange(40), 4)
    scores = image_weights(labels) * np.tile(np.arange(40) < 24, 4)[None]
    halves = patients + 100 * (labels > 1)  # those of the first two classes and of the others are other patients
    errors = {name: interval(scores, labels, clusters=own) for name, own in {"all": patients, "two": halves}.items()}
    alone = interval(scores, labels)
    assert errors["all"].standard_error == pytest.approx(2 * alone.standard_error)
    assert errors["two"].standard_error == pytest.approx(np.sqrt(2) * alone.standard_error)
    assert [each.degrees_of_freedom for each in (errors["all"], errors["two"], alone)] == pytest.approx([39, 78, 156])
    shared = halves.copy()
    shared[labels == 2] = np.where(np.arange(40) == 0, 0, shared[labels == 2])  # one patient of three classes
    near = interval(scores, labels, clusters=shared)
    assert near.standard_error == pytest.approx(errors["two"].standard_error, rel=0.05)
    assert near.degrees_of_freedom == pytest.approx(78, rel=0.05)
    assert np.isnan(interval(scores, labels, clusters=np.zeros(160)).standard_error)


def test_classes_of_a_patient_that_are_all_alike_count_as_its_patients() -> None:
    labels, patients = np.repeat(np.arange(4), 40), np.tile(np.arange(40), 4)
    every = image_weights(labels)[None]
    found = interval(every, labels, clusters=patients)
    assert (found.low, found.high) == pytest.approx(wilson_interval(40, 40))
    whole = interval(every * (labels < 2), labels, clusters=patients)
    assert whole.standard_error == pytest.approx(2 * interval(every * (labels < 2), labels).standard_error)
