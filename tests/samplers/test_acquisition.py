"""Difficulty, quotas and mutual information, against hand-made values and brute force."""

import math

import numpy as np
import pytest

from ltbench.samplers import class_difficulty, mutual_information, query_quotas, select_queries

ACCURACY = np.array([0.9, 0.5, 0.75, 0.2])
RULES = ("per_class", "total")


def test_quotas_and_difficulty_by_hand() -> None:
    assert class_difficulty(np.zeros(3)).tolist() == [1, 1, 1]
    np.testing.assert_allclose(class_difficulty(ACCURACY), np.array([0.1, 0.5, 0.25, 0.8]) * 4 / 1.65, rtol=1e-14)
    unknown, wrong = (class_difficulty(np.array([0.5, value, 0.25])) for value in (np.nan, 0.0))
    np.testing.assert_array_equal(unknown, wrong)
    np.testing.assert_array_equal(class_difficulty(np.ones(5)), np.ones(5))
    pool = np.array([1000, 40, 7, 0])
    difficulty = np.array([0.1, 0.5, 0.25, 0.8]) * 4 / 1.65
    expected = [math.ceil(value * 0.1 * count) for value, count in zip(difficulty, pool, strict=True)]
    quotas = query_quotas(ACCURACY, pool, 0.1)
    assert quotas.dtype == np.int64 and quotas.tolist() == expected == [25, 5, 1, 0]


@pytest.mark.parametrize("rule", RULES)
def test_quotas_of_either_rule(rule: str) -> None:
    quotas = query_quotas(np.array([1.0, 0.5, 1.0]), np.array([100, 100, 100]), 0.1, rule=rule)
    assert quotas.tolist() == [0, 30, 0]  # a class without errors gives nothing
    assert query_quotas(ACCURACY, np.zeros(4, dtype=np.int64), 0.1, rule=rule).tolist() == [0, 0, 0, 0]
    for pool, fraction, expected in ((70, 0.1, 7), (30, 0.1, 3), (100, 0.29, 29), (71, 0.1, 8)):
        # 0.1 * 70 is 7.000000000000001 in floating point.
        quotas = query_quotas(np.full(3, 0.4), np.array([pool, 0, 0]), fraction, rule=rule)
        assert quotas.tolist() == [expected, 0, 0]


@pytest.mark.parametrize(
    ("accuracy", "pool", "fraction", "options", "expected"),
    [
        ([0.0, 1.0, 1.0], [10, 10, 10], 1.0, {}, [10, 0, 0]),  # never more than the pool
        *(([0.99, 0.1], [count, 0], 0.01, {}, [1, 0]) for count in (1, 2, 9)),  # a difficult class gives an image
        ([0.5, 0.5], [40, 2], 0.1, {"base_counts": np.array([100, 50])}, [10, 2]),
        ([0.5, 0.5], [40, 0], 0.1, {"base_counts": np.array([100, 50])}, [10, 0]),
        ([0.5] * 3, [41, 37, 22], 0.1, {"rule": "total"}, [4, 4, 2]),  # largest remainders of 4.1, 3.7 and 2.2
        ([0.5] * 4, [5, 5, 5, 5], 0.1, {"rule": "total"}, [1, 1, 0, 0]),  # ties go to the lower class
        ([0.5] * 3, [2, 50, 50], 0.3, {"rule": "total", "base_counts": np.array([100, 50, 50])}, [2, 29, 29]),
        ([1.0, 0.0], [100, 3], 0.5, {"rule": "total"}, [0, 3]),  # only perfect classes are left
    ],
)
def test_quotas_by_hand(
    accuracy: list[float], pool: list[int], fraction: float, options: dict, expected: list[int]
) -> None:
    assert query_quotas(np.array(accuracy), np.array(pool), fraction, **options).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_total_spends_the_budget_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool, accuracy = rng.integers(0, 400, size=8), rng.uniform(0, 0.95, size=8)
    fraction = float(rng.choice([0.01, 0.1, 0.3, 1.0]))
    quotas = query_quotas(accuracy, pool, fraction, rule="total")
    assert (quotas >= 0).all() and (quotas <= pool).all()
    assert quotas.sum() == math.ceil(round(fraction * int(pool.sum()), 9))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(({"accuracy": wrong}, r"\[0, 1\]") for wrong in ([50.0, 100.0], [1.01, 0.5], [-0.1, 0.5], [np.inf, 0.5])),
        *(({"fraction": wrong}, "fraction") for wrong in (0.0, -0.1, 1.1, float("nan"))),
        ({"pool_counts": [5, -1]}, "negative"),
        ({"base_counts": [5, -1]}, "negative"),
        ({"rule": "class"}, "rule"),
        *(({name: [1]}, r"must all be \[K\]") for name in ("accuracy", "pool_counts", "base_counts")),
        *(({name: [1], "rule": "total"}, r"must all be \[K\]") for name in ("accuracy", "pool_counts", "base_counts")),
    ],
)
def test_quotas_refuse(changed: dict, message: str) -> None:
    given = {"accuracy": [0.5, 0.5], "pool_counts": [5, 5], "fraction": 0.1} | changed
    given |= {name: np.array(value) for name, value in given.items() if isinstance(value, list)}
    with pytest.raises(ValueError, match=message):
        query_quotas(**given)
    if message == r"\[0, 1\]":
        with pytest.raises(ValueError, match=message):
            class_difficulty(given["accuracy"])


def draws(passes: int, images: int, classes: int, seed: int = 0, concentration: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, concentration), size=(passes, images))


def entropy(probabilities: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in probabilities.tolist() if value > 0)


@pytest.mark.parametrize("concentration", [0.01, 0.3, 50.0])
def test_mutual_information_against_loops(concentration: float) -> None:
    probs = draws(10, 25, 8, concentration=concentration)
    expected = [
        entropy(probs[:, image].mean(axis=0)) - sum(entropy(row) for row in probs[:, image]) / 10 for image in range(25)
    ]
    information = mutual_information(probs)
    assert information.dtype == np.float64 and information.shape == (25,)
    np.testing.assert_allclose(information, expected, rtol=1e-10, atol=1e-12)
    assert (information >= 0).all() and (information <= math.log(8)).all()


@pytest.mark.parametrize("passes", [1, 2, 3, 7, 10])
def test_identical_draws_share_nothing_to_learn(passes: int) -> None:
    information = mutual_information(np.repeat(draws(1, 200, 5), passes, axis=0))
    assert (information >= 0).all() and information.max() < 1e-14


def test_information_of_certain_images_and_of_single_precision() -> None:
    probs = np.zeros((4, 2, 3))
    probs[:, :, 1] = 1.0
    np.testing.assert_array_equal(mutual_information(probs), [0.0, 0.0])
    probs = draws(5, 10, 4).astype(np.float32)
    np.testing.assert_array_equal(mutual_information(probs), mutual_information(probs.astype(np.float64)))


@pytest.mark.parametrize("shape", [(3, 4), (4,), (1, 2, 3, 4)])
def test_mutual_information_refuses_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="probs"):
        mutual_information(np.full(shape, 0.5))


def test_queries_are_the_most_informative_of_each_class() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0, 3])
    information = np.array([0.2, 0.5, 0.9, 0.7, 0.4, 0.1, 0.3])
    chosen = select_queries(information, labels, np.array([2, 2, 0, 1]))
    assert chosen.dtype == np.int64 and chosen.tolist() == [3, 1, 2, 4, 6]
    assert select_queries(np.full(5, 0.3), np.zeros(5, dtype=np.int64), np.array([3])).tolist() == [0, 1, 2]
    chosen = select_queries(np.ones(3), np.zeros(3, dtype=np.int64), np.array([0, 0]))
    assert chosen.dtype == np.int64 and chosen.shape == (0,)
    with pytest.raises(ValueError, match="class 1 has 1 images in the pool, 2 wanted"):
        select_queries(np.ones(3), np.array([0, 0, 1]), np.array([1, 2]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "2 labels for 3"), ([0, 1, 1, 0], "4 labels for 3"), ([0, 1, 2], "got 2"), ([0, -1, 1], "got -1")],
)
def test_queries_refuse_labels(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_queries(np.ones(3), np.array(labels), np.array([1, 1]))
