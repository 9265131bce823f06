"""The synthetic dataset: same pixels everywhere, same supply for all classes, difficulty apart from frequency."""

import pickle

import numpy as np
import pytest

from ltbench import datasets
from ltbench.datasets.sources.synthetic import DIFFICULTIES, Difficulty, Synthetic, sample_look
from ltbench.errors import UserError

SUPPLY = 2150


@pytest.fixture(scope="module")
def source() -> Synthetic:
    return Synthetic()


def _images(source: Synthetic, start: int, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    positions = [class_id * SUPPLY + start + index for class_id in range(8) for index in range(count)]
    return np.stack([source.read(position, size) for position in positions]), source.labels[positions]


def _spread(difficulty: Difficulty, class_id: int) -> float:
    """Return the summed variance of the traits of 300 lesions of a class."""
    rng = np.random.default_rng(0)
    looks = [sample_look(class_id, difficulty, rng) for _ in range(300)]
    return float(np.array([list(vars(look).values()) for look in looks]).var(0).sum())


def test_registered_with_defaults_and_difficulties() -> None:
    assert "synthetic" in datasets.available()
    assert datasets.registry.get("synthetic") is Synthetic
    assert datasets.registry.summary("synthetic").startswith("Synthetic: ")
    assert (Synthetic.preset, Synthetic.default_n_max, Synthetic.licence) == ("quick", 800, "MIT")
    assert len(set(DIFFICULTIES["equal"])) == 1
    sources = [Synthetic(difficulty=name) for name in DIFFICULTIES]
    assert len({source.variant for source in sources}) == len({source.title for source in sources}) == 3
    assert Synthetic().variant == ""
    marks = Synthetic().fingerprints(np.array([0, 5, 17199]))
    assert marks.shape == (3,) and marks.dtype == np.int64 and marks.min() == marks.max() > 0
    with pytest.raises(UserError, match=r"frequent-hard, rare-hard, equal, got 'hard'"):
        Synthetic(difficulty="hard")


def test_images_depend_on_position_size_and_difficulty(source: Synthetic) -> None:
    assert len(source.class_names) == len(set(source.class_names)) == 8
    assert source.labels.dtype == np.int64 and source.present.dtype == bool and source.present.all()
    assert np.bincount(source.labels).tolist() == [SUPPLY] * 8
    assert len(set(source.ids.tolist())) == len(set(source.lesions.tolist())) == 8 * SUPPLY
    assert source.ids[3 * SUPPLY + 42] == "syn_3_00042" and source.labels[3 * SUPPLY + 42] == 3
    first = source.read(4321, 48)
    np.random.seed(1)  # noqa: NPY002 - the global stream must not matter
    source.read(7, 32)
    other = pickle.loads(pickle.dumps(Synthetic(root=None)))
    assert np.array_equal(first, source.read(np.int64(4321), 48))
    assert np.array_equal(first, other.read(4321, 48))
    means = [source.read(class_id * SUPPLY, 32).mean() for class_id in range(8)]
    assert source.fingerprints(np.arange(1))[0] == 1
    assert means == pytest.approx([173.0, 141.3, 144.2, 170.2, 140.8, 146.4, 119.3, 120.8], abs=0.2)
    other = Synthetic(difficulty="rare-hard")
    assert np.array_equal(source.ids, other.ids) and np.array_equal(source.labels, other.labels)
    assert not np.array_equal(source.read(0, 32), other.read(0, 32))
    assert np.array_equal(source.read(3 * SUPPLY, 32), other.read(3 * SUPPLY, 32))  # medium in both


@pytest.mark.parametrize("size", [16, 33, 55, 224, 512])
def test_read_returns_planar_bytes_of_any_size(source: Synthetic, size: int) -> None:
    image = source.read(SUPPLY, size)
    assert image.shape == (3, size, size) and image.dtype == np.uint8
    assert image.std() > 5


@pytest.mark.parametrize("class_id", range(8))
def test_a_lesion_is_the_same_at_every_size(source: Synthetic, class_id: int) -> None:
    position = class_id * SUPPLY + 3
    small, large = source.read(position, 48), source.read(position, 192)
    averaged = large.reshape(3, 48, 4, 48, 4).mean((2, 4))
    assert np.corrcoef(small.ravel(), averaged.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("name", "hard", "easy"), [("frequent-hard", 0, 5), ("rare-hard", 5, 0)])
def test_hard_classes_are_the_diverse_ones(name: str, hard: int, easy: int) -> None:
    levels = DIFFICULTIES[name]
    assert min(level.subtypes for level in levels[hard : hard + 3]) > max(
        level.subtypes for level in levels[easy : easy + 3]
    )
    spreads = [_spread(level, class_id) for class_id, level in enumerate(levels)]
    assert min(spreads[hard : hard + 3]) > 2 * max(spreads[easy : easy + 3])


@pytest.fixture(scope="module")
def drawn(source: Synthetic) -> tuple[np.ndarray, ...]:
    """100 images a class to train on and 60 to test on: pixels and labels of both, 32 x 32."""
    return *_images(source, 0, 100, 32), *_images(source, 2050, 60, 32)


def _nearest_mean_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    centres = np.stack([features[labels == class_id].mean(0) for class_id in range(8)])
    guess = np.linalg.norm(features[:, None] - centres[None], axis=-1).argmin(1)
    return float((guess == labels).mean())


def test_colour_and_pixels_do_not_give_the_class_away(drawn: tuple[np.ndarray, ...]) -> None:
    images, labels, _, _ = drawn
    brightness = images.mean((1, 2, 3))
    per_class = np.array([brightness[labels == class_id].mean() for class_id in range(8)])
    assert np.ptp(per_class) < brightness.std()
    assert _nearest_mean_accuracy(brightness[:, None], labels) < 0.25
    assert _nearest_mean_accuracy(images.mean((2, 3)), labels) < 0.3
    train, labels, test, test_labels = drawn
    train, test = (images.reshape(len(images), -1).astype(float) for images in (train, test))
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    # Ridge regression onto one-hot labels in its dual form: deterministic and closed.
    accuracies = []
    for strength in (1e3, 1e4, 1e5):
        weights = train.T @ np.linalg.solve(train @ train.T + strength * np.eye(len(train)), np.eye(8)[labels] - 1 / 8)
        accuracies.append(((test @ weights).argmax(1) == test_labels).mean())
    assert 0.15 < max(accuracies) < 0.42
