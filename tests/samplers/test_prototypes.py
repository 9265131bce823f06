"""Prototypes, anchor counts and anchor points, against brute force and the paper's numbers."""

import re

import numpy as np
import pytest

from ltbench.samplers import anchor_counts, class_prototypes, nearest_prototype, select_anchors

R100 = np.array([5000, 2590, 1342, 695, 360, 187, 97, 51])
R100_ANCHORS = [500, 361, 260, 188, 136, 98, 71, 51]
PROFILES = ("pareto", "power")
FEATURES = np.random.default_rng(3).normal(size=(60, 4))
LABELS = np.random.default_rng(4).permutation(np.repeat(np.arange(3), (35, 20, 5)))


def test_prototypes_are_means_and_nan_of_absent_classes() -> None:
    prototypes = class_prototypes(FEATURES.astype(np.float32), LABELS, 3)
    assert prototypes.dtype == np.float64 and prototypes.shape == (3, 4)
    for label in range(3):
        rows = [row for row, at in zip(FEATURES.astype(np.float32), LABELS, strict=True) if at == label]
        np.testing.assert_allclose(prototypes[label], np.sum(rows, axis=0, dtype=np.float64) / len(rows), rtol=1e-12)
    prototypes = class_prototypes(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1]), 4)
    np.testing.assert_array_equal(prototypes[1], [2.0, 3.0])
    assert np.isnan(prototypes[[0, 2, 3]]).all()
    prototypes = np.array([[0.0, 0.0], [np.nan, np.nan], [4.0, 0.0]])
    assert nearest_prototype(np.array([[1.0, 0.0], [3.0, 1.0], [9.0, 9.0]]), prototypes).tolist() == [0, 2, 2]


@pytest.mark.parametrize("order", [np.arange(8), np.array([4, 7, 0, 6, 2, 5, 1, 3])])
def test_anchor_counts_of_the_paper(order: np.ndarray) -> None:
    expected = np.array(R100_ANCHORS)[order]
    counts = anchor_counts(R100[order], 0.1)
    assert counts.dtype == np.int64 and counts.tolist() == expected.tolist()
    np.testing.assert_allclose(anchor_counts(R100[order], 0.1, "power"), expected, atol=1)


@pytest.mark.parametrize("scale", [0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [20, 100, 500])
def test_profiles_agree_on_an_exact_pareto_profile(ratio: int, scale: float) -> None:
    counts = 1e6 * ratio ** (-np.arange(8) / 7)
    np.testing.assert_allclose(anchor_counts(counts, scale, "power"), anchor_counts(counts, scale, "pareto"), atol=1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("counts", [[5000, 5000, 20, 11], [1000, 12, 11, 10], [100, 1], [31, 30, 3], [900, 9, 300]])
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0])
def test_anchors_never_exceed_the_class(counts: list[int], scale: float, profile: str) -> None:
    anchors = anchor_counts(np.array(counts), scale, profile)
    assert (anchors >= 1).all() and (anchors <= counts).all()
    assert anchors[np.argmin(counts)] == min(counts)


@pytest.mark.parametrize("profile", PROFILES)
def test_scale_one_takes_the_whole_pareto_set(profile: str) -> None:
    np.testing.assert_allclose(anchor_counts(R100, 1.0, profile), R100, atol=1)


@pytest.mark.parametrize(("counts", "scale"), [([100, 11], 0.1), ([5, 5], 0.9), ([99, 10], 0.1)])
def test_refuses_to_turn_the_imbalance_over(counts: list[int], scale: float) -> None:
    with pytest.raises(ValueError, match="imbalance ratio"):
        anchor_counts(np.array(counts), scale)


def test_ratio_times_scale_of_one_balances_the_anchors() -> None:
    assert anchor_counts(np.array([100, 30, 10]), 0.1).tolist() == [10, 10, 10]
    assert anchor_counts(np.array([490, 49, 10]), 1 / 49).tolist() == [10, 10, 10]


@pytest.mark.parametrize("ratio", [2, 3, 7, 30, 70])
def test_the_scale_that_the_message_names_is_accepted(ratio: int) -> None:
    counts = np.array([10 * ratio, 10])
    with pytest.raises(ValueError, match="use a scale") as caught:
        anchor_counts(counts, 0.5 / ratio)
    named = re.search(r"at least ([\d.e-]+)$", str(caught.value))
    assert named is not None
    anchor_counts(counts, float(named[1]))


@pytest.mark.parametrize(
    ("counts", "scale", "profile"),
    [
        *(([10, 1], scale, "pareto") for scale in (0.0, 1.1, float("nan"))),
        *((counts, 0.5, "pareto") for counts in ([10, 0], [10, np.nan], [np.inf, 10], [10], [[10, 1]])),
        *((counts, 0.5, "power") for counts in ([np.nan, 10], [10, np.inf])),
        ([10, 1], 0.5, "linear"),
    ],
)
def test_anchor_counts_refuse(counts: list, scale: float, profile: str) -> None:
    with pytest.raises(ValueError, match=r"class_counts must be|anchor scale|anchor profile"):
        anchor_counts(np.array(counts), scale, profile)


def ranked(label: int, *, farthest: bool = False) -> list[int]:
    """Return the positions of a class by distance to its mean, by brute force."""
    members = [index for index, at in enumerate(LABELS) if at == label]
    mean = sum(FEATURES[index] for index in members) / len(members)
    distance = {index: float(np.sqrt(((FEATURES[index] - mean) ** 2).sum())) for index in members}
    return sorted(members, key=lambda index: (-distance[index] if farthest else distance[index], index))


@pytest.mark.parametrize(("strategy", "farthest"), [("anchor", False), ("edge", True)])
@pytest.mark.parametrize("counts", [(7, 3, 5), (35, 20, 5), (0, 0, 1), (1, 0, 0)])
def test_selects_by_distance_class_by_class(counts: tuple[int, ...], strategy: str, farthest: bool) -> None:
    chosen = select_anchors(FEATURES, LABELS, np.array(counts), strategy)
    expected = [index for label, wanted in enumerate(counts) for index in ranked(label, farthest=farthest)[:wanted]]
    assert chosen.dtype == np.int64 and chosen.tolist() == expected


@pytest.mark.parametrize("strategy", ["anchor", "edge"])
def test_ties_go_to_the_lower_position(strategy: str) -> None:
    features = np.array([[1.0], [-1.0], [1.0], [-1.0], [-1.0], [1.0]])
    assert select_anchors(features, np.zeros(6, dtype=np.int64), np.array([4]), strategy).tolist() == [0, 1, 2, 3]


def test_random_anchors_are_uniform_and_seeded() -> None:
    counts = np.array([5, 4, 2])
    draws = [select_anchors(FEATURES, LABELS, counts, "random", np.random.default_rng(seed)) for seed in range(600)]
    again = select_anchors(FEATURES, LABELS, counts, "random", np.random.default_rng(7))
    np.testing.assert_array_equal(draws[7], again)
    for drawn in draws[:20]:
        assert len(set(drawn.tolist())) == 11 and np.bincount(LABELS[drawn]).tolist() == [5, 4, 2]
    share = np.bincount(np.concatenate(draws), minlength=60) / 600
    for label, probability in enumerate((5 / 35, 4 / 20, 2 / 5)):
        spread = np.sqrt(probability * (1 - probability) / 600)
        assert (np.abs(share[label == LABELS] - probability) < 4.5 * spread).all()


def test_select_anchors_refuses() -> None:
    with pytest.raises(ValueError, match="class 2 has 5 images, 6 anchors wanted"):
        select_anchors(FEATURES, LABELS, np.array([1, 1, 6]))
    with pytest.raises(ValueError, match="strategy"):
        select_anchors(FEATURES, LABELS, np.array([1, 1, 1]), "nearest")
    with pytest.raises(ValueError, match="rng"):
        select_anchors(FEATURES, LABELS, np.array([1, 1, 1]), "random")


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (FEATURES[:3], [0, -1, 1], r"labels must be in \[0, 3\), got -1"),
        (FEATURES[:3], [0, 3, 1], r"labels must be in \[0, 3\), got 3"),
        (FEATURES[:3], [0, 1], "2 labels for 3"),
        (FEATURES[:3], [[0], [1], [2]], "labels must be whole numbers"),
        (FEATURES[:3], [0.0, 1.0, 2.0], "labels must be whole numbers"),
        (FEATURES[:3, 0], [0, 1, 2], r"features must be \[N, D\]"),
    ],
)
def test_features_and_labels_that_do_not_fit_are_refused(
    features: np.ndarray, labels: list[object], message: str
) -> None:
    for refuse in (
        lambda: class_prototypes(features, np.array(labels), 3),
        lambda: select_anchors(features, np.array(labels), np.array([1, 1, 0])),
        lambda: select_anchors(features, np.array(labels), np.zeros(3, dtype=np.int64), "random", rng=None),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()
