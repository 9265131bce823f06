"""Many rows against one and against the best: as SciPy and printed tables have it, and what the model implies."""

import numpy as np
import pytest
from scipy import stats

from ltbench.benchmarks.analysis.comparisons import best_of_chance, detectable, dunnett, tukey, with_best, with_one
from ltbench.benchmarks.analysis.intervals import PooledVariance, image_weights, interval, paired_difference

LABELS = np.repeat(np.arange(4), (40, 30, 20, 30))


def right(rows: int, trials: int, seed: int = 0, accuracy: float = 0.6) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((rows, trials, len(LABELS))) < accuracy
    return image_weights(LABELS) * drawn


def test_the_studentized_range_is_scipys() -> None:
    for statistic, rows, freedom in ((2, 17, 4), (3.5, 17, 32), (1, 2, 3), (6, 9, 2.5), (3, 8, 1e6)):
        expected = stats.studentized_range.sf(np.sqrt(2) * statistic, rows, freedom)
        assert tukey(statistic, rows, freedom) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(("rows", "freedom", "critical"), [(5, 10, 2.89), (3, 5, 3.03), (10, 20, 2.95), (4, 60, 2.41)])
def test_dunnetts_critical_values_are_those_of_his_table(rows: int, freedom: float, critical: float) -> None:
    assert dunnett(critical - 0.005, rows, freedom) > 0.05 - 1e-3
    assert dunnett(critical + 0.005, rows, freedom) < 0.05 + 1e-3


def test_two_rows_are_one_t_test() -> None:
    for test in (dunnett, tukey):
        assert test(2.0, 2, 7) == pytest.approx(2 * stats.t.sf(2.0, 7), rel=1e-3)
    assert best_of_chance(2) == pytest.approx(1 / np.sqrt(np.pi)) and best_of_chance(1) == pytest.approx(0, abs=1e-12)
    sums = np.random.default_rng(0).random((2, 5))
    own = (sums[0] - sums[1]).var(ddof=1) / 5
    assert PooledVariance.of(sums).moderated(own) == pytest.approx((own, 4))


def test_pooled_variances_keep_to_their_rows_and_few_trials_are_not_tested() -> None:
    sums = np.random.default_rng(1).standard_normal((17, 5))
    assert PooledVariance.of(sums).moderated(0.0)[1] == 64
    unlike = sums * np.geomspace(0.01, 10, 17)[:, None]
    variance, freedom = PooledVariance.of(unlike).moderated(0.0)
    assert 4 < freedom < 8 and variance < PooledVariance.of(unlike).moderated(1.0)[0]
    few, many = with_one(right(3, 2), 0, LABELS)[1], with_one(right(4, 2), 0, LABELS)[1]
    assert np.isnan([few.p_value, few.low]).all() and not np.isnan(few.delta) and not np.isnan(many.p_value)
    best, worst = np.ones((1, len(LABELS))), np.zeros((1, len(LABELS)))
    best[0, :2] = 0
    estimate, _ = paired_difference(best * image_weights(LABELS), worst, LABELS, confidence=0.9999999)
    assert -1 <= estimate.low <= estimate.high <= 1


def test_rows_are_compared_by_the_pooled_difference() -> None:
    scores = right(5, 3)
    compared = with_one(scores, 2, LABELS)
    pooled = PooledVariance.of(scores.sum(axis=2))
    estimate, _ = paired_difference(scores[0], scores[2], LABELS, pooled=pooled)
    statistic = abs(estimate.value) / estimate.standard_error
    assert compared[2].reference and np.isnan(compared[2].p_value)
    assert (compared[0].delta, compared[0].low, compared[0].high) == (estimate.value, estimate.low, estimate.high)
    assert compared[0].p_value == pytest.approx(dunnett(statistic, 5, estimate.degrees_of_freedom))
    assert with_best(scores, 2, LABELS)[0].p_value == pytest.approx(tukey(statistic, 5, estimate.degrees_of_freedom))
    assert 0 < detectable(compared, dunnett) < detectable(compared, tukey)


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
