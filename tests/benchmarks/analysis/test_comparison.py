"""Error bars and paired tests: exact where they can be, against SciPy where it has them."""

import numpy as np
import pytest
from scipy import stats

from ltbench.benchmarks.analysis.metrics import wilson_interval
from ltbench.benchmarks.analysis.statistics.intervals import (
    Estimate,
    class_interval,
    image_weights,
    interval,
    paired_differences,
)

LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), (40, 30, 20, 30)))


def scores(accuracy: float, seed: int, trials: int = 5, labels: np.ndarray = LABELS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return image_weights(labels) * (rng.random((trials, len(labels))) < accuracy)


def ends(estimate: object) -> tuple[float, float]:
    return estimate.low, estimate.high


def paired_difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Estimate:
    return paired_differences(np.stack([first, second]), 1, labels)[0]


def p_value(estimate: Estimate) -> float:
    if estimate.standard_error == 0:
        return float(estimate.value == 0)
    return 2 * stats.t.sf(abs(estimate.value) / estimate.standard_error, estimate.degrees_of_freedom)


def by_loops(y: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return V and the degrees of freedom, of the formula in `interval`, for classes of two images or more."""
    trials, classes = len(y), np.unique(labels)
    image, residual = {}, {}
    for label in classes:
        own = y[:, labels == label]
        image[label] = own.mean(axis=0).var(ddof=1)
        left = own - own.mean(axis=0) - own.mean(axis=1, keepdims=True) + own.mean()
        residual[label] = (left**2).sum() / ((own.shape[1] - 1) * max(trials - 1, 1))
    sizes = {label: (labels == label).sum() for label in classes}
    lent = sum(1 / size**2 for size in sizes.values()) / len(classes)  # of the mean class, to all classes
    weights = {label: sizes[label] - 1 + sizes[label] ** 2 * lent for label in classes}
    by_image = sum(weights[label] * image[label] for label in classes)
    luck = sum(weights[label] * residual[label] for label in classes) / trials
    by_trial = y.sum(axis=1).var(ddof=1) / trials if trials > 1 else 0.0
    variance = by_trial + max(by_image - luck, 0)
    of_images = (1 - by_trial / variance) ** (trials / max(trials - 1, 1)) if trials > 1 else 1
    uncertain = sum((weights[label] * image[label]) ** 2 / (sizes[label] - 1) for label in classes) / by_image**2
    return variance, 1 / ((1 - of_images) / max(trials - 1, 1) + of_images * uncertain)


@pytest.mark.parametrize("trials", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4, 8))
def test_the_interval_is_the_formula(trials: int, seed: int) -> None:
    y = scores(0.7, seed, trials)
    estimate = interval(y, LABELS, 0.9)
    variance, freedom = by_loops(y, LABELS)
    assert estimate.standard_error == pytest.approx(np.sqrt(variance), rel=1e-9)
    assert estimate.degrees_of_freedom == pytest.approx(freedom, rel=1e-9)
    expected = np.clip(stats.t.interval(0.9, freedom, y.sum(axis=1).mean(), np.sqrt(variance)), 0, 1)
    assert ends(estimate) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("trials", [1, 3])
def test_all_alike_is_not_certain(right: int, trials: int) -> None:
    labels = np.repeat(np.arange(4), 25)
    estimate = interval(scores(right, 0, trials, labels) if right else np.zeros((trials, 100)), labels)
    assert estimate.value == right
    assert ends(estimate) == pytest.approx(wilson_interval(100 * right, 100), rel=1e-9)


@pytest.mark.parametrize("trials", [1, 2, 5])
def test_an_accuracy_stays_within_0_and_1(trials: int) -> None:
    labels = np.repeat(np.arange(2), 3)
    for seed in range(50):
        estimate = interval(scores(0.7, seed, trials, labels), labels)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_one_image_a_class_and_paired_trials() -> None:
    labels = np.array([0] * 10 + [1])
    right = np.r_[np.tile([True, False], 5), [True]]
    y = (image_weights(labels) * right)[None]
    estimate = interval(y, labels)
    assert 0 < estimate.standard_error < 1 and estimate.degrees_of_freedom == pytest.approx(9)
    alone = interval(scores(0.5, 1, 1, np.arange(8)), np.arange(8))  # no class has two: as if all were of one
    assert alone.standard_error > 0 and alone.degrees_of_freedom == pytest.approx(7)
    one = interval(np.array([[0.4], [0.2]]), np.array([0]))
    assert np.isnan([*ends(one), one.standard_error]).all() and one.value == pytest.approx(0.3)
    rng = np.random.default_rng(0)
    first, second = (np.repeat(rng.normal(size=(5, 1)), len(LABELS), axis=1) / len(LABELS) / 10 for _ in range(2))
    estimate = paired_difference(first, second, LABELS)
    reference = stats.ttest_rel(first.sum(axis=1), second.sum(axis=1))
    assert p_value(estimate) == pytest.approx(reference.pvalue, rel=1e-9)
    assert ends(estimate) == pytest.approx(tuple(reference.confidence_interval()), rel=1e-9)
    assert estimate.degrees_of_freedom == pytest.approx(reference.df)


@pytest.mark.parametrize("trials", [1, 5])
def test_a_method_does_not_differ_from_itself(trials: int) -> None:
    same = scores(0.7, seed=0, trials=trials)
    estimate = paired_difference(same, same.copy(), LABELS)
    assert (estimate.value, *ends(estimate), p_value(estimate)) == (0, 0, 0, 1)


def test_trials_that_agree_by_chance_do_not_stand_for_certainty() -> None:
    """Equal sums in both trials, images right in turn: V_T is 0 and V_I is below V_E, but there is luck."""
    labels = np.zeros(8, dtype=np.int64)
    first = np.array([[1, 1, 1, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 1, 0, 1]]) / 8
    second = np.array([[0, 0, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 1, 0]]) / 8
    estimate = paired_difference(first, second, labels)
    assert estimate.value == pytest.approx(3 / 8) and estimate.standard_error > 0.05
    assert 0.01 < p_value(estimate) < 0.5


@pytest.mark.parametrize("trials", [1, 3])
def test_a_whole_class_is_as_certain_as_its_images_are_many(trials: int) -> None:
    """A method that is right on one class alone differs from none by 1 / K, in every image and trial of that class."""
    p_values = []
    for count in (3, 30):
        labels = np.repeat(np.arange(4), (40, 40, count, 40))
        own = image_weights(labels) * (labels == 2)
        first = np.stack([own] * trials)
        estimate = paired_difference(first, np.zeros_like(first), labels)
        of_class = {size: 2 / 16 / ((size + 1) * (size + 2)) for size in (40, count)}
        variance = 3 * of_class[40] + of_class[count]
        assert estimate.value == pytest.approx(0.25) and estimate.standard_error == pytest.approx(np.sqrt(variance))
        freedom = variance**2 / (3 * of_class[40] ** 2 / 39 + of_class[count] ** 2 / (count - 1))
        assert estimate.degrees_of_freedom == pytest.approx(freedom)
        assert interval(first, labels).standard_error == pytest.approx(np.sqrt(variance))
        p_values.append(p_value(estimate))
    assert p_values[0] > 0.05 > 1e-6 > p_values[1]


def test_rounding_and_cancelling_differences() -> None:
    labels = np.repeat([0, 1], 20)
    first = (image_weights(labels) * (labels == 0))[None]
    second = (image_weights(labels) * (labels == 1))[None]
    estimate = paired_difference(first, second, labels)
    assert estimate.value == 0 and estimate.low < -0.02 and estimate.high > 0.02
    first = image_weights(LABELS) * (LABELS == 2)
    rounded = np.stack([first, first * (1 + 1e-15), first * (1 - 1e-15)])
    exact = paired_difference(np.stack([first] * 3), np.zeros((3, len(first))), LABELS)
    estimate = paired_difference(rounded, np.zeros_like(rounded), LABELS)
    assert ends(estimate) == pytest.approx(ends(exact), rel=1e-9)


def test_class_weights_are_those_of_the_mean() -> None:
    """A class of twice the weight counts twice; equal weights are the default, and one class stands for itself."""
    rng, weights = np.random.default_rng(4), np.array([0.5, 0.1, 0.3, 0.1])
    right = rng.random((5, len(LABELS))) < 0.7
    weighted = interval(right * image_weights(LABELS, weights), LABELS, class_weights=weights)
    means = np.array([right[:, label == LABELS].mean() for label in range(4)])
    assert weighted.value == pytest.approx(weights @ means)
    equal = right * image_weights(LABELS)
    assert interval(equal, LABELS, class_weights=np.full(4, 0.25)) == interval(equal, LABELS)
    assert weighted.standard_error != pytest.approx(interval(equal, LABELS).standard_error, rel=0.01)
    alone = LABELS == 2
    nearly = np.array([1e-9, 1e-9, 1.0, 1e-9])
    one = interval(right[:, alone] / alone.sum(), LABELS[alone])
    same = interval(right * image_weights(LABELS, nearly), LABELS, class_weights=nearly)
    assert same.value == pytest.approx(one.value)
    with pytest.raises(ValueError, match="needs a weight"):
        image_weights(LABELS, weights[:3])


@pytest.mark.parametrize(
    ("shape", "labels", "confidence"),
    [((2, 3), 2, 0.95), ((3,), 3, 0.95), ((0, 3), 3, 0.95), ((2, 0), 0, 0.95), ((2, 3), 3, 1.0), ((2, 3), 3, 0.0)],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], labels: int, confidence: float) -> None:
    with pytest.raises(ValueError):
        interval(np.zeros(shape), np.zeros(labels, dtype=np.int64), confidence)


def test_scores_are_checked() -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(np.full((2, 3), np.nan), np.zeros(3, dtype=np.int64))


def test_trials_on_images_of_their_own_vary_by_trial_alone() -> None:
    labels, rng = np.repeat(np.arange(2), 60), np.random.default_rng(0)
    tested = np.tile(np.arange(60) % 3 == np.arange(3)[:, None], 2)
    y = image_weights(labels, tested=tested) * (rng.random(tested.shape) < 0.7)
    apart = interval(y, labels, tested=tested)
    assert apart.value == pytest.approx(y.sum(axis=1).mean())
    assert apart.standard_error == pytest.approx(y.sum(axis=1).std(ddof=1) / np.sqrt(3), rel=0.02)
    same = np.ones((5, len(LABELS)), dtype=bool)
    y = scores(0.7, 3)
    assert ends(interval(y, LABELS, tested=same)) == pytest.approx(ends(interval(y, LABELS)), rel=1e-9)


@pytest.mark.parametrize("pool", [30, 90])
def test_intervals_of_varied_splits_hold_the_truth_of_new_images(pool: int) -> None:
    """Each of 5 trials tests 30 images a class of a pool, whose images differ in difficulty, 0.65 on average."""
    rng, labels, held = np.random.default_rng(5), np.repeat(np.arange(3), pool), []
    for _ in range(300):
        chance = rng.beta(1.3, 0.7, len(labels))
        order = rng.random((5, 3, pool)).argsort(axis=2).argsort(axis=2)
        tested = (order < 30).reshape(5, -1)
        y = image_weights(labels, tested=tested) * (rng.random(tested.shape) < chance)
        low, high = ends(interval(y, labels, tested=tested))
        held.append(low <= 0.65 <= high)
    assert 0.92 <= np.mean(held) <= 0.985


@pytest.mark.parametrize(("images", "wilson"), [(3, True), (10, True), (12, False)])
def test_few_images_that_are_alike_are_not_certain(images: int, wilson: bool) -> None:
    right = np.ones((10, images), dtype=bool)
    right[0, 0] = False
    low, high = ends(class_interval(right))
    wide = wilson_interval(right.mean() * images, images)
    assert (low <= wide[0] and high >= wide[1]) == wilson


def test_trials_on_images_of_their_own_that_are_equal_by_chance_are_not_certain() -> None:
    labels, rng = np.repeat(np.arange(8), 15), np.random.default_rng(0)
    tested = np.tile(np.arange(15) // 5 == np.arange(3)[:, None], 8)
    for _ in range(30):
        right = np.zeros(len(labels), dtype=bool)
        for own in tested:
            right[rng.choice(np.flatnonzero(own), 5, replace=False)] = True
        estimate = interval(image_weights(labels, tested=tested) * right, labels, tested=tested)
        assert estimate.value == pytest.approx(5 / 40) and estimate.standard_error > 0.01
