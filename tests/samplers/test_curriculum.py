"""Densities, exact one-dimensional k-means and curriculum subsets, against brute force and planted structure."""

import itertools
import math

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ltbench.samplers import curriculum_subsets, density, kmeans_1d, local_density

QUANTILES = (0.05, 0.3, 0.6, 0.95)


def naive_density(features: np.ndarray, quantile: float) -> list[float]:
    """Return the densities by the definition: every distance in a list, sorted."""
    distances = [[math.dist(one, other) for other in features.tolist()] for one in features.tolist()]
    ordered = sorted(itertools.chain.from_iterable(distances))
    cutoff = ordered[math.floor(quantile * len(features) ** 2)]
    return [sum(distance < cutoff for distance in row) - 1 for row in distances]


def naive_gaussian(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    return (np.exp(-((distances / distances.max()) ** 2) / 2) / np.sqrt(2 * np.pi)).sum(axis=1)


def spread(values: np.ndarray, clusters: np.ndarray) -> float:
    return sum(((values[clusters == each] - values[clusters == each].mean()) ** 2).sum() for each in set(clusters))


def least_spread(values: np.ndarray, k: int) -> float:
    """Return the least sum of squares of any cut of the sorted values into k runs."""
    ordered = np.sort(values)
    cuts = itertools.combinations(range(1, len(values)), k - 1)
    return min(sum(((run - run.mean()) ** 2).sum() for run in np.split(ordered, cut)) for cut in cuts)


@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 60])
def test_density_is_the_definition(count: int, quantile: float) -> None:
    features = np.random.default_rng(count).normal(size=(count, 3))
    density = local_density(features, quantile)
    assert density.dtype == np.float64 and density.shape == (count,)
    assert density.tolist() == naive_density(features, quantile)


@pytest.mark.parametrize("kept", [0, 100, 1 << 25])
@pytest.mark.parametrize("quantile", QUANTILES)
def test_density_of_tied_distances(quantile: float, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    normal = np.random.default_rng(0).normal(size=(50, 3))
    expected = [local_density(normal, quantile, kernel).tolist() for kernel in ("cutoff", "gaussian")]
    monkeypatch.setattr(density, "_KEPT", kept)
    monkeypatch.setattr(density, "_BLOCK", 200)
    assert [local_density(normal, quantile, kernel).tolist() for kernel in ("cutoff", "gaussian")] == expected
    features = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2)
    assert local_density(features, quantile).tolist() == naive_density(features, quantile)
    twice = np.concatenate([features, features[:20]])
    assert local_density(twice, quantile).tolist() == naive_density(twice, quantile)


@pytest.mark.parametrize("kernel", ["cutoff", "gaussian"])
def test_equal_images_in_the_majority(kernel: str) -> None:
    features = np.concatenate([np.full((40, 7), 0.1), np.random.default_rng(0).normal(size=(5, 7))])
    density = local_density(features, 0.6, kernel)
    if kernel == "cutoff":
        assert (density == -1).all()
        assert (local_density(features[:40], 0.6) == -1).all()
    else:
        assert len(set(density[:40].tolist())) == 1
        np.testing.assert_allclose(local_density(features[:40], kernel="gaussian"), 40 / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("count", [2, 3, 40])
def test_gaussian_density_is_the_definition(count: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    np.testing.assert_allclose(local_density(features, kernel="gaussian"), naive_gaussian(features), rtol=1e-9)
    assert local_density(features[:1], kernel="gaussian").tolist() == [1 / math.sqrt(2 * math.pi)]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_kmeans_is_the_best_of_all_cuts(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    for values in (rng.normal(size=9), rng.integers(0, 8, size=12).astype(float), 1e4 + rng.exponential(size=10)):
        clusters = kmeans_1d(values, k)
        assert clusters.dtype == np.int64 and set(clusters.tolist()) == set(range(k))
        assert spread(values, clusters) == pytest.approx(least_spread(values, k), rel=1e-9, abs=1e-9)


def test_kmeans_numbers_clusters_by_mean_and_density_needs_an_image() -> None:
    values = np.array([7.0, 0.0, 3.0, 0.0, 7.0, 3.0, 3.0])
    assert kmeans_1d(values, 3).tolist() == [2, 0, 1, 0, 2, 1, 1]
    many = np.random.default_rng(0).integers(0, 12, size=500)
    clusters = kmeans_1d(many, 3)
    for value in range(12):
        assert len(set(clusters[many == value].tolist())) == 1
    assert (np.diff(clusters[np.argsort(many)]) >= 0).all()
    with pytest.raises(ValueError, match="at least one image"):
        local_density(np.empty((0, 3)))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, float("nan")], [1.0, float("inf")], [2.0, 2.0]])
def test_kmeans_refuses(values: list) -> None:
    with pytest.raises(ValueError):
        kmeans_1d(np.array(values), 2)
    with pytest.raises(ValueError, match="k must be between 1 and the 2 distinct values, got 0"):
        kmeans_1d(np.array([1.0, 2.0]), 0)


def test_every_class_is_cut_for_itself_whatever_its_id() -> None:
    rng = np.random.default_rng(7)
    features, labels = rng.normal(size=(200, 4)), rng.choice([11, 2, 70], size=200)
    subsets = curriculum_subsets(features, labels)
    for label in (2, 11, 70):
        alone = features[labels == label]
        np.testing.assert_array_equal(subsets[labels == label], curriculum_subsets(alone, np.zeros(len(alone))))
        density = local_density(alone)
        expected = 2 - kmeans_1d(density, 3)
        np.testing.assert_array_equal(subsets[labels == label], expected)
        assert density[expected == 0].min() > density[expected == 1].max()
        assert density[expected == 1].min() > density[expected == 2].max()


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_small_classes_stay_whole(count: int) -> None:
    features = np.random.default_rng(count).normal(size=(count + 30, 3))
    labels = np.repeat([1, 0], (count, 30))
    subsets = curriculum_subsets(features, labels)
    assert (subsets[:count] == 0).all() and set(subsets[count:].tolist()) == {0, 1, 2}


def test_classes_are_cut_where_images_and_densities_suffice() -> None:
    features = np.random.default_rng(3).normal(size=(9, 3))
    assert set(curriculum_subsets(features, np.zeros(9)).tolist()) == {0, 1, 2}
    assert (curriculum_subsets(features, np.zeros(9), min_images=10) == 0).all()
    features = np.repeat([[0.0], [10.0]], (15, 5), axis=0)
    density = local_density(features, 0.7)
    assert len(set(density.tolist())) == 2
    assert (curriculum_subsets(features, np.zeros(20), quantile=0.7) == 0).all()
    cut = curriculum_subsets(features, np.zeros(20), num_subsets=2, quantile=0.7)
    assert cut.tolist() == [0] * 15 + [1] * 5
    features = np.random.default_rng(0).normal(size=(180, 2))
    assert (curriculum_subsets(features, np.zeros(180), num_subsets=1) == 0).all()
    assert curriculum_subsets(np.empty((0, 4)), np.empty(0)).shape == (0,)


@pytest.mark.parametrize("kernel", ["cutoff", "gaussian"])
@pytest.mark.parametrize(("count", "dimension"), [(9, 4), (300, 4), (300, 400)])
def test_classes_of_equal_images_stay_whole(count: int, dimension: int, kernel: str) -> None:
    features = np.tile(np.random.default_rng(0).normal(size=dimension), (count, 1))
    assert (curriculum_subsets(features, np.zeros(count), kernel=kernel) == 0).all()
    # With 8 of 9 images equal, (8 / 9) ** 2 of all distances are 0.
    features[: count // 9] += np.random.default_rng(1).normal(size=(count // 9, dimension))
    assert (curriculum_subsets(features, np.zeros(count)) == 0).all()


@pytest.mark.parametrize("count", [40, 255, 256])
def test_many_features_of_few_images_are_all_kept(count: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 300)).astype(np.float32)
    expected = 2 - kmeans_1d(local_density(features), 3)
    np.testing.assert_array_equal(curriculum_subsets(features, np.zeros(count)), expected)


def test_many_features_of_many_images_are_reduced_to_principal_components() -> None:
    features = np.random.default_rng(8).normal(size=(320, 300)).astype(np.float32)
    components = PCA(256, svd_solver="full").fit_transform(features.astype(np.float64))
    expected = 2 - kmeans_1d(local_density(components), 3)
    np.testing.assert_array_equal(curriculum_subsets(features, np.zeros(320)), expected)
    small = PCA(8, svd_solver="full").fit_transform(features.astype(np.float64))
    expected = 2 - kmeans_1d(local_density(small), 3)
    np.testing.assert_array_equal(curriculum_subsets(features, np.zeros(320), max_dimension=8), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(({"features": np.full((12, 2), value)}, "finite") for value in (np.nan, np.inf)),
        ({"features": np.zeros(12)}, r"\[n, D\]"),
        *(({"labels": np.zeros(shape)}, r"labels must be \[12\]") for shape in (11, (12, 1))),
        *(({"quantile": value}, "quantile") for value in (0.0, 1.0, float("nan"))),
        ({"kernel": "linear"}, "kernel"),
        ({"num_subsets": 0}, "num_subsets"),
        ({"max_dimension": 0}, "max_dimension"),
    ],
)
def test_subsets_refuse(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curriculum_subsets(**{"features": np.zeros((12, 2)), "labels": np.zeros(12), **changed})
    if changed.keys() <= {"features", "quantile", "kernel"}:
        with pytest.raises(ValueError, match=message):
            local_density(**{"features": np.zeros((12, 2)), **changed})
